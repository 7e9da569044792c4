"""Session files taken apart and put together again, as someone who wants to do harm would."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import lite

FIRST, SECOND = b"mmgpt-lite session 1\n", b"mmgpt-lite session 2\n"
SHA = 32
HEADER = "header"


def answer(chat: lite.Chat, text: str, image: Any = None, **settings: Any) -> list[int | None]:
    """Token ids of a short answer.

    One token a run: how many guesses run along depends on how long runs took.
    """
    settings = {"max_tokens": 6, "prompt_lookup": False} | settings
    return [p.token for p in chat.ask(text, image, **settings) if p.token is not None]


def sealed(body: bytes, magic: bytes = SECOND) -> bytes:
    """A file with the right sha256 over any content."""
    hashed = body if magic == FIRST else magic + body
    return magic + hashlib.sha256(hashed).digest() + body


def body(path: Path) -> bytes:
    """The zip of a session file."""
    return path.read_bytes()[len(SECOND) + SHA :]


def unpacked(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """Header and arrays."""
    with np.load(io.BytesIO(body(path))) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    return json.loads(content.pop(HEADER).tobytes()), content


def packed(header: Any, arrays: dict[str, Any], magic: bytes = SECOND) -> bytes:
    """A file of any header (JSON, or bytes as they are) and arrays (or bytes of an entry)."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, array in {HEADER: np.frombuffer(raw, np.uint8), **arrays}.items():
            archive.writestr(f"{name}.npy", array if isinstance(array, bytes) else npy(array))
    return sealed(zipped.getvalue(), magic)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def npy_claiming(descr: str, shape: str, content: bytes = b"") -> bytes:
    """An entry whose header says what it likes."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def first_version(path: Path) -> bytes:
    """A session as the first version of the format wrote it."""
    header, arrays = unpacked(path)
    del header["cache"]
    content: dict[str, Any] = {HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8)}
    content |= {name: array for name, array in arrays.items() if not name.startswith("kv.")}
    zipped = io.BytesIO()
    np.savez(zipped, **content)
    return sealed(zipped.getvalue(), FIRST)
