"""The two training steps that `bench.train` compares, and the measuring of one in its own process.

Contract: both get the same random base in the same NF4 codes, the same adapters, rows, optimizer
(paged 32-bit AdamW of bitsandbytes) and clipping, one row in a step. Resampled tokens are given, as
they are from the cache in a run: no step includes vision. They differ in what a plain loop around
transformers, peft and bitsandbytes has:

- `prepare_model_for_kbit_training`: embeddings, head, norms and gates in float32, and transformers'
  gradient checkpointing, which covers the LLaMA layer and not the gated block before it;
- bfloat16 by autocast, as `transformers.Trainer(bf16=True)` does (no autocast with float32);
- labels given to the model: logits of the whole row, in float32, at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.machine import peak_bytes
from bench.random_weights import random_weights
from lite.bundle.attend import image_index
from qlora.data.encode import IGNORE
from qlora.data.rows import Row
from qlora.model import VisionLanguageModel
from qlora.model.adapters import add_adapters
from qlora.model.quantized import load_quantized
from qlora.recipes.reading import read_recipe
from qlora.recipes.schema import TrainingSettings
from qlora.training.optimizer import make_optimizer
from qlora.training.row_loss import RowLoss

OURS, PLAIN = "qlora-train", "transformers + peft + bitsandbytes"
SEED = 0

Loss = Callable[[Row, "Tensor | None"], Tensor]


@dataclass(frozen=True)
class Task:
    """What one process measures.

    Attributes:
        loop: `OURS` or `PLAIN`.
        shape: one of `bench.shapes.SHAPES`.
        lengths: tokens in a row.
        steps: timed steps of each length, after one that is not.
        images: rows with one image; without, the gated blocks do not run.
        compute: `bfloat16` or `float32`.
        device: as torch calls it.
    """

    loop: str
    shape: str
    lengths: tuple[int, ...]
    steps: int
    images: bool
    compute: str
    device: str


def measure(task: Task) -> dict[str, Any]:
    """Per length: seconds and loss of each step, and the peak of memory in bytes."""
    device = torch.device(task.device)
    model = load_quantized(
        random_weights(task.shape, SEED), compute=getattr(torch, task.compute), device=device
    )
    loss = (_ours if task.loop == OURS else _plain)(model, task)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = make_optimizer(trained, TrainingSettings.model_validate({"learning_rate": 1e-4}))
    measured: dict[str, Any] = {"trained": sum(p.numel() for p in trained.values())}
    for length in task.lengths:
        try:
            steps = [_inputs(model, task, length, number) for number in range(task.steps + 1)]
            measured[str(length)] = _steps(loss, steps, optimizer, trained.values(), device)
        except torch.OutOfMemoryError:
            optimizer.zero_grad()
            measured[str(length)] = {"out_of_memory": True}
    return measured


def adapter_settings() -> dict[str, Any]:
    """Rank, alpha and targets of the shipped 9B recipe."""
    adapter = read_recipe("mmgpt-9b", []).adapter
    return {"rank": adapter.rank, "alpha": adapter.alpha, "targets": adapter.targets}


def _ours(model: VisionLanguageModel, task: Task) -> Loss:
    """The training step of this package."""
    add_adapters(model, **adapter_settings(), seed=SEED).train()
    model.checkpointing = True
    return RowLoss(model)


def _plain(model: VisionLanguageModel, task: Task) -> Loss:
    """The step of a plain loop; see the module's description."""
    import peft  # after qlora.model.nf4, which keeps bitsandbytes from asking the network

    settings = adapter_settings()
    model.requires_grad_(False)
    prepared = peft.prepare_model_for_kbit_training(
        model.lang_encoder, gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    torch.manual_seed(SEED)
    config = peft.LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        target_modules=settings["targets"],
        lora_dropout=0.0,
    )
    adapted = peft.get_peft_model(prepared, config)
    adapted.train()

    def loss(row: Row, visual: Tensor | None) -> Tensor:
        device = torch.device(task.device)
        # transformers moves labels by one itself: the target of t is the label of t + 1.
        labels = torch.cat((torch.tensor([IGNORE]), row.targets[:-1]))
        mixed = task.compute == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            return adapted(
                input_ids=row.ids[None].to(device),
                labels=labels[None].to(device),
                use_cache=False,
                visual=visual,
                image_index=row.index[None].to(device),
            ).loss

    return loss


def _inputs(
    model: VisionLanguageModel, task: Task, length: int, number: int
) -> tuple[Row, Tensor | None]:
    """A row of random tokens with a prompt of a quarter, and the resampled tokens it sees."""
    config, draw = model.config, torch.Generator().manual_seed(1000 * number + length)
    ids = torch.randint(3, config.llama.vocab_size, (length,), generator=draw)
    visual = None
    if task.images:
        ids[length // 8] = model.image_id
        visual = torch.randn(1, 1, config.latents, config.dim_visual, generator=draw)
        visual = visual.to(task.device, getattr(torch, task.compute))
    prompt = length // 4
    targets = torch.full((length,), IGNORE)
    targets[prompt - 1 : -1] = ids[prompt:]
    trained = (targets != IGNORE).float()
    row = Row(
        ids=ids,
        positions=torch.arange(length),
        targets=targets,
        weights=trained / trained.sum(),
        index=torch.from_numpy(image_index(ids.numpy(), model.image_id, config.attend)).long(),
        images=[],
        samples=1,
    )
    return row, visual


def _steps(
    loss: Loss,
    inputs: list[tuple[Row, Tensor | None]],
    optimizer: torch.optim.Optimizer,
    trained: Iterable[nn.Parameter],
    device: torch.device,
) -> dict[str, Any]:
    """Run the steps; the first one warms up and is not timed, but its loss is kept."""
    parameters, seconds, losses = list(trained), [], []
    _reset_peak(device)
    for row, visual in inputs:
        start = _now(device)
        value = loss(row, visual)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(value.detach()))
        seconds.append(_now(device) - start)
    return {"seconds": seconds[1:], "losses": losses, "peak": _peak(device)}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform.startswith("linux"):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak of the next line


def _peak(device: torch.device) -> int:
    """Bytes: of the CUDA allocator, or of this process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    sys.stdout.write(json.dumps(measure(Task(**{**given, "lengths": tuple(given["lengths"])}))))
