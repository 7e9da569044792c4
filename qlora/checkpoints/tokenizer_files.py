"""A LLaMA folder's tokenizer as the runtime's `tokenizer.json`.

Contract: `read_tokenizer` gives a *raw* tokenizer: bytes and BPE merges, spaces as U+2581, nothing
else. It adds no leading space and no BOS, and it recognises no special tokens: text that spells
`</s>` is plain text. The runtime does those three itself, where it knows what is text and what is
not. With a leading space added, its ids are sentencepiece's own.

`tokenizer.model` is preferred; `tokenizer.json` serves folders without it. Configurations of 2023
(`LLaMATokenizer`, empty token strings, no special_tokens_map.json) are fine: the ids of BOS, EOS
and UNK come from the model file. A pad token counts only if tokenizer_config.json or
special_tokens_map.json names one, which is how the reference decides whether to add `<PAD>`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE

from lite.errors import BadInput
from qlora.checkpoints.checks import one_line, read_json, some
from qlora.checkpoints.sentencepiece_file import Pieces, read_sentencepiece
from qlora.checkpoints.tokenizer_json import read_tokenizer_json

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class TokenizerFiles:
    """What `read_tokenizer` found.

    Attributes:
        tokenizer: the raw tokenizer; `tokenizer.save(path)` writes the bundle's file.
        bos, eos, unk: ids of the model's own special pieces.
        pad: id of the pad token, if the folder names one.
        size: number of base pieces; added tokens start at this id.
    """

    tokenizer: Tokenizer
    bos: int
    eos: int
    pad: int | None
    unk: int
    size: int


def read_tokenizer(folder: Path, known: Collection[str] = ()) -> TokenizerFiles:
    """Read the tokenizer of a LLaMA-1 or LLaMA-2 folder.

    Args:
        folder: where it is.
        known: tokens that the folder may add to its base pieces; they are left out.

    Raises:
        BadInput: there is no tokenizer, it is damaged, it is of another kind, or it has tokens
            beyond its base pieces.
    """
    folder = Path(folder)
    settings = [
        read_json(folder / n, "tokenizer config") for n in _CONFIGS if (folder / n).exists()
    ]
    if (folder / "tokenizer.model").exists():
        path = folder / "tokenizer.model"
        pieces = read_sentencepiece(path)
    elif (folder / "tokenizer.json").exists():
        path = folder / "tokenizer.json"
        named = {k: _named(settings, k) for k in ("bos", "eos", "unk")}
        pieces = read_tokenizer_json(path, named, known)
    else:
        raise BadInput(
            f"{folder} has neither tokenizer.model nor tokenizer.json; download the tokenizer "
            f"into it."
        )
    if (folder / "added_tokens.json").exists():
        added = read_json(folder / "added_tokens.json", "list of added tokens")
        _refuse_added([t for t in added if t not in pieces.vocab and t not in known], folder)
    pad_token = _named(settings, "pad")
    if pad_token is not None and pad_token not in pieces.vocab:
        _refuse_added([t for t in (pad_token,) if t not in known], folder)
        pad_token = None
    return TokenizerFiles(
        tokenizer=_raw_tokenizer(pieces, path),
        bos=pieces.bos,
        eos=pieces.eos,
        pad=None if pad_token is None else pieces.vocab[pad_token],
        unk=pieces.vocab[pieces.unk_piece],
        size=len(pieces.vocab),
    )


def _raw_tokenizer(pieces: Pieces, path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer(
            BPE(
                vocab=dict(pieces.vocab),
                merges=list(pieces.merges),
                unk_token=pieces.unk_piece,
                fuse_unk=True,
                byte_fallback=True,
            )
        )
        steps: list[Any] = [normalizers.Replace(" ", SPACE)]
        if pieces.charsmap:
            steps.insert(0, normalizers.Precompiled(pieces.charsmap))
        tokenizer.normalizer = normalizers.Sequence(steps) if len(steps) > 1 else steps[0]
    # The native library raises plain Exception on merges that name unknown pieces.
    except Exception as error:
        raise BadInput(
            f"{path} is not a usable tokenizer ({one_line(error)}); download it again."
        ) from error
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    # These are part of text by definition, unlike special tokens.
    tokenizer.add_tokens(
        [AddedToken(piece, normalized=True, special=False) for piece in pieces.user_defined]
    )
    return tokenizer


def _named(settings: list[dict[str, Any]], kind: str) -> str | None:
    """The token that the folder's configs name for a purpose, if they name one."""
    for config in settings:
        token = config.get(f"{kind}_token")
        text = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(text, str) and text:
            return text
    return None


def _refuse_added(tokens: list[str], folder: Path) -> None:
    if tokens:
        raise BadInput(
            f"The tokenizer in {folder} adds {some(tokens)} to its base pieces, where "
            f"OpenFlamingo's own added tokens belong; remove them from its configs."
        )
