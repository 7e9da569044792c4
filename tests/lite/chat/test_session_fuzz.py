"""Whatever is done to a session file, it opens as a right conversation or is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lite
from lite.errors import BadInput
from tests.lite.chat.session_files import (
    SECOND,
    SHA,
    answer,
    npy,
    npy_claiming,
    packed,
    sealed,
    unpacked,
)
from tests.lite.conftest import CAT, DOG

TOKEN = 40
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Subject:
    """A saved conversation, and what any file that opens is held against."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.model, self.twin = lite.load(bundle), lite.load(bundle)
        self.path = folder / "x.session"
        chat = self.model.chat("")
        answer(chat, "hi", max_tokens=2)
        answer(chat, "is it?", [DOG, CAT, DOG], max_tokens=2)
        chat.save(self.path, kv=True)
        self.content = self.path.read_bytes()
        self.header, self.arrays = unpacked(self.path)
        self.prompt = chat.prompt()[0]

    def opened(self, content: bytes) -> lite.Chat | None:
        """The conversation in a file; None where it is refused as it should."""
        self.path.write_bytes(content)
        try:
            return self.model.open(self.path)
        except BadInput as error:
            refusal = str(error)
        assert str(self.path) in refusal
        assert refusal.endswith(".")
        assert "\n" not in refusal
        return None

    def check(self, chat: lite.Chat) -> None:
        """It can go on, and its KV cache gives what computing everything gives."""
        ids, images = chat.prompt()
        if len(ids) < chat.engine.context:
            logits = chat.decoder.logits([*ids, TOKEN], images)
            expected = self.twin.decoder.score([*ids, TOKEN], images)[-1]
            np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.fixture(scope="module")
def subject(bundles: Any, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(bundles(), tmp_path_factory.mktemp("fuzz"))


def scrambled(data: Any, content: bytes) -> bytes:
    """Bytes changed, cut off, cut out, put in, doubled, or exchanged in blocks."""
    out = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        # The interesting bytes are at the ends: header and magic line, table of contents.
        end = st.integers(0, min(3000, len(out)))
        at = data.draw(st.integers(0, len(out)) | end | end.map(lambda n: len(out) - n))
        size = data.draw(st.integers(1, 64) | st.integers(1, 1 << 16))
        match data.draw(st.sampled_from(("flip", "cut", "delete", "insert", "double", "swap"))):
            case "flip":
                out[at : at + 1] = bytes([data.draw(st.integers(0, 255))]) if at < len(out) else b""
            case "cut":
                del out[at:]
            case "delete":
                del out[at : at + size]
            case "insert":
                out[at:at] = data.draw(st.binary(min_size=1, max_size=64))
            case "double":
                out[at:at] = out[at : at + size]
            case "swap":
                other = data.draw(st.integers(0, len(out)))
                low, high = sorted((at, other))
                size = min(size, high - low)
                one, two = out[low : low + size], out[high : high + size]
                out[high : high + size], out[low : low + size] = one, two
    return bytes(out)


def altered(data: Any, value: Any) -> Any:
    """A JSON value with something in it replaced, taken away or doubled."""
    if (
        isinstance(value, dict | list)
        and len(value) > ("model" in value)
        and data.draw(st.integers(0, 9))
    ):
        # Another model is refused before anything else is looked at.
        keys = [k for k in value if k != "model"] if isinstance(value, dict) else range(len(value))
        key = data.draw(st.sampled_from(keys))
        copy = value.copy()
        match data.draw(st.sampled_from(("deeper", "deeper", "deeper", "delete", "again"))):
            case "deeper":
                copy[key] = altered(data, value[key])
            case "delete":
                del copy[key]
            case "again" if isinstance(copy, list):
                copy.insert(key, value[data.draw(st.sampled_from(keys))])
            case "again":
                copy[data.draw(st.sampled_from(keys))] = value[key]
        return copy
    if type(value) is int:
        return data.draw(st.integers(-3, 405) | st.integers() | JUNK)
    return data.draw(JUNK)


def other_array(data: Any, array: np.ndarray) -> Any:
    """An array that cannot be right instead of this one, or bytes that are none."""
    kind = data.draw(st.integers(0, 8))
    if kind == 0:
        bad = array.copy()
        at = data.draw(st.integers(0, bad.size - 1))
        bad.reshape(-1)[at] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        return bad
    if kind == 1:
        return array.astype(data.draw(st.sampled_from(["f2", "f8", ">f4", "i4", "u1", "c8", "S4"])))
    if kind == 2:
        return np.moveaxis(array, data.draw(st.integers(1, array.ndim - 1)), 0)[..., :3]
    if kind == 3:
        shape = data.draw(st.lists(st.integers(-3, 1 << 70), max_size=6).map(tuple))
        return npy_claiming(data.draw(st.sampled_from(["<f4", "|O", "<U9", "x"])), str(shape))
    if kind == 4:
        return npy_claiming("<f4", data.draw(st.text(max_size=20)))
    if kind == 5:
        return array[data.draw(st.integers(1, 3)) :]
    if kind == 6:
        return data.draw(st.binary(max_size=200))
    if kind == 7:
        return npy(array) + data.draw(st.binary(min_size=1, max_size=9))
    return npy(array)[: data.draw(st.integers(0, 4000))]


def check_bytes(subject: Subject, data: Any) -> None:
    """Damage: without the right hash, nothing but the file itself opens."""
    content = scrambled(data, subject.content)
    assert (subject.opened(content) is not None) == (content == subject.content)


def check_sealed_bytes(subject: Subject, data: Any) -> None:
    """Damage with the right hash: refused, or of no consequence."""
    chat = subject.opened(sealed(scrambled(data, subject.content[len(SECOND) + SHA :])))
    if chat is not None:
        assert chat.prompt()[0] == subject.prompt
        subject.check(chat)


def check_crafted(subject: Subject, data: Any) -> None:
    """Another content: what opens is a conversation, and never one with the wrong cache."""
    header, arrays = subject.header, dict(subject.arrays)
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 3))):
            header = altered(data, header)
        if data.draw(st.integers(0, 20)) == 7:
            depth = data.draw(st.integers(1, 100_000))
            header = b'{"model":' + b"[" * depth + b"]" * data.draw(st.integers(0, depth)) + b"}"
    else:
        name = data.draw(st.sampled_from(sorted(arrays)))
        match data.draw(st.sampled_from(("other", "other", "other", "lack", "extra", "without"))):
            case "other":
                arrays[name] = other_array(data, arrays[name])
            case "lack":
                del arrays[name]
            case "extra":
                extra = st.sampled_from(["kv.8", "kv.-1", "header.npy", "0" * 64]) | st.text()
                new = data.draw(extra).encode(errors="replace").decode()
                arrays.setdefault(new, arrays[name])
            case "without":  # a valid one
                arrays = {n: a for n, a in arrays.items() if not n.startswith("kv.")}
                header = header | {"cache": None}
    chat = subject.opened(packed(header, arrays))
    if chat is not None:
        subject.check(chat)


CHECKS = pytest.mark.parametrize("check", [check_bytes, check_sealed_bytes, check_crafted])
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@CHECKS
@QUICK
@given(data=st.data())
def test_no_change_to_a_file_gives_a_wrong_conversation(
    check: Callable[[Subject, Any], None], subject: Subject, data: Any
) -> None:
    check(subject, data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@CHECKS
@settings(QUICK, max_examples=3400)
@given(data=st.data())
def test_none_of_ten_thousand_changes_gives_a_wrong_conversation(
    check: Callable[[Subject, Any], None], subject: Subject, data: Any
) -> None:
    check(subject, data)
