"""A conversation in one file.

Contract: no pickle; a magic line, the sha256 of the rest, then a zip of numpy arrays whose first is
a JSON header. The file holds turns, token ids and visual memories, so that it reopens without the
vision graph and without the image files. It is written whole or not at all, readable by its owner
only, and opened only by the model that wrote it: anything else is one clear sentence.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lite.conversation import Conversation, Exchange
from lite.errors import BadInput
from lite.runtime import first_line
from lite.vision import VisualMemory

MAGIC = b"mmgpt-lite session 1\n"
HEADER = "header"


def save(conversation: Conversation, path: Path) -> None:
    """Write a conversation.

    Raises:
        BadInput: the file cannot be written.
    """
    exchanges = conversation.exchanges
    memories = {image.key: image.array for e in exchanges for image in e.images}
    header = {
        "model": conversation.engine.bundle.digest,
        "system": conversation.system,
        "exchanges": [
            {
                "question": e.question,
                "images": [image.key for image in e.images],
                "names": e.names,
                "answer": e.answer,
                "answer_ids": e.answer_ids,
            }
            for e in exchanges
        ],
    }
    encoded = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    payload = io.BytesIO()
    arrays: dict[str, Any] = {HEADER: encoded, **memories}
    np.savez(payload, **arrays)
    body = payload.getvalue()
    _write(path, MAGIC + hashlib.sha256(body).digest() + body)


def load(conversation: Conversation, path: Path) -> None:
    """Fill a conversation with what `save` wrote for the same model.

    Raises:
        BadInput: the file is missing, no session, damaged, or of another model.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"The session {path} cannot be read ({error.strerror}).") from None
    if not data.startswith(MAGIC):
        raise BadInput(f"{path} is not a session of this version; give a file that was saved here.")
    start = len(MAGIC) + 32
    if hashlib.sha256(data[start:]).digest() != data[len(MAGIC) : start]:
        raise BadInput(f"The session {path} is truncated or altered; it cannot be used.")
    try:
        with np.load(io.BytesIO(data[start:]), allow_pickle=False) as arrays:
            header = json.loads(arrays[HEADER].tobytes())
            memories = {key: arrays[key] for key in arrays.files if key != HEADER}
        _restore(conversation, path, header, memories)
    except BadInput:
        raise
    except Exception as error:  # numpy and zipfile have a dozen kinds for bytes they cannot read
        raise BadInput(
            f"The session {path} is damaged ({first_line(error)}); it cannot be used."
        ) from None


def _restore(
    conversation: Conversation, path: Path, header: dict[str, Any], memories: dict[str, np.ndarray]
) -> None:
    bundle = conversation.engine.bundle
    if header["model"] != bundle.digest:
        raise BadInput(
            f"The session {path} belongs to another model; open it with the bundle it was saved "
            f"with."
        )
    shape = bundle.manifest.sizes.memory_shape
    if any(a.shape != shape or a.dtype != np.float32 for a in memories.values()):
        raise ValueError("an image has the wrong shape")
    conversation.system = header["system"]
    for e in header["exchanges"]:
        images = [VisualMemory(key, memories[key]) for key in e["images"]]
        exchange = Exchange(e["question"], images, e["names"], e["answer"], e["answer_ids"])
        conversation.exchanges.append(exchange)
    _check(conversation)


def _check(conversation: Conversation) -> None:
    """Refuse what no conversation can hold, before an answer stumbles over it."""
    exchanges, engine = conversation.exchanges, conversation.engine
    "".join([conversation.system, *(text for e in exchanges for text in (e.answer, *e.names))])
    vocab = engine.bundle.manifest.sizes.vocab
    forbidden = {*engine.tokenizer.unspeakable(vocab), engine.tokenizer.eos}
    for token in (token for e in exchanges for token in e.answer_ids):
        if type(token) is not int or not 0 <= token < vocab or token in forbidden:
            raise ValueError(f"{token!r} is no token of an answer")
    conversation.prompt()


def _write(path: Path, data: bytes) -> None:
    """Replace `path` atomically; mkstemp's file is readable by its owner only."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BadInput(f"The session {path} cannot be written ({error.strerror}).") from None
