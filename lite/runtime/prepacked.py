"""The decoder's weights as ONNX Runtime arranges them for this processor, kept as a mapped file.

Contract: opening a large graph otherwise arranges its weights in memory of each process's own. The
arranged form is written once into the user's cache and mapped from then on, so that all processes
share one copy, which the system may drop and read again. It serves only the graph, processor and
ONNX Runtime that made it, and only if it computed the same logits as the plain graph, bit for bit,
when it was made. Nothing depends on it: where it cannot be had, the plain graph is opened.

The file has twice the size of the plain one: ONNX Runtime 1.32 writes both forms, and arranges the
plain one again when it opens the file, one weight at a time, to find the arranged one by its hash.
So it is made only where disk and memory are ample.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime as ort

from lite.bundle.bundle import Bundle
from lite.bundle.manifest import DECODER
from lite.errors import LiteError
from lite.files import new_folder, sync
from lite.runtime.cpu import cpu_features, cpu_name, memory_bytes
from lite.runtime.decoder import Decoder
from lite.runtime.device import CPU
from lite.runtime.ort_session import open_session
from lite.runtime.vision import ImageFeatures
from lite.userdirs import cache_dir

# A smaller decoder opens in a fraction of a second anyway.
MIN_DECODER_BYTES = 1 << 28
# Size of the arranged form, in sizes of the plain decoder.
SIZE_RATIO = 2
# Free space on the cache's disk that there must be, in sizes of the arranged form.
MIN_DISK_RATIO = 5
# Memory of the machine likewise: both forms are read through the disk cache at opening.
MIN_MEMORY_RATIO = 1.25
# Environment variable: 0 never makes an arranged form, and does not use one that is there.
VARIABLE = "MMGPT_LITE_PREPACK"
# Smaller tensors stay in the graph file.
MIN_EXTERNAL_BYTES = 1024


def prepacked_graph(
    bundle: Bundle,
    device: str = CPU,
    notice: Callable[[str], None] = lambda sentence: None,
) -> Path | None:
    """The arranged decoder graph of a bundle, made now if there is none; None where it cannot be.

    Args:
        bundle: whose decoder it is.
        device: only the CPU's is kept.
        notice: called with a sentence before it is made, which takes as long as opening the
            decoder and writing as much as it has.
    """
    size = sum(r.size for name, r in bundle.manifest.files.items() if name.startswith(DECODER))
    if device != CPU or size < MIN_DECODER_BYTES or os.environ.get(VARIABLE) == "0":
        return None
    folder = _folder(bundle)
    with suppress(OSError):
        if not folder.is_dir():
            _make_room(folder)
            arranged = SIZE_RATIO * size
            free = shutil.disk_usage(folder.parent).free
            if free < MIN_DISK_RATIO * arranged or memory_bytes() < MIN_MEMORY_RATIO * arranged:
                return None
            notice(
                f"Arranging the weights for this processor, once for this model "
                f"({arranged / 1e9:.1f} GB in {folder.parent}; {VARIABLE}=0 prevents it)..."
            )
            _make(bundle, folder)
        if (folder / DECODER).is_file():
            return folder / DECODER
    return None


def _folder(bundle: Bundle) -> Path:
    """For this graph, and in it for this processor and version."""
    files = bundle.manifest.files
    graph = "".join(files[name].sha256 for name in sorted(files) if name.startswith(DECODER))
    here = f"{cpu_name()} {sorted(cpu_features())} {ort.__version__}"
    name, inner = (hashlib.sha256(text.encode()).hexdigest()[:32] for text in (graph, here))
    return cache_dir("prepacked") / name / inner


def _make_room(folder: Path) -> None:
    """Remove what was made of the same graph elsewhere or by another version, or half made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.iterdir():
        shutil.rmtree(other, ignore_errors=True)


def _make(bundle: Bundle, folder: Path) -> None:
    """Write the arranged form; an empty folder where it does not compute what the plain one does.

    So what cannot be made is not tried at every opening.
    """
    with new_folder(folder) as partial:
        if not _arrange(bundle, partial):
            shutil.rmtree(partial)
            partial.mkdir()


def _arrange(bundle: Bundle, folder: Path) -> bool:
    """Write the arranged form into `folder`, and tell whether it is to be trusted."""
    try:
        # One after the other: two decoders may not fit into memory.
        plain = _probe(bundle, open_session(bundle.path(DECODER), configure=_saving(folder)))
        arranged = _probe(bundle, open_session(folder / DECODER))
    except LiteError:
        return False
    for path in folder.iterdir():  # on the disk before it counts
        sync(path)
    return np.array_equal(plain, arranged)


def _saving(folder: Path) -> Callable[[ort.SessionOptions], None]:
    """Makes opening a graph write its arranged form into `folder`."""

    def configure(options: ort.SessionOptions) -> None:
        options.optimized_model_filepath = str(folder / DECODER)
        external = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{external}file_name", f"{DECODER}.data")
        options.add_session_config_entry(f"{external}min_size_in_bytes", str(MIN_EXTERNAL_BYTES))
        options.add_session_config_entry(
            "session.save_external_prepacked_constant_initializers", "1"
        )

    return configure


def _probe(bundle: Bundle, session: ort.InferenceSession) -> np.ndarray:
    """Logits of one token and of several: with an image, where that is a single position."""
    manifest = bundle.manifest
    ids, images = [1, 2, 3], []
    if manifest.injected.image_tokens == 1:
        array = np.random.default_rng(0).standard_normal(manifest.sizes.feature_shape, np.float32)
        ids, images = [1, manifest.injected.image_id, 2, 3], [ImageFeatures("probe", array)]
    decoder = Decoder(bundle, session)
    return np.concatenate((decoder.score(ids, images), decoder.score(ids[:1])))
