"""Block quantization is what MatMulNBits computes with."""

import tracemalloc

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from export.graph import FLOAT, Graph
from export.precision import FP32, INT4, INT8, Precision, precision
from export.quantize import ROWS, block_size, quantize
from lite.errors import BadInput

SHAPES = [(7, 5), (96, 48), (33, 160), (64, 512)]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_value_moves_more_than_its_block_allows(shape, bits):
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    packed = quantize(weight, bits, 32)
    error = np.abs(packed.dequantize() - weight)
    # Half a step, or one whole step for the positive end that the code range lacks; at 4 bits one
    # more where clipping the extreme value serves the others.
    step = np.repeat(np.abs(packed.scales), packed.block, axis=1)[:, : shape[1]]
    assert (error <= step * (1.0001 if bits == 8 else 2.1)).all()
    assert (np.median(error / step)) <= 0.5


@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 8]), st.integers(1, 70), st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_quantizing_again_changes_nothing(seed, bits, rows, columns):
    weight = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    once = quantize(weight, bits, 32).dequantize()
    np.testing.assert_allclose(quantize(once, bits, 32).dequantize(), once, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("stored", [np.float16, bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("kind", [INT8, FP32], ids=lambda p: p.name)
def test_a_weight_may_be_given_as_it_is_stored(stored, kind, tmp_path):
    weight = np.random.default_rng(0).standard_normal((40, 64)).astype(stored)
    for name, values in (("a", weight), ("b", weight.astype(np.float32))):
        with Graph(tmp_path, name, kind) as graph:
            x = graph.input("x", FLOAT, [1, 64])
            graph.output(graph.linear(x, "layer", values), "y", FLOAT, [1, 40])
    assert (tmp_path / "a.data").read_bytes() == (tmp_path / "b.data").read_bytes()


def test_a_large_half_precision_weight_is_quantized_without_a_float_copy():
    weight = np.ones((1024 * ROWS, 32), dtype=np.float16)
    tracemalloc.start()
    packed = quantize(weight, 8, 32)
    most = tracemalloc.get_traced_memory()[1] - packed.codes.nbytes - packed.scales.nbytes
    tracemalloc.stop()
    assert most < weight.nbytes  # a float32 copy has twice as many


def test_zeros_stay_zero():
    assert not quantize(np.zeros((3, 40), np.float32), 4, 32).dequantize().any()


def test_blocks_shrink_for_narrow_matrices_only():
    assert [block_size(columns, 128) for columns in (5, 48, 64, 65, 4096)] == [16, 64, 64, 128, 128]


@pytest.mark.parametrize("kind", [INT8, INT4, FP32], ids=lambda p: p.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [1, 9])
def test_onnx_runtime_multiplies_by_the_same_weight(shape, kind: Precision, rows, tmp_path):
    random = np.random.default_rng(1)
    weight = random.standard_normal(shape).astype(np.float32)
    bias = random.standard_normal(shape[0]).astype(np.float32)
    with Graph(tmp_path, "one.onnx", kind) as graph:
        x = graph.input("x", FLOAT, ["n", shape[1]])
        graph.output(graph.linear(x, "layer", weight, bias), "y", FLOAT, ["n", shape[0]])
    values = random.standard_normal((rows, shape[1])).astype(np.float32)
    (result,) = ort.InferenceSession(tmp_path / "one.onnx").run(None, {"x": values})
    used = weight if kind.bits == 32 else quantize(weight, kind.bits, kind.block).dequantize()
    exact = values @ used.T + bias
    # Activations are rounded to 8 bits: at most 1/254 of the largest in each product.
    room = 1e-4 if kind.bits == 32 else np.abs(values).max() / 254 * np.abs(used).sum(1).max()
    assert np.abs(result - exact).max() <= room


def test_weights_lie_outside_the_graph_on_page_boundaries(tmp_path):
    first = np.ones((300, 300), np.float32)
    with Graph(tmp_path, "one.onnx", FP32) as graph:
        x = graph.input("x", FLOAT, [1, 300])
        y = graph.linear(graph.linear(x, "a", first), "b", first[:7])
        graph.output(y, "y", FLOAT, [1, 7])
    model = ir.load(tmp_path / "one.onnx")
    tensors = [v.const_value for v in model.graph.initializers.values()]
    assert all(isinstance(t, ir.ExternalTensor) and t.offset % 4096 == 0 for t in tensors)
    assert (tmp_path / "one.onnx").stat().st_size < 2000


def test_only_one_branch_of_either_runs(tmp_path):
    weight = np.eye(64, dtype=np.float32)
    with Graph(tmp_path, "one.onnx", INT8) as graph:
        x = graph.input("x", FLOAT, [1, 64])
        yes = graph.input("yes", ir.DataType.BOOL, [])
        y = graph.either(yes, lambda: graph.linear(x, "layer", 2 * weight), lambda: x)
        graph.output(y, "y", FLOAT, [1, 64])
    session = ort.InferenceSession(tmp_path / "one.onnx")
    ones = np.ones((1, 64), np.float32)
    doubled, same = (session.run(None, {"x": ones, "yes": np.array(b)})[0] for b in (True, False))
    np.testing.assert_allclose(doubled, 2 * ones, rtol=1e-2)
    np.testing.assert_array_equal(same, ones)


def test_sensitive_layers_and_vision_keep_8_bits():
    assert INT4.of("lm_head").bits == INT4.of("cross_attention").bits == INT4.vision.bits == 8
    assert INT4.of("").bits == 4
    assert FP32.vision.bits == 32


def test_an_unknown_precision_is_refused():
    with pytest.raises(BadInput, match="'int2' is unknown"):
        precision("int2")
