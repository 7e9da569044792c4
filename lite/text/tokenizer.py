"""Token ids and text, exactly as in the model's training.

Contract: special tokens come from the caller's structure, never from text: `encode` treats
`</s>` or `<image>` in its text as plain characters. Only `tokenize`, for prompts written by
programmers, looks for them. The rules are those of transformers' slow LlamaTokenizer before 4.35,
which OpenFlamingo and Multimodal-GPT were trained with: each text after a special token begins with
SentencePiece's dummy prefix, and whitespace next to a special token is stripped; models that were
trained on texts cut at `<image>` by their own code keep it (`strips`). Byte-level BPE, as of
Llama 3, has no prefix: its file has a pre-tokenizer, SentencePiece's none.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as BpeTokenizer

from lite.errors import BadInput

# Llama 3's has 9 MiB, the largest published ones 33.
MAX_FILE_BYTES = 128 << 20
# Characters that a normalizer may make of one.
MAX_GROWTH = 64

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
UNKNOWN = "<unk>"


def _byte_of() -> dict[str, int]:
    """Byte-level BPE's characters: bytes that print stand for themselves, others above 255."""
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in prints]
    return {chr(b): b for b in prints} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_of()


class Special(str):
    """The name of a special token in a prompt's parts, as opposed to text that spells it."""

    __slots__ = ()


IMAGE = Special("<image>")


class Tokenizer:
    """A LLaMA tokenizer with the added tokens of Flamingo-kind models."""

    def __init__(
        self,
        bpe: BpeTokenizer,
        special_ids: Mapping[str, int],
        *,
        image_tokens: int = 1,
        strips: bool = True,
    ) -> None:
        """
        Args:
            bpe: raw BPE: no dummy prefix, no special tokens (`qlora.checkpoints.tokenizer_files`).
            special_ids: ids by name; must have `<s>`, `</s>` and `<image>`.
            image_tokens: ids that one `<image>` becomes (`lite.bundle.injection`).
            strips: leave out whitespace next to special tokens.
        """
        self._bpe = bpe
        self.image_tokens, self._strips = image_tokens, strips
        self._byte_level = bpe.pre_tokenizer is not None
        # Without a pre-tokenizer it would keep the last 10,000 texts whole, and gain no time.
        self._bpe.model._resize_cache(0)
        self.special_ids = dict(special_ids)
        self.bos, self.eos = special_ids["<s>"], special_ids["</s>"]
        self.image = special_ids[IMAGE]
        self._specials = frozenset(special_ids.values())
        self._special_names = re.compile(
            "|".join(re.escape(name) for name in sorted(special_ids, key=len, reverse=True))
        )

    @classmethod
    def from_file(cls, path: Path, special_ids: Mapping[str, int], **options: Any) -> Tokenizer:
        """Read a bundle's `tokenizer.json`; the other arguments are those of the class.

        Raises:
            BadInput: the file is no tokenizer, or would make more of a text than its tokens.
        """
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ValueError(f"it has more than {MAX_FILE_BYTES >> 20} MiB")
            text = path.read_text(encoding="utf-8")
            _check_settings(json.loads(text))
            return cls(BpeTokenizer.from_str(text), special_ids, **options)
        except Exception as error:  # tokenizers raises bare Exception
            raise BadInput(
                f"{path} cannot be read as a tokenizer ({error}); export the bundle again."
            ) from None

    def encode(self, parts: Sequence[str | Special], begin: bool = True) -> list[int]:
        """Ids of texts and special tokens in order.

        Args:
            parts: `Special` items become their id (`<image>` as many as an image takes); all other
                strings are plain text.
            begin: the sequence starts here, with `<s>` and the dummy prefix; False continues text.
        """
        ids = [self.bos] if begin else []
        prefix = begin and not self._byte_level
        for i, part in enumerate(parts):
            if isinstance(part, Special):
                ids += [self.special_ids[part]] * (self.image_tokens if part == IMAGE else 1)
                prefix = not self._byte_level
                continue
            text = part
            if self._strips and i > 0 and isinstance(parts[i - 1], Special):
                text = text.lstrip()
            if self._strips and i + 1 < len(parts) and isinstance(parts[i + 1], Special):
                text = text.rstrip()
            if text:
                ids += self._bpe.encode(" " + text if prefix else text).ids
                prefix = False
        return ids

    def tokenize(self, prompt: str) -> list[int]:
        """Ids of a whole prompt in which the special tokens are spelled out."""
        parts: list[str | Special] = []
        end = 0
        for match in self._special_names.finditer(prompt):
            parts += [prompt[end : match.start()], Special(match.group())]
            end = match.end()
        parts.append(prompt[end:])
        # An empty text between two special tokens is no reason to keep either's neighbour.
        ids = self.encode([part for part in parts if part])
        return ids[1:] if ids[1:2] == [self.bos] else ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; special tokens have none."""
        stream = TextStream(self)
        return "".join(stream.feed(i) for i in ids) + stream.end()

    def suppressed(self, vocab: int) -> list[int]:
        """Ids below `vocab` that an answer may not hold.

        These are all special tokens but the end, and rows that only pad the head to a round size.
        """
        padding = range(self._bpe.get_vocab_size(), vocab)
        return sorted({i for i in (*self._specials, *padding) if i < vocab and i != self.eos})

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that one token stands for."""
        piece = None if token in self._specials else self._bpe.id_to_token(token)
        if piece is None or piece == UNKNOWN:
            return b""
        if self._byte_level:
            return bytes(BYTE_OF[character] for character in piece)
        byte = BYTE_PIECE.fullmatch(piece)
        if byte:
            return bytes([int(byte.group(1), 16)])
        return piece.replace("\u2581", " ").encode()


def _check_settings(data: Any) -> None:
    """Raises ValueError for what turns a short text into a long sequence."""
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise ValueError("it is no object with a model")
    if data["model"].get("type", "BPE") != "BPE":
        raise ValueError("its model is not BPE")
    for name in ("truncation", "padding", "post_processor", "added_tokens"):
        if data.get(name):
            raise ValueError(f"it has {name}, which a bundle's tokenizer has not")
    if _growth(data.get("normalizer")) > MAX_GROWTH:
        raise ValueError("its normalizer makes texts too long")


def _growth(normalizer: Any) -> int:
    """How many times as long as a text a normalizer's replacements may make it."""
    if not isinstance(normalizer, dict):
        return 1
    within = normalizer.get("normalizers") or ()
    content = normalizer.get("content") or ""
    return (1 + len(content)) * math.prod(_growth(one) for one in within)


class TextStream:
    """Turns ids into text one at a time; a character cut between byte tokens waits for its rest."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        """The text that this token completes, possibly empty."""
        return self._utf8.decode(self._tokenizer.token_bytes(token))

    def end(self) -> str:
        """What is left when no token follows: a replacement character for a cut one."""
        return self._utf8.decode(b"", final=True)
