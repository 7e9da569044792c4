"""From a path to named tensors: one file, a folder, or a folder of shards.

Contract: opening reads headers only (of a torch file: its pickled directory), the data follow
when a tensor is asked for. Shard paths that an index gives stay inside the folder. A shard that
is missing, or that lacks a tensor which the index promises, is an error when the folder is opened.
"""

from collections.abc import Collection
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import safe_open

from lite.errors import BadInput
from qlora.checkpoints.checks import one_line, read_json, some
from qlora.checkpoints.layouts import refuse_quantized, refuse_unused
from qlora.checkpoints.pickles import read_pickle, state_dict_of
from qlora.checkpoints.views import (
    FileTensors,
    TensorEntry,
    TensorSource,
    from_tensors,
    merged,
    renamed,
)

__all__ = [
    "TensorSource",
    "from_tensors",
    "merged",
    "open_tensors",
    "read_pickle",
    "renamed",
]

# Names of the safetensors header, https://github.com/huggingface/safetensors (README, "Format").
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_TORCH_SUFFIXES = (".bin", ".pt", ".pth")


def open_tensors(path: Path, besides: Collection[str] = ()) -> TensorSource:
    """Open a checkpoint file or folder.

    Args:
        path: a `.safetensors`, `.bin`, `.pt` or `.pth` file, or a folder that holds
            `model.safetensors`, `pytorch_model.bin`, or shards with their `*.index.json`. If the
            folder holds both formats, safetensors is taken: its header needs no unpickler.
        besides: files of weights in the folder that the caller reads by itself.

    Raises:
        BadInput: nothing of the kind is there, a file is damaged or incomplete, the weights are
            quantized, or the folder holds others that nobody reads.
    """
    path = Path(path)
    if path.is_dir():
        source = _open_folder(path)
        refuse_quantized(source)
        refuse_unused(path, {*besides, *{source.where(name).name for name in source}})
        return source
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    if path.suffix in _TORCH_SUFFIXES:
        return from_tensors(state_dict_of(read_pickle(path), path), path)
    if not path.exists():
        raise BadInput(f"{path} does not exist; check the path.")
    raise BadInput(
        f"{path} is not a checkpoint by its name; give a .safetensors, .bin, .pt or .pth file, "
        f"or a folder of them."
    )


def _open_folder(folder: Path) -> TensorSource:
    for kind, single in (("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin")):
        if (folder / single).is_file():
            return open_tensors(folder / single)
        indices = sorted(folder.glob(f"*.{kind}.index.json"))
        if len(indices) > 1:
            raise BadInput(
                f"{folder} holds several shard indices ({some(i.name for i in indices)}); keep "
                f"the one that is meant."
            )
        if indices:
            return _open_shards(folder, indices[0])
    raise BadInput(
        f"{folder} holds neither model.safetensors, pytorch_model.bin nor a shard index "
        f"(*.index.json); give a checkpoint folder in the Hugging Face layout."
    )


def _open_shards(folder: Path, index: Path) -> TensorSource:
    weight_map = read_json(index, "shard index").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadInput(f"{index} has no weight_map; download the index again.")
    shards = {str(shard): _shard_path(folder, index, shard) for shard in weight_map.values()}
    opened = {shard: open_tensors(shards[shard]) for shard in sorted(shards)}
    for name, shard in weight_map.items():
        if name not in opened[shard]:
            raise BadInput(
                f"{shards[shard]} lacks {name}, which {index.name} promises; download that shard "
                f"again."
            )
    return merged(*opened.values())


def _shard_path(folder: Path, index: Path, shard: Any) -> Path:
    """Where a shard lies. Links are followed: the Hugging Face cache is made of them."""
    if (
        not isinstance(shard, str)
        or not shard.endswith((".safetensors", *_TORCH_SUFFIXES))
        or PureWindowsPath(shard).is_absolute()
        or PureWindowsPath(shard).drive
        or PurePosixPath(shard).is_absolute()
        or ".." in PureWindowsPath(shard).parts
    ):
        raise BadInput(
            f"{index} names the shard {shard!r}, which is not a checkpoint file inside that "
            f"folder; download the index again."
        )
    path = folder / shard
    if not path.is_file():
        raise BadInput(f"{path} is missing although {index.name} names it; download that shard.")
    return path


def _open_safetensors(path: Path) -> TensorSource:
    if not path.is_file():
        raise BadInput(f"{path} does not exist; check the path.")
    with path.open("rb") as file:
        if file.read(24).startswith(b"version https://git-lfs"):
            raise BadInput(
                f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` there."
            )
    try:
        handle = safe_open(str(path), framework="pt", device="cpu")
        entries = {name: _entry(handle, path, name) for name in handle.keys()}  # noqa: SIM118
    except BadInput:
        raise
    # The header is parsed by a native library that raises a class of its own, or OSError.
    except Exception as error:
        raise BadInput(
            f"{path} is not a readable safetensors file ({one_line(error)}); download it again."
        ) from error
    return FileTensors(entries)


def _entry(handle: Any, path: Path, name: str) -> TensorEntry:
    if not name.isprintable():
        raise BadInput(f"{path} holds a tensor called {name!a}; download it again.")
    header = handle.get_slice(name)
    stored = header.get_dtype()
    if stored not in _DTYPES:
        raise BadInput(
            f"{name} in {path} is stored as {stored}, which is not supported; give a float32, "
            f"float16 or bfloat16 checkpoint."
        )
    shape = tuple(header.get_shape())
    return TensorEntry(shape, _DTYPES[stored], path, lambda: _read(handle, path, name))


def _read(handle: Any, path: Path, name: str) -> torch.Tensor:
    try:
        return handle.get_tensor(name)
    except Exception as error:
        raise BadInput(
            f"{name} cannot be read from {path} ({one_line(error)}); check that the file was not "
            f"changed or removed."
        ) from error
