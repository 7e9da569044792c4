"""A bundle is used only when every file is what its manifest says and nothing leads outside."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lite
from lite.bundle import bundle as bundle_module
from lite.bundle.bundle import Bundle
from lite.bundle.external_data import external_locations
from lite.bundle.manifest import DECODER, REQUIRED, TOKENIZER, VISION
from lite.errors import BadInput
from tests.lite.damaged_bundles import claim, manifest, recorded, refusal


def test_a_whole_bundle_opens(folder: Path) -> None:
    assert lite.load(folder).score([1, 5]).shape == (2, 400)
    assert lite.load(str(folder)).bundle.path(VISION) == folder / VISION


def test_what_is_no_bundle_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith("There is no bundle folder")
    assert "has no manifest.json, so it is not a bundle" in refusal(tmp_path)
    (tmp_path / "file").write_text("x")
    assert "There is no bundle folder" in refusal(tmp_path / "file")
    assert "cannot be read" in refusal(tmp_path / ("x" * 5000))


@pytest.mark.parametrize("name", [*REQUIRED, "decoder.onnx.data", "vision.onnx.data"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "The bundle lacks"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated or altered"),
        (lambda path: path.write_bytes(b""), "has 0 bytes instead of"),
        (lambda path: path.write_bytes(b"\1" + path.read_bytes()[1:]), "sha256 of"),
    ],
)
def test_a_missing_truncated_or_altered_file_is_refused(
    name: str, spoil: Callable[[Path], None], words: str, folder: Path
) -> None:
    spoil(folder / name)
    message = refusal(folder)
    assert words in message
    assert name in message


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs rights on Windows")
def test_links_are_refused_even_to_the_right_content(folder: Path, tmp_path: Path) -> None:
    (folder / TOKENIZER).rename(tmp_path / "elsewhere.json")
    (folder / TOKENIZER).symlink_to(tmp_path / "elsewhere.json")
    assert "is a link, which a bundle may not hold" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "..\\secret", "a\0b"]
)
def test_a_manifest_names_only_files_of_its_folder(name: str, folder: Path) -> None:
    claim(folder, files=manifest(folder)["files"] | {name: {"size": 0, "sha256": ""}})
    assert "is not a plain name" in refusal(folder)


@pytest.mark.parametrize("name", ["x" * 300, "\ud800", "missing"])
def test_a_manifest_with_files_that_cannot_be_there_is_refused(name: str, folder: Path) -> None:
    claim(folder, files=manifest(folder)["files"] | {name: {"size": 0, "sha256": ""}})
    refusal(folder)


@pytest.mark.parametrize("location", ["../secret.data", "/tmp/secret.data", "secret.data", "./x"])
@pytest.mark.parametrize("graph", [VISION, DECODER])
def test_a_graph_keeps_weights_only_in_files_of_the_bundle(
    graph: str, location: str, folder: Path
) -> None:
    model = onnx_ir.load(folder / graph)
    outside = next(v for v in model.graph.initializers.values() if v.const_value.nbytes > 64)
    inside = outside.const_value
    outside.const_value = onnx_ir.ExternalTensor(
        location,
        inside.offset,
        inside.length,
        inside.dtype,
        shape=inside.shape,
        name=inside.name,
        base_dir=folder,
    )
    onnx_ir.save(model, folder / graph)
    assert location in external_locations(folder / graph)
    claim(folder, files=recorded(folder))  # with hashes that are right
    assert f"keeps weights in {location!r}, which is not a file of this bundle" in refusal(folder)


def entry(location: bytes) -> bytes:
    """An external_data entry, as a field of a tensor, a node's attribute and a graph of a model."""
    message = b"\x0a\x08location\x12" + bytes([len(location)]) + location
    for tag in (0x6A, 0x2A, 0x2A, 0x0A, 0x3A):  # 13 of tensor, 5, 5, 1, 7 of model
        message = bytes([tag, len(message)]) + message
    return message


def test_locations_are_found_in_attributes_and_bytes_that_hide_them_are_refused(
    tmp_path: Path,
) -> None:
    graph, plain = tmp_path / "a.onnx", entry(b"../x")
    graph.write_bytes(plain)
    assert external_locations(graph) == {"../x"}
    # The same field number with bits above 32, which protobuf drops.
    disguised = bytes([plain[0] | 0x80, 0x80, 0x80, 0x80, 0x10]) + plain[1:]
    for damaged in (disguised, plain[:-1], b"\x0b", b"\x09\0", b"\xff" * 20, entry(b"\xff\xfe")):
        graph.write_bytes(damaged)
        with pytest.raises(BadInput, match="is not a readable ONNX graph"):
            external_locations(graph)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=60) | st.binary(max_size=20).map(lambda b: entry(b"x") + b))
def test_any_bytes_are_a_graph_or_refused(content: bytes, tmp_path_factory: Any) -> None:
    graph = tmp_path_factory.getbasetemp() / "any.onnx"
    graph.write_bytes(content)
    with contextlib.suppress(BadInput):
        assert isinstance(external_locations(graph), set)


def test_a_large_file_is_hashed_once_and_again_when_it_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundle_module, "ALWAYS_HASHED", 1 << 20)
    hashed: list[str] = []
    Bundle.open(folder, hashed.append)
    assert sorted(hashed) == ["decoder.onnx.data", "vision.onnx.data"]
    Bundle.open(folder, hashed.append)
    assert len(hashed) == 2
    data = folder / "decoder.onnx.data"
    content = data.read_bytes()
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(data, ns=(0, data.stat().st_mtime_ns + 1))  # however coarse the clock is
    with pytest.raises(BadInput, match=r"sha256 of .*decoder\.onnx\.data does not match"):
        Bundle.open(folder, hashed.append)
    data.write_bytes(content)
    os.utime(data, ns=(0, data.stat().st_mtime_ns + 2))
    Bundle.open(folder, hashed.append)
    assert hashed[2:] == ["decoder.onnx.data"] * 2


def test_the_digest_is_of_the_model_and_not_of_the_place_or_the_proofs(
    bundles: Any, folder: Path
) -> None:
    original = Bundle.open(bundles())
    claim(folder, proofs=[{"step": "x"}])
    copy = Bundle.open(folder)
    assert copy.digest == original.digest
    assert copy.vision_digest == original.vision_digest
    claim(folder, attend="preceding")
    assert Bundle.open(folder).digest != original.digest
    assert Bundle.open(bundles("preceding")).vision_digest == original.vision_digest
    assert len({Bundle.open(bundles(v)).digest for v in ("base", "lora", "preceding")}) == 3


def overwritten_in_place(path: Path) -> None:
    """Other bytes in the same file, with the same size and the old time of writing."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no time of change")
def test_a_large_file_overwritten_with_its_old_time_is_noticed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundle_module, "ALWAYS_HASHED", 1 << 20)
    Bundle.open(folder)
    overwritten_in_place(folder / "decoder.onnx.data")
    with pytest.raises(BadInput, match=r"sha256 of .*decoder\.onnx\.data does not match"):
        Bundle.open(folder)


def test_every_file_is_hashed_when_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bundle_module, "ALWAYS_HASHED", 1 << 20)
    lite.load(folder)
    # As if the file system had told nothing.
    monkeypatch.setattr(bundle_module._Remembered, "known", lambda _: True)
    overwritten_in_place(folder / "decoder.onnx.data")
    lite.load(folder)
    with pytest.raises(BadInput, match=r"sha256 of .*decoder\.onnx\.data does not match"):
        lite.load(folder, verify=True)
