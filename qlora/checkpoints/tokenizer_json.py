"""`tokenizer.json` of today's LLaMA folders, taken apart into pieces and merges.

Contract: only the two spellings of LLaMA's tokenizer pass: a normalizer that prepends U+2581 and
replaces spaces by it, or a Metaspace pre-tokenizer that does both without splitting. Both are the
same function; anything else would give other ids than the checkpoint was trained with.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lite.errors import BadInput
from qlora.checkpoints.checks import read_json, some
from qlora.checkpoints.sentencepiece_file import Pieces

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_DEFAULTS = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}


def read_tokenizer_json(
    path: Path, named: Mapping[str, str | None], known: Collection[str] = ()
) -> Pieces:
    """Read a `tokenizer.json`.

    Args:
        path: the file.
        named: what the folder's configs call `bos`, `eos` and `unk`; None means LLaMA's own.
        known: tokens beyond the vocabulary that may be there; they are left out.

    Raises:
        BadInput: it is damaged, no LLaMA-1/2 style tokenizer, or has tokens beyond its vocabulary.
    """
    raw = read_json(path, "tokenizer")
    model = raw.get("model")
    if not isinstance(model, dict) or not _is_llama_style(raw, model):
        raise BadInput(
            f"{path} is not a LLaMA-1/2 style tokenizer (BPE with byte fallback and a leading "
            f"space); give the tokenizer of the LLaMA checkpoint."
        )
    vocab, merges = model.get("vocab"), _merges(model.get("merges"))
    if not isinstance(vocab, dict) or merges is None:
        raise BadInput(f"{path} lacks a vocab or merges; download it again.")
    if any(type(i) is not int for i in vocab.values()) or sorted(vocab.values()) != [
        *range(len(vocab))
    ]:
        raise BadInput(f"{path} has ids that are not 0 to {len(vocab) - 1}; download it again.")
    _refuse_added(raw, vocab, known, path)
    # transformers 5 leaves the model's own unk_token empty.
    tokens = {kind: named[kind] or default for kind, default in _DEFAULTS.items()}
    tokens["unk"] = model.get("unk_token") or tokens["unk"]
    for kind, token in tokens.items():
        if token not in vocab:
            raise BadInput(
                f"{path} does not hold the {kind.upper()} token {token!r}; correct "
                f"tokenizer_config.json."
            )
    return Pieces(vocab, merges, tokens["unk"], vocab[tokens["bos"]], vocab[tokens["eos"]])


def _is_llama_style(raw: dict[str, Any], model: dict[str, Any]) -> bool:
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback") is not True:
        return False
    if model.get("ignore_merges") or model.get("dropout"):
        return False
    # Either would change the pieces inside words.
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return False
    normalizer, pre = raw.get("normalizer"), raw.get("pre_tokenizer")
    if pre is None:
        return _is_prepend_replace(normalizer)
    return (
        normalizer is None
        and isinstance(pre, dict)
        and pre.get("type") == "Metaspace"
        and pre.get("replacement") == _SPACE
        and pre.get("split", True) is False
        and pre.get("prepend_scheme", "always") in ("first", "always")
    )


def _is_prepend_replace(normalizer: object) -> bool:
    return isinstance(normalizer, dict) and normalizer.get("normalizers") == [
        {"type": "Prepend", "prepend": _SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
    ]


def _merges(merges: object) -> list[tuple[str, str]] | None:
    """Pairs, which tokenizers before 0.20 wrote as one string with a space between."""
    if not isinstance(merges, list):
        return None
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else m for m in merges]
    if not all(
        isinstance(p, list | tuple) and len(p) == 2 and all(isinstance(x, str) for x in p)
        for p in pairs
    ):
        return None
    return [(left, right) for left, right in pairs]


def _refuse_added(
    raw: dict[str, Any], vocab: Mapping[str, int], known: Collection[str], path: Path
) -> None:
    added = raw.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise BadInput(f"{path} has a damaged list of added tokens; download it again.")
    strange = [
        str(token.get("content"))
        for token in added
        if vocab.get(str(token.get("content"))) != token.get("id")
        and token.get("content") not in known
    ]
    if strange:
        raise BadInput(
            f"{path} adds {some(strange)} to its base pieces, where OpenFlamingo's own added "
            f"tokens belong; remove them."
        )
