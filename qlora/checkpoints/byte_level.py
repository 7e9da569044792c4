"""The tokenizer of a Llama 3 folder as the runtime's `tokenizer.json`.

Contract: `read_byte_level` gives a *raw* tokenizer, as `tokenizer_files` does for SentencePiece:
pre-tokenizer and merges as published, but no special tokens and no post-processor. Text that
spells `<|eot_id|>` is plain text; the runtime puts special tokens in itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lite.errors import BadInput
from qlora.checkpoints.checks import one_line, read_json
from qlora.checkpoints.tokenizer_files import TokenizerFiles


def read_byte_level(folder: Path, begin: str, end: str) -> tuple[TokenizerFiles, dict[str, int]]:
    """Read the `tokenizer.json` of a folder.

    Args:
        folder: where it is.
        begin, end: tokens that open a text and end an answer.

    Returns:
        The tokenizer, and the ids of its special tokens by name.

    Raises:
        BadInput: it is missing, damaged, of another kind, or lacks one of the two tokens.
    """
    path = Path(folder) / "tokenizer.json"
    raw = read_json(path, "tokenizer")
    if not _is_byte_level(raw):
        raise BadInput(
            f"{path} is not a byte-level BPE tokenizer without a normalizer; give the tokenizer of "
            f"the Llama 3 checkpoint."
        )
    special = _added(raw, path)
    for token in (begin, end):
        if token not in special:
            raise BadInput(f"{path} does not hold the token {token}; download it again.")
    try:
        plain = {**raw, "added_tokens": [], "post_processor": None}
        tokenizer = Tokenizer.from_str(json.dumps(plain))
    # The native library raises plain Exception.
    except Exception as error:
        raise BadInput(
            f"{path} is not a usable tokenizer ({one_line(error)}); download it again."
        ) from error
    size = max(tokenizer.get_vocab_size(), 1 + max(special.values()))
    files = TokenizerFiles(tokenizer, special[begin], special[end], None, special[end], size)
    return files, special


def _is_byte_level(raw: dict[str, Any]) -> bool:
    model, before = raw.get("model"), raw.get("pre_tokenizer")
    if not isinstance(model, dict) or not isinstance(before, dict) or raw.get("normalizer"):
        return False
    steps = before.get("pretokenizers", [before])
    last = steps[-1] if isinstance(steps, list) and steps else None
    if not isinstance(last, dict) or last.get("type") != "ByteLevel":
        return False
    other = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    return (
        model.get("type") == "BPE"
        and not last.get("add_prefix_space")
        and not any(model.get(key) for key in other)
    )


def _added(raw: dict[str, Any], path: Path) -> dict[str, int]:
    added = raw.get("added_tokens")
    if not isinstance(added, list) or not all(
        isinstance(token, dict)
        and type(token.get("content")) is str
        and type(token.get("id")) is int
        and 0 <= token["id"] < 2**31
        for token in added
    ):
        raise BadInput(f"{path} has a damaged list of added tokens; download it again.")
    return {token["content"]: token["id"] for token in added}
