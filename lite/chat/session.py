"""A conversation in one file.

Contract: the file (`lite.chat.session_file`) holds turns, token ids, image features and, on
request, the KV cache, so that it reopens without the vision graph and without the image files, and
with a KV cache without reading the conversation again. It is opened only by the model that wrote
it: anything else is one clear sentence, and leaves the conversation it was meant for as it was.

The arrays are `header` (JSON), one for each image under the key of its features, and `kv.0`,
`kv.1` ... for the layers of a KV cache. The hash tells damage from what was written, not who wrote
it: a file of somebody else may hold any answer, and any numbers of the right shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lite.chat import session_file
from lite.chat.conversation import Conversation, Exchange
from lite.chat.session_file import SessionFile
from lite.errors import BadInput
from lite.runtime.decoder import Decoder
from lite.runtime.kv_cache import CacheState
from lite.runtime.vision import ImageFeatures

if TYPE_CHECKING:
    from lite.chat.chat import Chat
    from lite.chat.engine import Engine

# Device, inode, size and time of a file: others than before mean that somebody wrote it.
Stamp: TypeAlias = tuple[int, int, int, int]

HEADER, LAYER = "header", "kv."
# Longest header: this, and so much for each position of the context.
HEADER_BYTES, HEADER_BYTES_PER_TOKEN = 1 << 22, 64
KEY = re.compile("[0-9a-f]{64}")


def stamp(path: Path) -> Stamp | None:
    """What a file is like now; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def save(chat: Chat, path: Path, kv: bool = False) -> None:
    """Write the conversation of a chat.

    Args:
        chat: what to write.
        path: the file, which is replaced.
        kv: also what the decoder's KV cache holds of it, `8 * layers * kv_heads * head_dim` bytes
            a token, and a quarter of that from an int8 cache.

    Raises:
        BadInput: the file cannot be written.
    """
    with ExitStack() as until_written:
        cache = _cache(chat, until_written) if kv else None
        session_file.write(path, _arrays(chat, path, cache))


def _arrays(chat: Chat, path: Path, cache: CacheState | None) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a session file, one after the other."""
    exchanges = chat.exchanges
    features = {image.key: image.array for e in exchanges for image in e.images}
    header = {
        "model": chat.engine.bundle.digest,
        "system": chat.system,
        "exchanges": [
            {
                "question": e.question,
                "images": [image.key for image in e.images],
                # Without folders: those of this machine are nobody else's business.
                "names": [re.split(r"[/\\]", name)[-1] for name in e.names],
                "answer": e.answer,
                "answer_ids": e.answer_ids,
            }
            for e in exchanges
        ],
        "cache": cache
        and {"ids": cache.ids.tolist(), "keys": cache.keys, "seen": cache.attended.tolist()},
    }
    encoded = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    if encoded.size > _longest_header(chat.engine):
        raise BadInput(f"The conversation is too long for the session {path}; start a new one.")
    yield HEADER, encoded
    yield from features.items()
    for i, layer in enumerate(cache.layers if cache else ()):
        yield f"{LAYER}{i}", layer


def load(chat: Chat, path: Path) -> None:
    """Give a chat the conversation that `save` wrote for the same model.

    A KV cache in the file replaces what the chat's decoder holds.

    Raises:
        BadInput: the file is missing, no session, damaged, or of another model. The conversation
            stays as it was; only the decoder's KV cache may be empty.
    """
    sizes = chat.engine.bundle.manifest.sizes
    # The header, an image for each position at most, and the layers of the KV cache.
    with session_file.reading(path, 1 + sizes.context + sizes.layers) as file:
        header = json.loads(file.text(HEADER, _longest_header(chat.engine)))
        if type(header) is not dict:
            raise ValueError("the header is no object")
        if header["model"] != chat.engine.bundle.digest:
            raise BadInput(
                f"The session {path} belongs to another model; open it with the bundle it was "
                f"saved with."
            )
        cache = header["cache"] if file.version > 1 else None
        turns = _list_of(dict, header["exchanges"])
        keys = {key for turn in turns for key in _list_of(str, turn["images"])}
        layers = {f"{LAYER}{i}" for i in range(sizes.layers)} if cache else set()
        if file.names != {HEADER, *keys, *layers}:
            raise ValueError("an array is missing, or one too many")
        features = _features(file, keys, sizes.feature_shape)
        conversation = _conversation(chat.engine, header, features)
        if cache:
            with chat.lent_decoder([], []) as decoder:
                _restore_cache(decoder, conversation, file, cache)
    chat.conversation = conversation


def _longest_header(engine: Engine) -> int:
    return HEADER_BYTES + HEADER_BYTES_PER_TOKEN * engine.context


def _features(
    file: SessionFile, keys: set[str], shape: tuple[int, ...]
) -> dict[str, ImageFeatures]:
    if not all(KEY.fullmatch(key) for key in keys):
        raise ValueError("the key of an image is none")
    return {key: ImageFeatures(key, file.array(key, shape)) for key in keys}


def _conversation(
    engine: Engine, header: dict[str, Any], features: dict[str, ImageFeatures]
) -> Conversation:
    """What the header says, checked for what no conversation can hold."""
    restored = Conversation(engine, _text(header["system"]))
    vocab = engine.bundle.manifest.sizes.vocab
    forbidden = {*engine.tokenizer.suppressed(vocab), engine.tokenizer.eos}
    for e in header["exchanges"]:
        answer_ids = _list_of(int, e["answer_ids"])
        if any(not 0 <= token < vocab or token in forbidden for token in answer_ids):
            raise ValueError("an answer has a token that none can have")
        exchange = Exchange(
            question=_text(e["question"]),
            images=[features[key] for key in e["images"]],
            names=_list_of(str, e["names"]),
            answer=_text(e["answer"]),
            answer_ids=answer_ids,
        )
        restored.exchanges.append(exchange)
    return restored


def _cache(chat: Chat, until_written: ExitStack) -> CacheState | None:
    """What a decoder holds of the conversation; it is kept from others until that is written."""
    ids, images = chat.prompt()
    if not chat.exchanges or len(ids) > chat.engine.context:
        return None
    decoder = until_written.enter_context(chat.lent_decoder(ids, images))
    state = decoder.export_cache(ids, images)
    return state if state.ids.size else None


def _restore_cache(
    decoder: Decoder, conversation: Conversation, file: SessionFile, cache: dict[str, Any]
) -> None:
    sizes = conversation.engine.bundle.manifest.sizes
    token_ids = _list_of(int, cache["ids"])
    shape = (2, sizes.kv_heads, len(token_ids), sizes.head_dim)
    dtype = decoder.cache_dtype
    state = CacheState(
        ids=np.array(token_ids, dtype=np.int64),
        keys=_list_of(str, cache["keys"]),
        attended=np.array(_list_of(int, cache["seen"]), dtype=np.int64),
        layers=(file.array(f"{LAYER}{i}", shape, dtype) for i in range(sizes.layers)),
    )
    decoder.import_cache(state, *conversation.prompt())


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("something else stands where a text should")
    value.encode()  # half a character is none, and raises
    return value


def _list_of(kind: type, values: Any) -> list[Any]:
    if type(values) is not list or any(type(value) is not kind for value in values):
        raise ValueError(f"something else stands where a list of {kind.__name__} should")
    return values
