"""No checkpoint file runs code, and configurations pickled beside weights become plain dicts."""

import copyreg
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lite.errors import BadInput
from qlora.checkpoints.sources import open_tensors, read_pickle
from tests.refusals import check_one_sentence

FIXTURES = Path(__file__).parents[2] / "fixtures" / "mmgpt-tiny"


class Runs:
    """An object whose unpickling runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_checkpoint_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "x.bin"
    evil = {"w": torch.ones(1), "tuning_config": Runs(f"touch {trace}")}
    torch.save(evil, path, _use_new_zipfile_serialization=zipped)
    for read in (open_tensors, read_pickle):
        with pytest.raises(BadInput) as error:
            read(path)
        check_one_sentence(error, path, "system")
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_bare_malicious_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(Runs(f"touch {trace}"), protocol))
    with pytest.raises(BadInput) as error:
        read_pickle(path)
    check_one_sentence(error, path)
    assert not trace.exists()
    # The same bytes do run when unpickled the ordinary way, so the test would see it.
    pickle.loads(path.read_bytes())
    assert trace.exists()


def test_a_torchscript_archive_is_refused_unrun(tmp_path: Path) -> None:
    path = tmp_path / "ViT-L-14.pt"
    torch.save({"w": torch.ones(1)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("ViT-L-14/constants.pkl", b"")
    with pytest.raises(BadInput) as error:
        open_tensors(path)
    check_one_sentence(error, "TorchScript")


def test_a_pickled_mmengine_config_becomes_a_plain_dict() -> None:
    loaded = read_pickle(FIXTURES / "mmgpt-lora.pt")
    assert isinstance(loaded, dict)
    assert type(loaded["tuning_config"]) is dict
    assert loaded["tuning_config"]["lora_r"] == 16
    assert type(loaded["tuning_config"]["lora_target_modules"]) is list


class Config:
    """Pickles as mmengine's and mmcv's Config did: state in a tuple or in attributes."""

    def __init__(self, state: object) -> None:
        self.state = state

    def __reduce__(self) -> tuple[object, ...]:
        return copyreg.__newobj__, (Config,), self.state  # type: ignore[attr-defined]


class ConfigDict(dict):  # type: ignore[type-arg]
    """Pickles as addict's Dict does: items first, then itself as its state."""

    def __reduce__(self) -> tuple[object, ...]:
        return copyreg.__newobj__, (ConfigDict,), self, None, iter(self.items())  # type: ignore[attr-defined]


@pytest.mark.parametrize("library", ["mmengine.config.config", "mmcv.utils.config"])
@pytest.mark.parametrize("wrap", [lambda c: (c, None, ""), lambda c: {"_cfg_dict": c}])
def test_configs_of_older_releases_become_plain_dicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, wrap: Callable[[Any], object]
) -> None:
    module = types.ModuleType(library)
    module.Config, module.ConfigDict = Config, ConfigDict  # type: ignore[attr-defined]
    root, middle, _ = library.split(".")
    parents = {name: types.ModuleType(name) for name in (root, f"{root}.{middle}")}
    for name, loaded_module in (parents | {library: module}).items():
        monkeypatch.setitem(sys.modules, name, loaded_module)
    for kind in (Config, ConfigDict):
        monkeypatch.setattr(kind, "__module__", library)
    fields = ConfigDict(lora_r=16, items="a name that hides a method", inner=ConfigDict(x=1))
    path = tmp_path / "x.pt"
    torch.save({"tuning_config": Config(wrap(fields))}, path)
    monkeypatch.delitem(sys.modules, library)
    loaded = read_pickle(path)
    assert isinstance(loaded, dict)
    assert loaded["tuning_config"] == dict(fields)
    assert type(loaded["tuning_config"]["inner"]) is dict


@pytest.mark.parametrize("name", ["two\nlines", "bell\a"])
def test_names_that_would_break_a_message_are_refused(tmp_path: Path, name: str) -> None:
    torch.save({name: torch.ones(1)}, tmp_path / "x.bin")
    save_file({name: torch.ones(1)}, tmp_path / "x.safetensors")
    for file in ("x.bin", "x.safetensors"):
        with pytest.raises(BadInput) as error:
            open_tensors(tmp_path / file)
        check_one_sentence(error, file, ascii(name))


def test_a_small_file_that_would_expand_without_end_is_refused(tmp_path: Path) -> None:
    """Ten lists deep, each ten times the one below: 10^10 entries in less than 2 KB."""
    bomb: list[Any] = [0] * 10
    for _ in range(9):
        bomb = [bomb] * 10
    torch.save({"weights": bomb}, tmp_path / "bomb.pt")
    assert (tmp_path / "bomb.pt").stat().st_size < 2048
    with pytest.raises(BadInput) as error:
        read_pickle(tmp_path / "bomb.pt")
    check_one_sentence(error, "bomb.pt", "entries")


def test_what_a_file_refers_to_twice_is_read_twice(tmp_path: Path) -> None:
    shared = {"lora_r": [1, (2, 3)]}
    torch.save({"a": shared, "b": [shared, shared]}, tmp_path / "shared.pt")
    assert read_pickle(tmp_path / "shared.pt") == {"a": shared, "b": [shared, shared]}
