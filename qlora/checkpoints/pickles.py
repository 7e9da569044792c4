"""Reading `.bin`, `.pt` and `.pth` files without letting them run code.

Contract: only torch's restricted unpickler touches the bytes (`weights_only=True`). It looks
globals up in a fixed list instead of importing them. The list is extended by mmengine's and mmcv's
configuration classes, because Multimodal-GPT stores one beside its weights: they become stand-ins
of ours, then plain dicts, so neither library is needed. Zip-format files are memory-mapped.
"""

import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from lite.errors import BadInput
from qlora.checkpoints.checks import one_line, some

_BLAMED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_WRAPPERS = ("model_state_dict", "state_dict")
# Far above any checkpoint, whose entries are tensors and settings.
_MOST_ENTRIES = 2**22


class _ConfigStandIn:
    """Stands for mmengine's `Config`: keeps the fields of its pickled state."""

    fields: object = None

    def __setstate__(self, state: object) -> None:
        # mmengine pickles a tuple that starts with the fields; mmcv 1.x a plain attribute dict.
        if isinstance(state, tuple) and state:
            self.fields = state[0]
        elif isinstance(state, dict):
            self.fields = state.get("_cfg_dict", state)


# OrderedDict itself stands in for the dict-like classes: it is the only dict subclass on which
# the restricted unpickler allows both SETITEMS and BUILD, the two ways they were pickled.
_STAND_INS: list[Any] = [
    (_ConfigStandIn, "mmengine.config.config.Config"),
    (_ConfigStandIn, "mmcv.utils.config.Config"),
    (OrderedDict, "mmengine.config.config.ConfigDict"),
    (OrderedDict, "mmcv.utils.config.ConfigDict"),
    (OrderedDict, "addict.addict.Dict"),
]


def read_pickle(path: Path) -> object:
    """Everything that a torch file holds, with mappings as plain dicts.

    Tensors of a zip-format file are views of the memory-mapped file, on the CPU; those of a file
    written before torch 1.6 are in memory.

    Raises:
        BadInput: the file is missing, truncated, not a torch file, a TorchScript archive, or
            asks for a global that could run code (which is then named, and not run).
    """
    is_zip = _is_zip(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_STAND_INS):
            # Other pickle protocols only warn; if an instruction is unknown the load fails.
            warnings.simplefilter("ignore")
            loaded = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
        return _Plain()(loaded)[0]
    # A damaged pickle can raise nearly anything (EOFError, KeyError, struct.error, ...).
    except Exception as error:
        blamed = _BLAMED_GLOBAL.search(str(error))
        if blamed:
            raise BadInput(
                f"{path} asks for {blamed[1]}, which could run code on this machine and was not "
                f"run; save the weights again as a plain state dict or as safetensors."
            ) from error
        raise BadInput(
            f"{path} is not a readable torch checkpoint ({_reason(error)}); download it again."
        ) from error


def state_dict_of(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of what `read_pickle` returned.

    A state dict may be wrapped in `model_state_dict` or `state_dict`; what lies beside it there
    (epoch, optimizer, ...) belongs to the trainer that wrote the file.

    Raises:
        BadInput: there is no state dict, or something in it is not a dense tensor.
    """
    if isinstance(loaded, dict):
        for wrapper in _WRAPPERS:
            if isinstance(loaded.get(wrapper), dict):
                loaded = loaded[wrapper]
                break
    if not isinstance(loaded, dict):
        raise BadInput(
            f"{path} holds a {type(loaded).__name__} instead of named tensors; give a state dict."
        )
    strange = [str(name) for name, value in loaded.items() if not _is_weight(name, value)]
    if strange:
        raise BadInput(
            f"{path} holds entries that are not named dense tensors ({some(strange)}); give a "
            f"plain state dict."
        )
    return {name: tensor.detach() for name, tensor in loaded.items()}


def _is_weight(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and name.isprintable()
        and isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
    )


def _is_zip(path: Path) -> bool:
    """Whether the file is of torch's zip format, from its first bytes, as torch decides it."""
    try:
        with path.open("rb") as file:
            start = file.read(24)
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; check the path.") from None
    except OSError as error:
        raise BadInput(
            f"{path} cannot be opened ({one_line(error)}); check the path and its permissions."
        ) from error
    if start.startswith(b"version https://git-lfs"):
        raise BadInput(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` there.")
    if not start.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise BadInput(
            f"{path} is a damaged or truncated torch checkpoint ({one_line(error)}); download it "
            f"again."
        ) from error
    if any(name.split("/", 1)[-1] == "constants.pkl" for name in names):
        raise BadInput(
            f"{path} is a TorchScript archive, which holds code and is not run; give the "
            f"safetensors or state-dict file of the same weights."
        )
    return True


def _reason(error: Exception) -> str:
    """The unpickler's message, without torch's advice on switching its protection off."""
    message = str(error).rsplit("WeightsUnpickler error:", 1)[-1]
    return f"{type(error).__name__}: {one_line(ValueError(message))}"


class _Plain:
    """Turns stand-ins and dict subclasses into plain dicts, and bounds what comes out.

    Each object is turned once however often it is referred to, so that a small file whose lists
    hold each other many times over costs no more than its own size.
    """

    def __init__(self) -> None:
        # The originals are kept too: ids are those of living objects only.
        self._done: dict[int, tuple[object, object, int]] = {}

    def __call__(self, value: object) -> tuple[object, int]:
        """The plain object, and how many it would be if written out."""
        if not isinstance(value, _ConfigStandIn | dict | list | tuple):
            return value, 1
        if id(value) not in self._done:
            made, count = self._turned(value)
            if count > _MOST_ENTRIES:
                raise ValueError(f"more than {_MOST_ENTRIES} entries, most of them repeated")
            self._done[id(value)] = value, made, count
        return self._done[id(value)][1:]

    def _turned(self, value: Any) -> tuple[object, int]:
        if isinstance(value, _ConfigStandIn):
            return self(value.fields)
        if isinstance(value, dict):
            # dict.items, because BUILD may have put an attribute called `items` on the instance.
            turned = {key: self(item) for key, item in dict.items(value)}
            made: object = {key: item for key, (item, _) in turned.items()}
            return made, 1 + sum(count for _, count in turned.values())
        items = [self(item) for item in value]
        made = [item for item, _ in items]
        return made if isinstance(value, list) else tuple(made), 1 + sum(n for _, n in items)
