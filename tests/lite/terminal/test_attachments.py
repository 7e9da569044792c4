"""Paths as people drop, type and quote them, and the clipboard."""

import io
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lite.errors import BadInput
from lite.terminal import attachments
from lite.terminal.attachments import attached, dropped, is_picture, path, paths
from tests.lite.conftest import CAT, DOG
from tests.refusals import check_one_sentence


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[str], str]:
    """`photo(name)`: an image of that name; its path."""

    def make(name: str) -> str:
        file = tmp_path / name
        Image.fromarray(DOG).save(file, format="PNG")
        return str(file)

    return make


def test_a_path_is_read_however_a_terminal_writes_it(photo: Callable[[str], str]) -> None:
    plain, spaced = photo("park.png"), photo("my dog.png")
    for line in (plain, f"{plain} ", f"'{plain}'", f'"{plain}"', f"file://{plain}"):
        assert dropped(line) == [plain]
    escaped = spaced.replace(" ", "\\ ")
    address = Path(spaced).as_uri()
    for line in (spaced, escaped, f"'{spaced}' ", f'"{spaced}"', address, f"FILE{address[4:]}"):
        assert dropped(line) == [spaced]
    assert dropped(f"{escaped} '{plain}'\n{address}") == [spaced, plain, spaced]


@pytest.mark.parametrize("name", ["it's.png", "a & b (1).png", "größe 🐕.png", "a%20b.png"])
def test_odd_names_are_read_back(name: str, photo: Callable[[str], str]) -> None:
    file = photo(name)
    assert dropped(file) == [file]
    assert dropped(Path(file).as_uri()) == [file]
    if os.name != "nt":
        assert dropped(shlex.quote(file)) == [file]


def test_addresses_of_windows_name_a_drive() -> None:
    assert paths("file:///C:/Users/me/a%20b.png") == ["C:/Users/me/a b.png"]
    assert paths("file://localhost/srv/a.png") == ["/srv/a.png"]


def test_an_image_is_known_by_its_name_or_its_bytes(photo: Callable[[str], str]) -> None:
    assert dropped(photo("upload"))
    damaged = Path(photo("damaged.png"))
    damaged.write_bytes(b"no image")
    assert dropped(str(damaged))  # load_image will say what is wrong with it


def test_other_lines_are_questions(photo: Callable[[str], str], tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("hello")
    for line in (
        "",
        "  ",
        "what is this?",
        "it's",
        "'",
        '"',
        "\\",
        str(note),
        str(tmp_path),
        f"{photo('a.png')} what is this?",
        f"{photo('a.png')} {tmp_path / 'missing.png'}",
        "a\x00b",
        "x" * 5000,
        "x/" * 200_000,
    ):
        assert dropped(line) == []


@pytest.mark.parametrize("name", ["tiger.png", "my tiger.png", "größe.png"])
def test_a_picture_at_either_end_is_cut_out(name: str, photo: Callable[[str], str]) -> None:
    file = photo(name)
    for written in (file, f"'{file}'", f'"{file}"', Path(file).as_uri(), file.replace(" ", "\\ ")):
        assert attached(f"{written} What colour is it?") == ([file], "What colour is it?")
        assert attached(f"What colour is it? {written}") == ([file], "What colour is it?")
        assert attached(written) == ([file], "")


def test_a_picture_in_the_middle_stays_in_the_question(photo: Callable[[str], str]) -> None:
    one, two = photo("one.png"), photo("two.png")
    for line in (f"Is {one} nice?", f"Is it {one}?", f"What of {one} and {two}, then?"):
        pictures, question = attached(line)
        assert pictures == [file for file in (one, two) if file in line]
        assert question == line
    assert attached(f"{one}, {two}: which is larger?") == ([one, two], "which is larger?")


def test_names_with_spaces_of_other_kinds_are_found(photo: Callable[[str], str]) -> None:
    narrow = photo("Screenshot 2024-01-01 at 9.41.00\u202fAM.png")
    for line in (narrow, narrow.replace("\u202f", " "), narrow.replace(" ", "\\ ")):
        assert attached(f"{line} What is it?") == ([narrow], "What is it?")
        assert dropped(line) == [narrow]
    composed = photo("gr\u00f6\u00dfe.png")
    assert attached(composed.replace("\u00f6", "o\u0308") + " What?") == ([composed], "What?")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("missing.png What is it?", "missing.png"),
        ("What is it? /nowhere/missing.JPG", "/nowhere/missing.JPG"),
        ("'no such photo.webp' what?", "no such photo.webp"),
        ("What is in missing.avif?", "missing.avif"),
        ("What is it? file:///nowhere/x", "file:///nowhere/x"),
        ("What is https://example.org/a.png?", "https://example.org/a.png"),
        ("HTTP://example.org", "HTTP://example.org"),
        ("C:\\Users\\me\\x.png", "C:\\Users\\me\\x.png"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_name(line: str, name: str) -> None:
    with pytest.raises(BadInput) as refusal:
        attached(line)
    check_one_sentence(refusal, name)


def test_words_that_only_look_like_files_are_text(photo: Callable[[str], str]) -> None:
    photo("cat")
    for line in ("what is a cat?", "a .png is what?", "`missing.png` what?", "5/6", "and/or", "~"):
        assert attached(line) == ([], line)
    assert attached("x " * 100_000) == ([], "x " * 100_000)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_picture_is_known_by_its_first_bytes(format: str) -> None:
    file = io.BytesIO()
    Image.fromarray(DOG).save(file, format)
    assert is_picture(file.getvalue()[:64])


def test_text_is_no_picture() -> None:
    for text in (b"", b"What is this?\n", b"BMW, what is it?", b"GIF89a", "größe".encode()):
        assert not is_picture(text)


def test_a_home_folder_is_found(
    photo: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = photo("park.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert dropped("~/park.png") == [file.replace("\\", "/")] or dropped("~/park.png") == [file]
    assert paths("~nobody-of-this-name/x.png") == ["~nobody-of-this-name/x.png"]


def test_the_name_of_a_file_to_be_made_may_have_spaces() -> None:
    assert path("my session.session") == "my session.session"
    assert path("'my session.session'") == "my session.session"
    assert path("it's.session") == "it's.session"


needs_x = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="another clipboard")


@pytest.fixture
def xclip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`xclip(script)`: a clipboard of X11, as the program that Pillow asks finds it."""

    def make(script: str) -> None:
        program = tmp_path / "bin" / "xclip"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/bin")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    return make


@needs_x
def test_the_clipboard_gives_its_image(xclip: Callable[[str], None], tmp_path: Path) -> None:
    Image.fromarray(CAT).save(tmp_path / "held.png")
    xclip(f"cat '{tmp_path / 'held.png'}'")
    (picture,) = attachments.clipboard()
    assert picture.name == "the clipboard"
    np.testing.assert_array_equal(picture.rgb, CAT)


@needs_x
def test_a_clipboard_without_an_image_is_one_sentence(xclip: Callable[[str], None]) -> None:
    with pytest.raises(BadInput, match="install wl-paste or xclip"):
        attachments.clipboard()
    xclip("echo 'Error: target image/png not available' >&2; exit 1")
    with pytest.raises(BadInput, match=r"^The clipboard holds no image; copy one, or give"):
        attachments.clipboard()
    xclip('echo "Error: Can\'t open display: :0" >&2; exit 1')
    with pytest.raises(BadInput, match=r"cannot be read \(xclip error: .*\); use /image PATH\.$"):
        attachments.clipboard()
    xclip("echo no image")
    with pytest.raises(BadInput, match="cannot be read"):
        attachments.clipboard()
