"""A saved conversation goes on where it ended."""

import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lite
from lite.errors import BadInput
from tests.lite.chat.session_files import answer, first_version, sealed, unpacked
from tests.lite.conftest import CAT, DOG

GO_ON = """
import json, sys, lite
from pathlib import Path
folder, path = map(Path, sys.argv[1:])
model = lite.load(folder)
(folder / "vision.onnx").unlink()
chat = model.open(path)
pieces = [p for p in chat.ask("and the cat?", max_tokens=6) if p.token is not None]
print(json.dumps([[p.token for p in pieces], pieces[-1].timings.prefill_tokens]))
"""


@pytest.mark.parametrize("variant", ["base", "preceding"])
@pytest.mark.parametrize("kv", [False, True])
def test_a_reopened_session_continues_as_if_it_had_never_been_closed(
    variant: str,
    kv: bool,
    model: Callable[..., lite.Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo, session = tmp_path / "photo.png", tmp_path / "park.session"
    Image.fromarray(DOG).save(photo)
    chat = model(variant).chat("You look at pictures.")
    answer(chat, "what is this?", photo)
    answer(chat, "où? 🐕", [CAT, CAT])
    chat.save(session, kv=kv)
    photo.unlink()

    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "empty"))
    here = model(variant)
    again = here.open(session)
    assert again.exchanges[0].names == [photo.name]
    assert again.system == "You look at pictures."
    assert again.prompt()[0] == chat.prompt()[0]
    assert [e.answer for e in again.exchanges] == [e.answer for e in chat.exchanges]
    assert answer(again, "and the cat?") == answer(chat, "and the cat?")
    assert here.vision._session is None  # the vision graph was not even opened


@pytest.mark.parametrize("kv", [False, True])
def test_a_new_process_goes_on_without_image_file_and_vision_graph(
    kv: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, session = tmp_path / "photo.png", tmp_path / "park.session"
    Image.fromarray(DOG).save(photo)
    chat = lite.load(folder).chat()
    answer(chat, "what is this?", photo)
    chat.save(session, kv=kv)
    photo.unlink()
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "empty"))
    command = [sys.executable, "-c", GO_ON, folder, session]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    before = len(chat.prompt()[0])
    tokens = answer(chat, "and the cat?")
    prompt = len(chat.prompt()[0]) - len(tokens)
    # The last token of the answer was never run.
    computed = prompt - before + 1 if kv else prompt
    assert done.stdout.decode() == f"[{tokens}, {computed}]\n"


