"""Tokenizers of LLaMA's kind, trained on texts of our own.

Contract: same texts and size, same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from sentencepiece import SentencePieceTrainer


def train_bpe(texts: Iterable[str], vocabulary: int, **options: Any) -> bytes:
    """A SentencePiece BPE model with byte fallback, digits apart and whitespace kept, as LLaMA's.

    Args:
        texts: to train on.
        vocabulary: number of pieces.
        options: further ones of SentencePiece's trainer.

    Returns:
        The content of a `tokenizer.model`.
    """
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()
