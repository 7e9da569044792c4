"""Named tensors come out of every kind of checkpoint file, lazily."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lite.errors import BadInput
from qlora.checkpoints.sources import from_tensors, merged, open_tensors, renamed
from tests.refusals import check_one_sentence

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "b": torch.ones(4, dtype=torch.bfloat16),
    "scalar": torch.tensor(2.5),
}


def save_shards(folder: Path, kind: str) -> dict[str, object]:
    """Two shards and their index."""
    names = {"safetensors": "model", "bin": "pytorch_model"}
    weight_map = {}
    for number, keys in enumerate((["a.weight"], ["b", "scalar"]), 1):
        shard = f"{names[kind]}-0000{number}-of-00002.{kind}"
        tensors = {key: TENSORS[key] for key in keys}
        if kind == "bin":
            torch.save(tensors, folder / shard)
        else:
            save_file(tensors, folder / shard)
        weight_map |= dict.fromkeys(keys, shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{names[kind]}.{kind}.index.json").write_text(json.dumps(index))
    return index


def write(path: Path) -> Path:
    """Save TENSORS in the layout that the path's name asks for."""
    if path.name == "shards.safetensors" or path.name == "shards.bin":
        path.mkdir()
        save_shards(path, path.suffix[1:])
    elif path.suffix == ".safetensors":
        save_file(TENSORS, path)
    elif path.name == "legacy.pt":
        torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    elif path.name == "wrapped.pt":
        torch.save({"model_state_dict": TENSORS, "epoch": 3, "optimizer": {"state": {}}}, path)
    else:
        torch.save(TENSORS, path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "x.safetensors",
        "x.bin",
        "x.pth",
        "legacy.pt",
        "wrapped.pt",
        "shards.safetensors",
        "shards.bin",
    ],
)
def test_every_layout_gives_the_same_tensors(tmp_path: Path, name: str) -> None:
    source = open_tensors(write(tmp_path / name))
    assert set(source) == set(TENSORS)
    assert len(source) == len(TENSORS)
    for key, tensor in TENSORS.items():
        assert source[key].dtype is tensor.dtype
        assert source.dtype(key) is tensor.dtype
        assert torch.equal(source[key], tensor)
        assert source.shape(key) == tuple(tensor.shape)
        assert source.where(key).is_file()
    assert "c" not in source
    assert 3 not in source
    with pytest.raises(KeyError):
        source["c"]


def test_zip_files_are_memory_mapped_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    real = torch.load

    def load(*args: object, **options: object) -> object:
        calls.append(options)
        return real(*args, **options)

    monkeypatch.setattr(torch, "load", load)
    torch.save(TENSORS, tmp_path / "new.bin")
    open_tensors(tmp_path / "new.bin")
    assert calls[0]["mmap"] is True
    assert calls[0]["weights_only"] is True


