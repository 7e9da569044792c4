"""Resampler and gated blocks, trained between a frozen tower and a frozen LLaMA.

Contract: `python -m bench.demo.training.alignment FOLDER` needs LLaMA, CLIP and the first resampler
in FOLDER and leaves `flamingo.safetensors` there, in OpenFlamingo's layout, for the attend rule
`preceding`. Texts are dialogues in the chat's own template. Cross-attention is supervised besides:
half of the heads of each block but the first learn `attended_cells`. With the text loss alone,
captions were learnt long before questions; with plain texts, attention failed in the template.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.demo.draw import draw
from bench.demo.training.attention_targets import attended_cells
from bench.demo.training.cells import Cells, cell_labels
from bench.demo.training.dialogues import Turns, image_dialogues
from bench.demo.training.language import Tokenized, llama_config
from bench.demo.training.loop import Plan, stage, this_device, train
from bench.demo.training.resampler import GRID, PERCEIVER, TEACHER, Teacher
from bench.demo.training.sizes import DEPTH, HEADS, INTERVAL, LATENTS, LLAMA, SIDE, VOCABULARY
from bench.demo.training.tower import pixels_of, stacked
from lite.bundle.attend import PRECEDING, image_index
from lite.cli import entry_point
from lite.files import replacing
from lite.image.preprocessing import Preprocessing
from lite.text.template import MMGPT
from lite.text.tokenizer import Tokenizer
from qlora.checkpoints.clip import read_clip
from qlora.checkpoints.tokenizer_files import read_tokenizer
from qlora.data.conversation import Conversation, Exchange, ImageRef
from qlora.data.encode import IGNORE, encode
from qlora.families.flamingo import ADDED_TOKENS, model_tokenizer
from qlora.model import VisionLanguageModel
from qlora.model.config import ModelConfig
from qlora.model.connectors.perceiver import Perceiver
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.injection.gated import Gated, MaskedCrossAttention
from qlora.model.layers import split_heads
from qlora.model.model import assign
from qlora.model.weights import llama_name

IMAGE = VOCABULARY + ADDED_TOKENS.index("<image>")
EMBEDDING = "lang_encoder.model.embed_tokens.weight"
# Initial value of the gates. From OpenFlamingo's zero they take hundreds of steps to open, which
# protects a large pretrained LLaMA; this one is small, and its training short.
GATE = 0.5
# Weight of the resampler's teacher beside the text loss: gradients of untrained gated blocks would
# undo what it learned.
TEACHER_LOSS = 0.1
# Weight of the attention loss beside the text loss, and what keeps its logarithm finite.
ATTENTION_LOSS, EPSILON = 0.3, 1e-3
# The teacher's figures that are logged.
LOGGED = "named", "counted", "read"
LONGEST = 448


@dataclass(frozen=True)
class Row:
    """Dialogues about the same pictures, side by side: none sees another.

    Attributes:
        pictures: `[S, S, 3]` each.
        truths: what their cells show.
        ids, targets: `[T]`, as of `qlora.data.encode`, one dialogue after the other.
        positions: `[T]`, from 0 in each dialogue.
        index: `[T]`, the picture that a token sees.
        attended_cells: bool `[T, LATENTS]`, cells of that picture that a token should attend to.
    """

    pictures: list[np.ndarray]
    truths: list[Cells]
    ids: np.ndarray
    targets: np.ndarray
    positions: np.ndarray
    index: np.ndarray
    attended_cells: np.ndarray


class DialogueRows(Tokenized[Row]):
    """Row i: pictures and dialogues about them."""

    def __getitem__(self, number: int) -> Row:
        dialogues = image_dialogues(number, self.seed)
        scenes = [scene for turn in dialogues[0] for scene in turn.scenes]
        truths = [cell_labels(scene, SIDE, GRID) for scene in scenes]
        parts: list[dict[str, np.ndarray]] = []
        for turns in dialogues:
            part = self._dialogue(turns, truths)
            if sum(len(one["ids"]) for one in parts) + len(part["ids"]) <= LONGEST:
                parts.append(part)
        return Row(
            pictures=[np.asarray(draw(scene, SIDE)) for scene in scenes],
            truths=truths,
            **{name: np.concatenate([one[name] for one in parts]) for name in parts[0]},
        )

    def _dialogue(self, turns: Turns, truths: list[Cells]) -> dict[str, np.ndarray]:
        """A row's arrays, for one dialogue."""
        tokenizer = self.chat_tokenizer
        exchanges = tuple(
            Exchange(turn.question, turn.answer, images=(ImageRef("drawn"),) * len(turn.scenes))
            for turn in turns
        )
        sample = encode(Conversation("told", exchanges), tokenizer, MMGPT, LONGEST)
        index = image_index(sample.ids, IMAGE, PRECEDING)
        looks = np.zeros((len(sample.ids), LATENTS), bool)
        for turn, at in zip(turns, answer_slices(sample.targets), strict=False):
            # The token before a piece predicts it, so it is the one that attends.
            pieces = [tokenizer.token_bytes(piece) for piece in sample.targets[at]]
            ends = np.cumsum([len(piece) for piece in pieces])
            spans = [(end - len(p), end) for p, end in zip(pieces, ends, strict=True) if p]
            truth = truths[index[at.start] - 1]
            looks[at][: len(spans)] = attended_cells(turn.question, turn.answer, spans, truth)
        return {
            "ids": sample.ids,
            "targets": sample.targets,
            "positions": np.arange(len(sample.ids)),
            "index": index,
            "attended_cells": looks,
        }

    @cached_property
    def chat_tokenizer(self) -> Tokenizer:
        return model_tokenizer(read_tokenizer(self.tokenizer.parent))


