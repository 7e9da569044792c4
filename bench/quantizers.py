"""Ways to round weights to 4 bits, tried on a model that was trained: `lite-bench quantizers`.

Contract: the matrices of a bundle's decoder are taken as the bundle stores them (int8 is exact
enough to tell ways to 4 bits apart), rounded in each way, and multiplied as float32; activations
are not rounded, so that nothing but the weights differs. The figures are those of `bench.quality`,
beside the error of all matrices together (norm of the difference over the norm).

    extreme      the scale maps a block's extreme value to the lowest code
    least error  the scale of least squared error: `export.quantize`, what `lite-export` does
    HQQ          half-quadratic quantization (Badri and Shaji 2023, mobiusml.github.io/hqq_blog) by
                 onnxruntime.quantization, which adds a zero point to each block

Example: lite-bench quantizers -o bench/results/quantizers-demo.json
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnx_ir as ir

import lite
from bench.demo.corpus import documents
from bench.quality import compare, print_table, windows
from bench.report import about, write_report
from export.precision import BLOCKS
from export.quantize import BlockQuantized, quantize
from lite.bundle.manifest import DECODER
from lite.cli import run, say
from lite.runtime.decoder import Decoder
from lite.runtime.device import CPU

TEXTS = 400
WINDOW = 256

Rounding = Callable[[np.ndarray, int], np.ndarray]


def extreme(weight: np.ndarray, block: int) -> np.ndarray:
    """`weight [out, in]` as blocks of codes -8 to 7 hold it."""
    blocks = weight.reshape(len(weight), -1, block)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], axis=-1)
    scale = np.where(largest == 0, 1, largest / -8)
    return (np.clip(np.rint(blocks / scale), -8, 7) * scale).reshape(weight.shape)


def least_error(weight: np.ndarray, block: int) -> np.ndarray:
    """`weight [out, in]` as `lite-export --precision int4` stores it."""
    return quantize(weight, 4, block).dequantize()


def hqq(weight: np.ndarray, block: int) -> np.ndarray:
    """`weight [out, in]` as HQQ stores it, with its zero points as they are found, in float."""
    import torch
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        HQQWeightOnlyQuantConfig,
        HQQWeightOnlyQuantizer,
    )

    quantizer = HQQWeightOnlyQuantizer(HQQWeightOnlyQuantConfig(block_size=block))
    found = quantizer.quantize_internal(torch.from_numpy(weight), bits=4, group_size=block)
    codes, scale, zero = (part.numpy()[..., None] for part in found)
    blocks = codes.reshape(len(weight), -1, block)
    return ((blocks - zero) * scale).reshape(weight.shape).astype(np.float32)


WAYS: dict[str, Rounding] = {"extreme": extreme, "least error": least_error, "HQQ": hqq}


@click.command(name="quantizers")
@click.argument(
    "text", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("-m", "--model", "bundle", metavar="BUNDLE", help="An int8 one.  [default: the demo]")
@click.option("--image", "images", multiple=True, metavar="FILE", help="Shown before windows.")
@click.option("--block", "blocks", multiple=True, type=click.Choice(BLOCKS), default=BLOCKS)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def command(
    text: Path | None,
    bundle: str | None,
    images: tuple[str, ...],
    blocks: tuple[int, ...],
    output: Path | None,
) -> None:
    """Compare ways to 4 bits by predictions of TEXT; without one, of texts of the demo's world."""
    exact = lite.load(bundle)
    graph = exact.bundle.path(DECODER)
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        unrounded = Path(scratch) / "exact.onnx"
        rounded_graph(graph, unrounded, lambda weight, block: weight, 0)
        exact.decoder = Decoder.open(exact.bundle, CPU, None, unrounded)
        # Texts like those of the demo's training, and none of them.
        texts = [text.read_text(encoding="utf-8")] if text else [*documents(TEXTS, seed=TEXTS)]
        cut = list(windows(exact, texts, list(images), WINDOW))
        for block in blocks:
            for name, way in WAYS.items():
                say(f"{name}, {block} values to a block")
                other, path = lite.load(bundle), Path(scratch) / "rounded.onnx"
                error = rounded_graph(graph, path, way, block)
                other.decoder = Decoder.open(other.bundle, CPU, None, path)
                found = compare(exact, {"": other}, cut)[""]
                figures[f"{name}, {block}"] = {"weight_error": error, **found}
    report = {
        **about(("onnxruntime", "numpy", "torch")),
        "model": bundle or "demo",
        "ways": figures,
    }
    if output:
        write_report(report, output)
    print_table(figures)


def rounded_graph(graph: Path, out: Path, way: Rounding, block: int) -> float:
    """Write a decoder with float32 matrices, all rounded in one way.

    Args:
        graph: whose matrices are MatMulNBits.
        out: the file to write.
        way: rounds a matrix whose columns fill its blocks.
        block: of the rounding.

    Returns:
        The relative error of all matrices together.
    """
    model = ir.load(graph)
    moved = total = 0.0
    for node in [*ir.traversal.RecursiveGraphIterator(model.graph)]:
        if node.op_type != "MatMulNBits":
            continue
        values = [value for value in node.inputs if value is not None]
        weight = BlockQuantized.of(node).dequantize()
        padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % block if block else 0)))
        found = way(padded, block)[:, : weight.shape[1]]
        moved += float(np.square(found - weight).sum())
        total += float(np.square(weight).sum())
        _replace(model.graph, node, values[0], f"{values[1].name}.float", found)
    ir.save(model, out, external_data=f"{out.name}.data")
    return (moved / total) ** 0.5


def _replace(graph: ir.Graph, node: ir.Node, x: ir.Value, name: str, weight: np.ndarray) -> None:
    """Multiply `x` by a float32 matrix `[out, in]` instead of `node`."""
    tensor = ir.Tensor(np.ascontiguousarray(weight.T), name=name)
    value = ir.Value(
        name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.initializers[name] = value
    new = ir.node("MatMul", [x, value])
    assert node.graph is not None
    ir.convenience.replace_nodes_and_values(
        node.graph, node, [node], [new], [node.outputs[0]], [new.outputs[0]]
    )


if __name__ == "__main__":
    run(command)