def test_a_folder_with_both_formats_is_read_from_safetensors(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    torch.save({"x": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    source = open_tensors(tmp_path)
    assert source.where("x").name == "model.safetensors"


def test_a_shard_that_is_a_link_is_followed(tmp_path: Path) -> None:
    # This is how the Hugging Face cache lays out a snapshot.
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    save_shards(tmp_path / "snapshot", "safetensors")
    for shard in (tmp_path / "snapshot").glob("*.safetensors"):
        blob = shutil.move(shard, tmp_path / "blobs" / shard.stem)
        shard.symlink_to(blob)
    assert set(open_tensors(tmp_path / "snapshot")) == set(TENSORS)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_missing_shard_is_named(tmp_path: Path, kind: str) -> None:
    save_shards(tmp_path, kind)
    lost = next(tmp_path.glob(f"*-00002-of-00002.{kind}"))
    lost.unlink()
    with pytest.raises(BadInput) as error:
        open_tensors(tmp_path)
    check_one_sentence(error, lost)


def test_a_tensor_that_the_index_promises_in_vain_is_named(tmp_path: Path) -> None:
    index = save_shards(tmp_path, "safetensors")
    index["weight_map"]["phantom"] = "model-00001-of-00002.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput) as error:
        open_tensors(tmp_path)
    check_one_sentence(error, "phantom", "model-00001-of-00002.safetensors")


def test_a_tensor_in_two_shards_is_an_error(tmp_path: Path) -> None:
    save_shards(tmp_path, "safetensors")
    save_file(
        {"a.weight": TENSORS["a.weight"], "b": TENSORS["b"]},
        tmp_path / "model-00001-of-00002.safetensors",
    )
    with pytest.raises(BadInput) as error:
        open_tensors(tmp_path)
    check_one_sentence(error, "b is in")


@pytest.mark.parametrize(
    "shard",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "C:\\x.bin",
        "a\\..\\..\\x.bin",
        "passwd",
        7,
        [],
        None,
    ],
)
def test_shard_paths_stay_inside_the_folder(tmp_path: Path, shard: object) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    index = {"weight_map": {"a.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput) as error:
        open_tensors(folder)
    check_one_sentence(error, "index.json")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 3}', "\xff"]
)
def test_a_damaged_index_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput) as error:
        open_tensors(tmp_path)
    check_one_sentence(error, "index")


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "legacy.pt"])
@pytest.mark.parametrize("keep", [0, 1, 20, 0.3, 0.6, 0.9, -1])
def test_truncated_files_are_refused(tmp_path: Path, name: str, keep: float) -> None:
    path = write(tmp_path / name)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(BadInput) as error:
        open_tensors(path)
    check_one_sentence(error, path)


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"<!DOCTYPE html>", os.urandom(200), struct.pack("<Q", 2**62), b"PK\x03\x04"],
)
def test_other_files_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BadInput) as error:
        open_tensors(path)
    check_one_sentence(error, path)


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_a_git_lfs_pointer_is_told_from_the_weights(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BadInput) as error:
        open_tensors(tmp_path / name)
    check_one_sentence(error, "git lfs pull")


@pytest.mark.parametrize(
    "name", ["no.bin", "no.safetensors", "no", "notes.txt", "empty", "dir.bin"]
)
def test_paths_without_a_checkpoint_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dir.bin").mkdir()
    with pytest.raises(BadInput) as error:
        open_tensors(tmp_path / name)
    check_one_sentence(error, tmp_path / name)


@pytest.mark.parametrize(
    "value", [[1, 2], torch.ones(2), {"x": 3}, {3: torch.ones(1)}, {"x": {"y": torch.ones(1)}}]
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "x.bin")
    with pytest.raises(BadInput) as error:
        open_tensors(tmp_path / "x.bin")
    check_one_sentence(error, "x.bin")


def test_renamed_takes_a_mapping_or_a_function() -> None:
    source = from_tensors(TENSORS, Path("x.bin"))
    assert set(renamed(source, {"c": "b"})) == {"c"}
    view = renamed(source, lambda name: None if name == "scalar" else name.upper())
    assert set(view) == {"A.WEIGHT", "B"}
    assert torch.equal(view["B"], TENSORS["b"])
    assert view.where("B") == Path("x.bin")
    with pytest.raises(BadInput, match="missing"):
        renamed(source, {"c": "missing"})
    with pytest.raises(BadInput, match="twice"):
        renamed(source, lambda name: "same")


def test_merged_refuses_a_name_that_is_in_both() -> None:
    first, second = ({"x": torch.ones(1)}, {"y": torch.ones(2)})
    both = merged(from_tensors(first, Path("1")), from_tensors(second, Path("2")))
    assert {name: both.where(name) for name in both} == {"x": Path("1"), "y": Path("2")}
    with pytest.raises(BadInput, match="x is in 1 and again in 3"):
        merged(both, from_tensors(first, Path("3")))
