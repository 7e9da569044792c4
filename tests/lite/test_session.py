"""A saved conversation goes on where it ended, or is refused in one sentence."""

import contextlib
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import lite
from lite.errors import BadInput
from lite.session import HEADER, MAGIC
from tests.lite.conftest import CAT, DOG

SHORT = {"max_tokens": 6}


def answer(chat: lite.Chat, text: str, image: Any = None, **settings: Any) -> list[int | None]:
    return [p.token for p in chat.ask(text, image, **(SHORT | settings)) if p.token is not None]


@pytest.fixture(scope="module")
def saved(bundles: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of one short turn, without an image."""
    chat, path = lite.load(bundles()).chat(), tmp_path_factory.mktemp("saved") / "short.session"
    answer(chat, "hi", max_tokens=2)
    chat.save(path)
    return path


@pytest.mark.parametrize("variant", ["base", "preceding"])
def test_a_reopened_session_continues_as_if_it_had_never_been_closed(
    variant: str, model: Callable[..., lite.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, session = tmp_path / "photo.png", tmp_path / "park.session"
    Image.fromarray(DOG).save(photo)
    chat = model(variant).chat("You look at pictures.")
    answer(chat, "what is this?", photo)
    answer(chat, "où? 🐕", [CAT, CAT])
    chat.save(session)
    photo.unlink()

    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "empty"))
    here = model(variant)
    again = here.open(session)
    assert again.exchanges[0].names == [str(photo)]
    assert again.system == "You look at pictures."
    assert again.prompt()[0] == chat.prompt()[0]
    assert [e.answer for e in again.exchanges] == [e.answer for e in chat.exchanges]
    assert answer(again, "and the cat?") == answer(chat, "and the cat?")
    assert here.vision._session is None  # the vision graph was not even opened


def test_an_empty_conversation_can_be_saved(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    model().chat().save(tmp_path / "new.session")
    assert model().open(tmp_path / "new.session").exchanges == []


def test_a_session_of_another_model_is_refused(
    saved: Path, model: Callable[..., lite.Model], small: lite.Model
) -> None:
    # The other rule runs the same graph files: the manifest makes it another model.
    for other in (model("preceding"), model("lora"), small):
        with pytest.raises(BadInput, match=r"belongs to another model; open it with the bundle"):
            other.open(saved)


def refused(here: lite.Model, path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        here.open(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_files_that_are_no_sessions_are_refused(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    here, path = model(), tmp_path / "x.session"
    assert "cannot be read (No such file" in refused(here, path)
    assert "cannot be read" in refused(here, tmp_path)
    for content in (b"", b"hello", MAGIC[:-2] + b"2\n"):
        path.write_bytes(content)
        assert "is not a session of this version" in refused(here, path)


def test_every_truncation_is_refused(saved: Path, bundles: Any, tmp_path: Path) -> None:
    here, content, path = lite.load(bundles()), saved.read_bytes(), tmp_path / "cut.session"
    for end in range(len(content)):
        path.write_bytes(content[:end])
        refused(here, path)


@pytest.fixture(scope="module")
def opener(bundles: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], lite.Chat]:
    """Opens a session of the given bytes."""
    here, path = lite.load(bundles()), tmp_path_factory.mktemp("opened") / "x.session"

    def open_(content: bytes) -> lite.Chat:
        path.write_bytes(content)
        return here.open(path)

    return open_


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_every_altered_byte_is_refused(
    saved: Path, opener: Callable[[bytes], lite.Chat], data: Any
) -> None:
    content = bytearray(saved.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadInput):
        opener(bytes(content))


def sealed(body: bytes) -> bytes:
    """A file with the right sha256, as someone who wants to do harm would write it."""
    return MAGIC + hashlib.sha256(body).digest() + body


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_sealed_file_opens_or_is_refused(
    saved: Path, opener: Callable[[bytes], lite.Chat], data: Any
) -> None:
    body = bytearray(saved.read_bytes()[len(MAGIC) + 32 :])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadInput):
        assert isinstance(opener(sealed(bytes(body))).prompt()[0], list)


@pytest.mark.parametrize(
    ("header", "exchange"),
    [
        ({"system": 5}, {}),
        ({"exchanges": 5}, {}),
        ({"exchanges": [{}]}, {}),
        ({}, {"question": 1}),
        ({}, {"question": "\ud800"}),
        ({}, {"answer": None}),
        ({}, {"answer_ids": ["x"]}),
        ({}, {"answer_ids": [401]}),
        ({}, {"answer_ids": [10**9]}),
        ({}, {"images": ["unknown"]}),
        ({}, {"names": [1]}),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(
    header: dict[str, Any],
    exchange: dict[str, Any],
    saved: Path,
    opener: Callable[[bytes], lite.Chat],
) -> None:
    with np.load(io.BytesIO(saved.read_bytes()[len(MAGIC) + 32 :])) as arrays:
        right = json.loads(arrays[HEADER].tobytes())
    right["exchanges"][0] |= exchange
    body = io.BytesIO()
    np.savez(body, header=np.frombuffer(json.dumps(right | header).encode(), np.uint8))
    with pytest.raises(BadInput, match="is damaged"):
        opener(sealed(body.getvalue()))


def test_a_file_holds_no_pickle_and_none_is_ever_loaded(
    saved: Path, opener: Callable[[bytes], lite.Chat], tmp_path: Path
) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harm",))

    body = io.BytesIO(saved.read_bytes()[len(MAGIC) + 32 :])
    with zipfile.ZipFile(body) as archive:
        assert archive.namelist() == [f"{HEADER}.npy"]
    evil = io.BytesIO()
    np.savez(evil, header=np.array([Harm()], dtype=object))
    with pytest.raises(BadInput, match="is damaged"):
        opener(sealed(evil.getvalue()))
    assert not (tmp_path / "harm").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_only_its_owner_may_read_it(saved: Path) -> None:
    assert saved.stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_old_file(
    model: Callable[..., lite.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, chat = tmp_path / "a.session", model().chat()
    chat.save(path)
    before = path.read_bytes()
    answer(chat, "hi", max_tokens=1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lite.session.os.fsync", full)
    with pytest.raises(BadInput, match=r"cannot be written \(No space left on device\)\.$"):
        chat.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.session"]
    with pytest.raises(BadInput, match="cannot be written"):
        chat.save(tmp_path / "missing" / "a.session")
