"""A manifest is read whole, or refused in one sentence before anything is allocated by it."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lite
from lite.bundle.manifest import MANIFEST
from lite.errors import BadInput
from lite.text.template import MMGPT
from tests.lite.damaged_bundles import claim, manifest, refusal


@pytest.mark.parametrize("version", [0, 3, "1", None, True, []])
def test_a_manifest_of_another_version_is_refused(version: Any, folder: Path) -> None:
    claim(folder, version=version)
    assert f"is of version {version!r} and this program reads versions 1 and 2" in refusal(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": "other"}']
)
def test_a_manifest_that_is_none_is_refused(content: bytes, folder: Path) -> None:
    (folder / MANIFEST).write_bytes(content)
    assert MANIFEST in refusal(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"attend": "both"},
        {"attend": ["following"]},
        {"template": "vicuna"},
        {"template": []},
        {"template": MMGPT.to_json() | {"stops": 1}},
        {"template": MMGPT.to_json() | {"first_turn": [{"special": "<|im_start|>"}]}},
        {"sizes": {}},
        {"special_ids": {"<s>": 1, "</s>": 2}},
        {"special_ids": {"<s>": 1, "</s>": 2, "<image>": 2**70}},
        {"special_ids": {"<s>": 1, "</s>": 2, "<image>": 401, "": 3}},
        {"special_ids": {"<s>": 1, "</s>": 2, "<image>": 401, "<x>": "3"}},
        {"files": {}},
        {"files": []},
        {"extra": 1},
    ],
)
def test_claims_that_make_no_sense_are_refused(change: dict[str, Any], folder: Path) -> None:
    claim(folder, **change)
    refusal(folder)


@pytest.mark.parametrize(
    "size",
    [
        {"layers": 7},
        {"layers": 10**12},
        {"kv_heads": 2},
        {"head_dim": 32},
        {"context": 2**40},
        {"vocab": 401},
        {"blocks": 3},
        {"visual_heads": 4},
        {"visual_head_dim": 32},
    ],
)
def test_sizes_that_are_not_the_graphs_are_refused_before_allocating(
    size: dict[str, int], folder: Path
) -> None:
    claim(folder, sizes=manifest(folder)["sizes"] | size)
    with pytest.raises(BadInput, match="does not describe its decoder"):
        lite.load(folder).score([1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_manifest_opens_or_is_refused(bundles: Any, tmp_path_factory: Any, data: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not folder.exists():
        shutil.copytree(bundles(), folder)
    right = json.loads((bundles() / MANIFEST).read_text())
    inside = data.draw(st.sampled_from([right, *(v for v in right.values() if type(v) is dict)]))
    key = data.draw(st.sampled_from(sorted(inside)))
    if data.draw(st.booleans()):
        del inside[key]
    else:
        inside[key] = data.draw(JSON)
    (folder / MANIFEST).write_text(json.dumps(right))
    with contextlib.suppress(BadInput):
        lite.load(folder).chat()


FIELDS: dict[str, Any] = {
    "sizes": (None, [], {"layers": 1}, 5),
    "attend": (None, 1, ["following"], {}, "x" * 10_000),
    "template": (None, 1, [], {}, "mmgpt"),
    "special_ids": (None, 1, [], "x", [["<s>", 1]]),
    "preprocessing": (None, 1, [], {}, {"size": "112"}),
    "precision": (None, 1, [], {}, {"vision": "fp32"}, {"vision": 1, "decoder": "fp32"}),
    "files": (None, 1, [], {}, "x"),
    "proofs": (None, 1, {}, "x", [1]),
    "family": (None, 1, [], {}),
    "encoder": (None, 1, [], {}),
    "connector": (None, 1, [], {}),
    "injection": (None, 1, [], {}, "none"),
}


def test_the_table_of_wrong_values_has_every_field(folder: Path) -> None:
    assert FIELDS.keys() == manifest(folder).keys() - {"format", "version"}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in FIELDS.items() for v in vs])
def test_every_field_of_a_wrong_type_is_one_sentence(name: str, value: Any, folder: Path) -> None:
    claim(folder, **{name: value})
    assert refusal(folder).count(". ") == 0


@pytest.mark.parametrize("name", list(FIELDS))
def test_a_field_that_lacks_is_named_unless_it_has_a_default(name: str, folder: Path) -> None:
    data = manifest(folder)
    del data[name]
    (folder / MANIFEST).write_text(json.dumps(data))
    if name in ("proofs", "family", "encoder", "connector", "injection"):
        lite.load(folder)
    else:
        assert f"lacks '{name}'" in refusal(folder)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "64", None, [], 2**63, 10**400])
@pytest.mark.parametrize("name", ["layers", "context", "latents", "parameters"])
def test_every_size_is_a_whole_number(name: str, value: Any, folder: Path) -> None:
    claim(folder, sizes=manifest(folder)["sizes"] | {name: value})
    assert f"{name} is " in refusal(folder)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"size": 1.0, "sha256": "0" * 64}, "the size of tokenizer.json is 1.0"),
        ({"size": 1, "sha256": 5}, "the sha256 of tokenizer.json is 5"),
        ({"size": 1, "sha256": "0" * 63}, "the sha256 of tokenizer.json"),
        ({"size": 1}, "tokenizer.json lacks 'sha256'"),
        ({"size": 1, "sha256": "0" * 64, "mode": 0}, "tokenizer.json has an unknown 'mode'"),
        (None, "tokenizer.json is None"),
    ],
)
def test_the_record_of_a_file_is_checked(record: Any, words: str, folder: Path) -> None:
    claim(folder, files=manifest(folder)["files"] | {"tokenizer.json": record})
    assert words in refusal(folder)
