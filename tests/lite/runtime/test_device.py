"""A device that cannot be used costs a sentence; buffers are the same wherever they are."""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lite
from lite.errors import BadInput
from lite.runtime import device as device_module
from lite.runtime.buffers import Buffer, DeviceBuffer, HostBuffer
from lite.runtime.device import CPU, CUDA, choose_device, cuda_works
from tests.lite.conftest import DOG

needs_gpu = pytest.mark.skipif(not cuda_works(), reason="needs an NVIDIA GPU")
SHAPE = (1, 2, 5, 4)
# ONNX Runtime's own class for a device's memory, which also reaches main memory.
MAKERS: dict[str, Callable[[], Buffer]] = {
    "host": lambda: HostBuffer(SHAPE, np.dtype(np.float16)),
    "device": lambda: DeviceBuffer(SHAPE, np.dtype(np.float16), CPU),
}


def test_an_unknown_device_is_refused(bundles: Any) -> None:
    with pytest.raises(BadInput, match="'tpu' is not supported; use cpu or cuda"):
        lite.load(bundles(), "tpu")


@pytest.mark.skipif(cuda_works(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_answers_and_says_so(bundles: Any) -> None:
    said: list[str] = []
    model = lite.load(bundles(), CUDA, notice=said.append)
    (sentence,) = said
    assert "no GPU" in sentence
    assert "onnxruntime-gpu" in sentence
    ids = [1, 30, 31]
    np.testing.assert_array_equal(model.score(ids), lite.load(bundles()).score(ids))


def test_a_bundle_for_the_cpu_stays_there(bundles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "cuda_works", lambda: True)
    said: list[str] = []
    assert choose_device(CUDA, lite.load(bundles()).bundle.manifest, said.append) == CPU
    assert "--activations fp16" in said[0]


@pytest.mark.parametrize("kind", MAKERS)
def test_buffers_are_zeros_and_keep_what_is_written(kind: str) -> None:
    made = MAKERS[kind]()
    assert made.nbytes == 80
    assert not made.read().any()
    made.write(np.s_[0, :, 1:3], np.ones((2, 2, 4), np.float16))
    made.write(np.s_[0, 0, 2:4], np.full((2, 4), 2, np.float16))
    expected = np.zeros(SHAPE)
    expected[0, :, 1:3] = 1
    expected[0, 0, 2:4] = 2
    np.testing.assert_array_equal(made.read(), expected)
    np.testing.assert_array_equal(made.value.numpy(), expected)


@pytest.mark.skipif(not hasattr(mmap, "MADV_NOHUGEPAGE"), reason="of Linux")
def test_memory_is_taken_as_positions_are_written() -> None:
    before = resident()
    made = [HostBuffer((1, 32, 4096, 128), np.dtype(np.float32)) for _ in range(8)]  # 64 MB each
    for one in made:
        one.write(np.s_[0, :, :8], np.ones((32, 8, 128), np.float32))  # 128 KB
    assert resident() - before < 64 << 20


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@needs_gpu
@pytest.mark.parametrize("kind", ["fp16", "int8", "int4"])
def test_a_gpu_gives_the_logits_of_the_cpu(halves: Any, kind: str) -> None:
    models = [lite.load(halves(kind), where) for where in (CPU, CUDA)]
    ids, seen = [1, 401, *range(30, 50)], [model.encode_images(DOG) for model in models]
    for end in (len(ids) - 3, len(ids) - 1, len(ids)):
        pair = zip(models, seen, strict=True)
        rows = [model.decoder.logits(ids[:end], images) for model, images in pair]
        np.testing.assert_allclose(rows[1], rows[0], atol=0.05)