def answer_slices(targets: np.ndarray) -> list[slice]:
    """The positions of each answer's targets."""
    edges = np.diff(np.concatenate(([False], targets != IGNORE, [False])).astype(int))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [slice(start, end) for start, end in zip(starts, ends, strict=True)]


def collate(rows: list[Row]) -> dict[str, Tensor]:
    """Padded rows; picture k is number `place[k]` of row `owner[k]`."""
    longest = max(len(r.ids) for r in rows)
    numbered = [(i, j) for i, row in enumerate(rows) for j in range(len(row.pictures))]

    def filled(name: str, value: int) -> Tensor:
        arrays = [getattr(row, name) for row in rows]
        ends = [[(0, longest - len(a))] + [(0, 0)] * (a.ndim - 1) for a in arrays]
        wide = [np.pad(a, e, constant_values=value) for a, e in zip(arrays, ends, strict=True)]
        return torch.from_numpy(np.stack(wide))

    return {
        **stacked([truth for row in rows for truth in row.truths]),
        "pixels": pixels_of([picture for row in rows for picture in row.pictures]),
        "owner": torch.tensor([i for i, _ in numbered]),
        "place": torch.tensor([j for _, j in numbered]),
        "ids": filled("ids", 0),
        "targets": filled("targets", IGNORE),
        "positions": filled("positions", 0),
        "index": filled("index", 0),
        "attended_cells": filled("attended_cells", 0),
    }


class Alignment(nn.Module):
    """The model, and the teacher of its resampler."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__()
        resampler = load_file(folder / "resampler.safetensors")
        self.model = initial_model(folder, resampler, seed)
        self.probes: list[AttentionProbe] = []
        for layer in list(self.model.lang_encoder.get_decoder().layers)[INTERVAL:]:
            if layer.gated_cross_attn_layer is not None:
                self.probes.append(AttentionProbe(layer.gated_cross_attn_layer.attn))
        self.teacher = Teacher(self.model.config.encoder.width)
        self.teacher.load_state_dict(
            {n.removeprefix(TEACHER): v for n, v in resampler.items() if n.startswith(TEACHER)}
        )
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(trainable(name))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float], int]:
        """A batch's loss, its parts, and the number of target tokens."""
        model, ids, targets = self.model, batch["ids"], batch["targets"]
        with torch.no_grad():
            patches, _ = model.config.encoder.encode(model.vision_encoder, batch["pixels"])
        seen = model.connector(patches)
        # Rows of fewer pictures than others end in blank ones, which no token sees.
        visual = seen.new_zeros(len(ids), int(batch["place"].max()) + 1, *seen.shape[1:])
        visual = visual.index_put((batch["owner"], batch["place"]), seen)
        hidden = model.hidden(
            ids, visual=visual, index=batch["index"], positions=batch["positions"]
        )
        learnt = targets != IGNORE
        logits = model.lang_encoder.lm_head(hidden[learnt]).float()
        text_loss = cross_entropy(logits, targets[learnt])
        label_loss, figures = self.teacher(seen, batch)
        right = {name: figures[name] for name in LOGGED if name in figures}
        attention = torch.stack(
            [probe.at(batch["attended_cells"], batch["index"]) for probe in self.probes]
        )
        attention_loss = -(attention + EPSILON).log().mean()
        figures = {"told": text_loss.item(), "looked": attention.mean().item(), **right}
        loss = text_loss + TEACHER_LOSS * label_loss + ATTENTION_LOSS * attention_loss
        return loss, figures, int(learnt.sum())


