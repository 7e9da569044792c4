"""The demo's tokenizer and LLaMA, trained on text that has no pictures.

Contract: `python -m bench.demo.training.language FOLDER` leaves `llama/` in FOLDER as Hugging Face
has it: `tokenizer.model`, `config.json`, `model.safetensors`. With `--tokenizer` only the first.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
import torch
from sentencepiece import SentencePieceProcessor
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from bench.demo.corpus import document, documents
from bench.demo.training.loop import Plan, stage, this_device, train
from bench.demo.training.sizes import LLAMA, VOCABULARY
from lite.cli import entry_point
from lite.files import replacing
from lite.text.template import MMGPT
from qlora.tiny.bpe import train_bpe

T = TypeVar("T")

# Texts that the tokenizer is made from; many more tell it nothing new.
TOKENIZER_TEXTS = 20000
ROW = 256
# More texts than fill a row.
TEXTS_PER_ROW = 48


def write_tokenizer(path: Path, seed: int = 0) -> None:
    """SentencePiece BPE with byte fallback, as LLaMA's.

    Words in quotes are left out: they are drawn in pictures, and are read letter by letter where
    no piece is longer.
    """
    texts = [re.sub(r'"[^"]*"', '""', text) for text in documents(TOKENIZER_TEXTS, seed)]
    content = train_bpe([*texts, *(MMGPT.system, *MMGPT.stops) * 50], VOCABULARY)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(content)


class Tokenized(torch.utils.data.Dataset[T]):
    """Examples with texts, which each worker tokenizes by itself."""

    def __init__(self, tokenizer: Path, seed: int = 0) -> None:
        self.tokenizer, self.seed = tokenizer, seed

    @cached_property
    def pieces(self) -> SentencePieceProcessor:
        return SentencePieceProcessor(str(self.tokenizer))


class Rows(Tokenized[np.ndarray]):
    """Row number i: `ROW` + 1 ids of the corpus, each text between its marks."""

    def __getitem__(self, number: int) -> np.ndarray:
        ids: list[int] = []
        first = number * TEXTS_PER_ROW
        while len(ids) <= ROW:
            text = self.pieces.encode(document(first, self.seed))
            ids += [self.pieces.bos_id(), *text, self.pieces.eos_id()]
            first += 1
        return np.array(ids[: ROW + 1])


def collate(rows: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(rows))


def llama_config() -> LlamaConfig:
    return LlamaConfig(**LLAMA, hidden_act="silu", architectures=["LlamaForCausalLM"])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--tokenizer", is_flag=True, help="Make the tokenizer and stop.")
@stage("language", steps=700, batch=16, rate=3e-3, of=f"Rows of {ROW} tokens")
def command(folder: Path, plan: Plan, seed: int, tokenizer: bool) -> None:
    """Train tokenizer and LLaMA into FOLDER, going on where it was."""
    path = folder / "llama" / "tokenizer.model"
    if not path.exists():
        write_tokenizer(path, seed)
    if tokenizer:
        return
    torch.manual_seed(seed)
    device = this_device()
    model = LlamaForCausalLM(llama_config()).to(device)

    def loss_of(rows: Tensor) -> tuple[Tensor, dict[str, float], int]:
        rows = rows.to(device)
        logits = model(rows[:, :-1], use_cache=False).logits.float()
        loss = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        return loss, {}, logits.shape[0] * logits.shape[1]

    train(plan, model, Rows(path, seed), collate, loss_of, lambda name: ".layers." in name)
    model.cpu().save_pretrained(folder / "llama")


main = entry_point(command)

if __name__ == "__main__":
    main()
