"""`tokenizer.model`: pieces and scores of a sentencepiece BPE model, as a list of merges.

Contract: the merges reproduce sentencepiece's own encoding. It repeatedly joins the neighbours
whose joined piece has the best score, leftmost first; so the merges are, for every piece, all its
splits into two known pieces, in the order of the scores. Splits of one piece have one score there
but two ranks here, which could differ only where two splits of the same piece overlap in a text;
the shorter left part goes first.

Settings of the trainer or normalizer that this cannot reproduce are refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as proto

from lite.errors import BadInput
from qlora.checkpoints.checks import one_line, some

# Values of sentencepiece_model.proto: ModelProto.SentencePiece.Type and TrainerSpec.ModelType.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_MODEL_BPE = 2


@dataclass(frozen=True)
class Pieces:
    """A BPE tokenizer without its pre- and post-processing.

    Attributes:
        vocab: piece -> id, the ids 0 to len - 1.
        merges: pairs of pieces, best first.
        unk_piece: the piece of the unknown token.
        bos, eos: ids.
        user_defined: pieces that are never split nor joined.
        charsmap: sentencepiece's compiled Unicode normalization, empty for none.
    """

    vocab: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    unk_piece: str
    bos: int
    eos: int
    user_defined: Sequence[str] = ()
    charsmap: bytes = b""


def read_sentencepiece(path: Path) -> Pieces:
    """Read a `tokenizer.model`.

    Raises:
        BadInput: it is damaged, or no BPE model with byte fallback and a leading space as LLaMA's.
    """
    model: Any = proto.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    # protobuf's own error class has moved between its releases.
    except Exception as error:
        raise BadInput(
            f"{path} is not a sentencepiece model ({one_line(error)}); download it again."
        ) from error
    _refuse_unsupported(model, path)
    if not all(isinstance(p.piece, str) and math.isfinite(p.score) for p in model.pieces):
        raise BadInput(f"{path} holds damaged pieces or scores; download it again.")
    vocab = {piece.piece: i for i, piece in enumerate(model.pieces)}
    if len(vocab) != len(model.pieces):
        raise BadInput(f"{path} holds a piece twice; download it again.")
    of_type = {kind: [p.piece for p in model.pieces if p.type == kind] for kind in range(1, 7)}
    _check_types(of_type, path)
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type == _NORMAL}
    _check_letters(scores, {*scores, *of_type[_USER_DEFINED]}, path)
    trainer = model.trainer_spec
    return Pieces(
        vocab=vocab,
        merges=merges_of(scores, vocab),
        unk_piece=of_type[_UNKNOWN][0],
        bos=_special_id(trainer.bos_piece, of_type, vocab, path),
        eos=_special_id(trainer.eos_piece, of_type, vocab, path),
        user_defined=of_type[_USER_DEFINED],
        charsmap=model.normalizer_spec.precompiled_charsmap,
    )


def merges_of(scores: Mapping[str, float], vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """All splits of scored pieces into two scored pieces, best score first.

    Equal scores are ordered by id.
    """
    merges: list[tuple[str, str]] = []
    for piece in sorted(scores, key=lambda p: (-scores[p], vocab[p])):
        splits = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        merges += [(left, right) for left, right in splits if left in scores and right in scores]
    return merges


def _refuse_unsupported(model: Any, path: Path) -> None:
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    found = [
        text
        for condition, text in (
            (trainer.model_type != _MODEL_BPE, "is no BPE model"),
            (not trainer.byte_fallback, "has no byte fallback"),
            (not normalizer.add_dummy_prefix, "adds no leading space"),
            (normalizer.remove_extra_whitespaces, "removes extra whitespace"),
            (not normalizer.escape_whitespaces, "does not escape whitespace"),
            (trainer.treat_whitespace_as_suffix, "puts whitespace after words"),
        )
        if condition
    ]
    if not len(model.pieces):
        found.insert(0, "holds no pieces")
    if found:
        raise BadInput(
            f"{path} {some(found)}, so it is no LLaMA-1 or LLaMA-2 tokenizer; give the one of the "
            f"LLaMA checkpoint."
        )


def _check_types(of_type: Mapping[int, list[str]], path: Path) -> None:
    if len(of_type[_UNKNOWN]) != 1 or of_type[_UNUSED]:
        raise BadInput(
            f"{path} has {len(of_type[_UNKNOWN])} unknown and {len(of_type[_UNUSED])} unused "
            f"pieces where LLaMA's has one and none; give the one of the LLaMA checkpoint."
        )
    if sorted(of_type[_BYTE]) != sorted(f"<0x{byte:02X}>" for byte in range(256)):
        raise BadInput(f"{path} does not hold the 256 byte pieces; download it again.")
    short = [piece for kind in (_UNKNOWN, _CONTROL) for piece in of_type[kind] if len(piece) < 2]
    if short:
        # A byte-pair model starts from characters, so it would find these in ordinary text.
        raise BadInput(f"{path} has one-character special pieces ({some(short)}); rename them.")


def _check_letters(scores: Mapping[str, float], known: set[str], path: Path) -> None:
    """Joining starts from characters, so every character of a piece must be a piece."""
    lost = {letter for piece in scores for letter in piece} - known
    if lost:
        raise BadInput(
            f"{path} has pieces with characters that are no pieces themselves "
            f"({some(sorted(lost))}); give a tokenizer as sentencepiece trained it."
        )


def _special_id(
    piece: str, of_type: Mapping[int, list[str]], vocab: Mapping[str, int], path: Path
) -> int:
    if piece not in of_type[_CONTROL]:
        raise BadInput(f"{path} has no control piece {piece!r}; give the LLaMA tokenizer.")
    return vocab[piece]