class AttentionProbe:
    """Attention of the first half of a block's heads in the last forward pass."""

    def __init__(self, attention: MaskedCrossAttention) -> None:
        self.heads = attention.heads
        attention.to_q.register_forward_hook(self._keep_queries)
        attention.to_kv.register_forward_hook(self._keep_keys)

    def _keep_queries(self, module: nn.Module, inputs: object, made: Tensor) -> None:
        self.queries = made

    def _keep_keys(self, module: nn.Module, inputs: object, made: Tensor) -> None:
        self.keys = made.chunk(2, dim=-1)[0]

    def at(self, attended_cells: Tensor, index: Tensor) -> Tensor:
        """Attention of tokens to the cells they should attend to, `[n, heads]`.

        Args:
            attended_cells: bool `[B, T, LATENTS]`; n tokens have any.
            index: `[B, T]`, the number of the picture that a token sees.
        """
        learning = self.heads // 2
        q, k = (split_heads(made, self.heads)[:, :learning] for made in (self.queries, self.keys))
        found = (q @ k.transpose(-1, -2)).unflatten(-1, (-1, LATENTS))
        row, token = attended_cells.any(-1).nonzero(as_tuple=True)
        found = found[row, :, token, index[row, token].long() - 1]  # [n, heads, LATENTS]
        weights = (found.float() * q.shape[-1] ** -0.5).softmax(-1)
        return (weights * attended_cells[row, token][:, None]).sum(-1)


def initial_model(folder: Path, resampler: dict[str, Tensor], seed: int) -> VisionLanguageModel:
    """The model with CLIP and LLaMA from `folder`, this resampler, and fresh gated blocks."""
    clip = read_clip(str(folder / "clip.json"), str(folder / "clip.safetensors"))
    width = clip.config["vision_cfg"]["width"]
    config = ModelConfig(
        family="mmgpt",
        llama=llama_config(),
        preprocessing=Preprocessing(clip.image_size, clip.mean, clip.std),
        encoder=ClipEncoder(clip.config),
        connector=Perceiver(width, LATENTS, DEPTH, HEADS),
        injection=Gated(tuple(range(INTERVAL - 1, LLAMA["num_hidden_layers"], INTERVAL)), HEADS),
        attend=PRECEDING,
        embedding_rows=VOCABULARY + len(ADDED_TOKENS),
        template=MMGPT.name,
    )
    model = VisionLanguageModel(config, IMAGE)
    torch.manual_seed(seed)
    llama = load_file(folder / "llama" / "model.safetensors")
    for name, parameter in list(model.named_parameters()):
        inner = llama_name(name)
        if name.startswith("vision_encoder."):
            assign(model, name, clip.tensors[name.removeprefix("vision_encoder.")].float())
        elif name == EMBEDDING:
            words = llama[inner].float()
            added = words.mean(0) + words.std(0) * torch.randn(len(ADDED_TOKENS), words.shape[1])
            assign(model, name, torch.cat((words, added)))
        elif name.startswith(PERCEIVER):
            assign(model, name, resampler[name].float())
        elif inner in llama:
            assign(model, name, llama[inner].float())
        else:
            assign(model, name, _initial_value(name, parameter))
    return model


def _initial_value(name: str, parameter: nn.Parameter) -> Tensor:
    """torch's and OpenFlamingo's initial values, except for the gates."""
    if name.endswith("_gate"):
        return torch.full(parameter.shape, GATE)
    if parameter.dim() == 2:
        return torch.empty(parameter.shape).uniform_(-1, 1) * parameter.shape[1] ** -0.5
    return torch.ones(parameter.shape) if name.endswith("weight") else torch.zeros(parameter.shape)


def trainable(name: str) -> bool:
    """OpenFlamingo's choice: resampler, gated blocks, and the embedding, of which only the added
    rows learn here."""
    return name.startswith(PERCEIVER) or ".gated_cross_attn_layer." in name or name == EMBEDDING


def write_flamingo(model: VisionLanguageModel, path: Path) -> None:
    """The trained tensors, under OpenFlamingo's names."""
    tensors = {
        n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if trainable(n)
    }
    with replacing(path) as partial:
        save_file(tensors, partial)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stage("alignment", steps=1100, batch=24, rate=2e-3, of="Pictures")
def command(folder: Path, plan: Plan, seed: int) -> None:
    """Train resampler and gated blocks into FOLDER, going on where it was."""
    device = this_device()
    alignment = Alignment(folder, seed).to(device)
    # The rows of words stay: a gradient of theirs would pull the frozen LLaMA's input away.
    embedding = alignment.model.get_parameter(EMBEDDING)
    words = torch.arange(embedding.shape[0], device=device)[:, None] < VOCABULARY
    embedding.register_hook(lambda gradient: gradient.masked_fill(words, 0.0))
    known = embedding.detach()[:VOCABULARY].clone()

    def loss_of(batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float], int]:
        with torch.no_grad():
            embedding[:VOCABULARY] = known  # weight decay touches every row
        return alignment({name: value.to(device) for name, value in batch.items()})

    matrices = "perceiver.layers.", ".gated_cross_attn_layer."
    train(
        plan,
        alignment,
        DialogueRows(folder / "llama" / "tokenizer.model", seed),
        collate,
        loss_of,
        lambda name: any(part in name for part in matrices),
    )
    with torch.no_grad():
        embedding[:VOCABULARY] = known
    write_flamingo(alignment.model, folder / "flamingo.safetensors")


main = entry_point(command)

if __name__ == "__main__":
    main()