def test_an_empty_conversation_can_be_saved(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    for kv in (False, True):
        model().chat("Hello.").save(tmp_path / "new.session", kv=kv)
        again = model().open(tmp_path / "new.session")
        assert again.exchanges == []
        assert again.system == "Hello."


def test_opening_takes_the_place_of_what_was_there(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    here = model()
    chat = here.chat()
    answer(chat, "one")
    chat.save(tmp_path / "one.session")
    answer(chat, "two")
    lite.chat.session.load(chat, tmp_path / "one.session")
    assert [e.question for e in chat.exchanges] == ["one"]


def test_a_session_of_the_first_version_still_opens(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    chat, path = model().chat(), tmp_path / "old.session"
    answer(chat, "what is this?", DOG)
    chat.save(path)
    path.write_bytes(first_version(path))
    again = model().open(path)
    assert again.prompt()[0] == chat.prompt()[0]
    assert answer(again, "and now?") == answer(chat, "and now?")


def test_a_session_of_a_later_version_says_so(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    path = tmp_path / "new.session"
    path.write_bytes(sealed(b"anything", b"mmgpt-lite session 3\n"))
    with pytest.raises(BadInput, match=r"is of version 3 and .* up to 2; install a newer release"):
        model().open(path)


def test_a_session_of_another_model_is_refused(
    model: Callable[..., lite.Model], small: lite.Model, tmp_path: Path
) -> None:
    chat, path = model().chat(), tmp_path / "a.session"
    answer(chat, "what is this?", DOG)
    chat.save(path, kv=True)
    # The other rule runs the same graph files: the manifest makes it another model.
    for other in (model("preceding"), model("lora"), small):
        with pytest.raises(BadInput, match=r"belongs to another model; open it with the bundle"):
            other.open(path)


def test_equal_conversations_give_equal_files(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    for name in "ab":
        chat = model().chat()
        answer(chat, "what is this?", DOG)
        chat.save(tmp_path / name, kv=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_anyone_with_a_zip_reader_can_look_inside(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    chat, path = model().chat(), tmp_path / "a.session"
    answer(chat, "what is this?", [DOG, DOG, CAT])
    chat.save(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 3  # the header, and each image once
    header, arrays = unpacked(path)
    assert header["exchanges"][0]["question"] == "what is this?"
    np.testing.assert_array_equal(
        arrays[header["exchanges"][0]["images"][2]], chat.exchanges[0].images[2].array
    )


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_only_its_owner_may_read_it(model: Callable[..., lite.Model], tmp_path: Path) -> None:
    path = tmp_path / "a.session"
    path.write_bytes(b"")
    path.chmod(0o666)
    model().chat().save(path)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="links need privileges there")
def test_saving_through_a_link_keeps_the_link(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    (tmp_path / "kept").mkdir()
    link, target = tmp_path / "link", tmp_path / "kept" / "a.session"
    link.symlink_to(target)
    model().chat().save(link)
    assert link.is_symlink()
    assert model().open(target).exchanges == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_ends_early_leaves_the_old_file(
    error: BaseException,
    model: Callable[..., lite.Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, chat = tmp_path / "a.session", model().chat()
    chat.save(path)
    before = path.read_bytes()
    answer(chat, "hi", max_tokens=1)

    def stop(*_: Any) -> None:
        raise error

    monkeypatch.setattr("lite.files.os.fsync", stop)
    with pytest.raises((BadInput, KeyboardInterrupt)) as caught:
        chat.save(path, kv=True)
    if isinstance(error, OSError):
        assert "cannot be written (No space left on device); choose another place" in str(
            caught.value
        )
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.session"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_disk_that_is_full_leaves_the_old_file(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    import resource

    path, chat = tmp_path / "a.session", model().chat()
    answer(chat, "what is this?", DOG)
    chat.save(path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for size in (10, 1000, len(before) - 10, len(before) + 10_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            with pytest.raises(BadInput, match="cannot be written"):
                chat.save(path, kv=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.session"]


def test_where_no_file_can_be_written_it_says_so(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    for path in (tmp_path, tmp_path / "missing" / "a.session"):
        with pytest.raises(BadInput, match="cannot be written"):
            model().chat().save(path)


def test_a_session_holds_no_folders_of_this_machine(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    photo = tmp_path / "a folder" / "photo.png"
    photo.parent.mkdir()
    Image.fromarray(DOG).save(photo)
    chat = model().chat()
    answer(chat, "what is this?", [photo, CAT])
    chat.exchanges[0].names.append(r"C:\\Users\\me\\bird.png")
    chat.save(tmp_path / "a.session")
    header, _ = unpacked(tmp_path / "a.session")
    assert header["exchanges"][0]["names"] == ["photo.png", "the given array", "bird.png"]
    assert b"a folder" not in (tmp_path / "a.session").read_bytes()


def test_the_second_of_two_chats_on_one_file_is_told(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    path, here = tmp_path / "a.session", model()
    here.chat().save(path)
    first, second = here.open(path), here.open(path)
    answer(first, "red?")
    first.save(path)
    answer(second, "blue?")
    with pytest.raises(BadInput, match="written by another chat since this one used it; save this"):
        second.save(path)
    assert [e.question for e in here.open(path).exchanges] == ["red?"]
    first.save(path)
    second.save(tmp_path / "b.session")
    path.unlink()
    second.save(path)  # what is gone is nobody's
    assert [e.question for e in here.open(path).exchanges] == ["blue?"]
