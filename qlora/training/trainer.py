"""The training loop: accumulate, clip, step, log, checkpoint; and back into it.

Contract: everything random is a function of (seed, step, process), everything read is a function
of the step, and a checkpoint holds the rest (adapter and optimizer), so a resumed run equals an
uninterrupted one, bit for bit on a CPU. Several processes train the same steps as one: each takes
its share of a step's accumulation, and accelerate's engine averages the gradients.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from lite.errors import LiteError
from lite.files import replacing_folder
from qlora.checkpoints.training_facts import TrainingFacts, write_training_facts
from qlora.checkpoints.writing import write_tensors
from qlora.data.opening import IMAGES, MIXED, TEXT
from qlora.data.shuffle import seed_of
from qlora.model import VisionLanguageModel
from qlora.model.adapters import load_adapter, save_adapter
from qlora.recipes.schema import Recipe
from qlora.training.checkpoints import Checkpoints, step_of
from qlora.training.engine import by_first, hand_out, peak_memory
from qlora.training.evaluation import Evaluator
from qlora.training.feed import Feed, MicroBatch, RowInput
from qlora.training.folder import ADAPTER, CHECKPOINTS, check_data
from qlora.training.log import RunLog
from qlora.training.optimizer import (
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from qlora.training.row_loss import RowLoss
from qlora.training.signals import uninterrupted
from qlora.training.vision_features import VisionFeatures

if TYPE_CHECKING:
    from peft import PeftModel

OPTIMIZER = "optimizer.safetensors"
DATA = "data.json"


class RecordError(LiteError):
    """A record that cannot be trained on and must not be skipped."""


class Trainer:
    """One run, from its recipe's first step or from a checkpoint.

    Attributes:
        step: finished optimizer steps.
        skipped: samples that were left out in this process, by reason.
        data: name and fingerprint of each data set and of the choice of held-out samples; a run
            goes on with the same ones only.
        held_out_by_image: whether an older version would have held out other samples.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: VisionLanguageModel,
        adapters: PeftModel,
        feed: Feed,
        total: int,
        evaluator: Evaluator,
        vision: VisionFeatures,
        accelerator: Accelerator,
    ) -> None:
        """
        Args:
            recipe: the settings.
            model: on the accelerator's device, frozen but for its adapters.
            adapters: the handle of `qlora.model.adapters.add_adapters`.
            feed: the data.
            total: optimizer steps of the whole run.
            evaluator: measures the model in between.
            vision: turns images into visual tokens.
            accelerator: the engine, for one process or several.
        """
        self.recipe, self.model, self.adapters, self.feed = recipe, model, adapters, feed
        self.total, self.evaluator, self.vision = total, evaluator, vision
        self.engine = accelerator
        self.folder = Path(recipe.output)
        self.checkpoints = Checkpoints(self.folder / CHECKPOINTS, recipe.checkpoints.keep)
        self.step = 0
        self.skipped: Counter[str] = Counter()
        self.data: list[list[str]] = []
        self.held_out_by_image = False
        self._unsaved = False
        model.checkpointing = recipe.training.checkpointing
        # It is loaded for inference. The vision encoder stays in that mode: it is not trained.
        adapters.train()
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.parameters: dict[str, nn.Parameter] = trained
        optimizer = make_optimizer(trained, recipe.training)
        self.row_loss, self.optimizer = RowLoss(model), optimizer
        # Wraps for several processes; one process keeps the module as it is.
        self.engine_module = accelerator.prepare(self.row_loss)

    def resume(self) -> list[str]:
        """Go to the newest sound checkpoint; returns sentences about damaged ones.

        The first process finds and reads it, and hands out step, adapter and optimizer: the others
        need not see its folder.

        Raises:
            LiteError: there are checkpoints, but none is sound.
            BadInput: the data are not those that the run was started with.
        """
        found = by_first(self.engine, self._newest)
        if found is None:
            return []
        read = self.engine.is_main_process
        adapter = {n: p.detach() for n, p in self.parameters.items()} if read else None
        for name, tensor in hand_out(self.engine, adapter).items():
            with torch.no_grad():
                self.parameters[name].copy_(tensor)
        state = load_file(found / OPTIMIZER) if read else None
        restore_optimizer(self.optimizer, self.parameters, hand_out(self.engine, state))
        self.step = step_of(found)
        return list(self.checkpoints.damaged)

    def _newest(self) -> Path | None:
        """The checkpoint to go on from, with its adapter loaded in this process; or None."""
        found = self.checkpoints.latest()
        if found is None:
            if self.checkpoints.damaged:
                raise LiteError(
                    f"No checkpoint in {self.checkpoints.folder} is sound; remove the folder to "
                    f"start again."
                )
            return None
        started_with = json.loads((found / DATA).read_text(encoding="utf-8"))
        check_data(self.data, started_with, self.held_out_by_image, self.folder)
        load_adapter(self.adapters, found / ADAPTER, self.model.config.spelling)
        return found

    @property
    def finished(self) -> bool:
        """Whether the last step was done and its adapter is where people look for it."""
        published = by_first(self.engine, (self.folder / ADAPTER).is_dir)
        return self.step >= self.total and published

    def run(self) -> None:
        """Train to the last step and write the adapter.

        Raises:
            LiteError: the loss is not finite, a record must not be skipped, or the last checkpoint
                cannot be written.
            KeyboardInterrupt: after a checkpoint of the last finished step.
        """
        saved, every = self.step, self.recipe.checkpoints.every
        with RunLog(self.folder, self.step, self.total, self.engine.is_main_process) as log:
            try:
                if self.step and self._evaluation_due() and not log.evaluated(self.step):
                    self._evaluate(log)  # the run was stopped in it
                for micros in self._steps():
                    values, tokens = self._gradients(micros)
                    with uninterrupted():
                        self._update()
                        log.step(self.step, values, tokens, peak_memory(self.engine.device))
                    if self._evaluation_due():
                        self._evaluate(log)
                    if self.step == self.total or self.step - saved >= every:
                        saved = self._save(log) or saved
            except (KeyboardInterrupt, RecordError):
                if self.step > saved:
                    self._save(log)
                raise
            if saved < self.total and not self._save(log):
                raise LiteError(
                    f"The run is finished but {self.folder} takes no checkpoint (the disk is full "
                    f"or read-only); free some space and run again with --resume."
                )
            for reason, count in sorted(self.skipped.items()):
                log.say(f"Left out {count} samples: {reason}.")
        if self.engine.is_main_process:
            self._publish()

    def _steps(self) -> Iterator[list[MicroBatch]]:
        """The accumulation steps of this process, one optimizer step after the other."""
        accumulate, world = self.recipe.training.accumulate, self.engine.num_processes
        loader = self.feed.loader(
            range(self.step, self.total),
            accumulate,
            self.engine.process_index,
            world,
            self.recipe.data.workers,
        )
        micros: list[MicroBatch] = []
        for micro in loader:
            if micro.error:
                raise RecordError(micro.error)
            self.skipped += micro.skipped
            micros.append(micro)
            if len(micros) == accumulate // world:
                yield micros
                micros = []

    def _gradients(self, micros: list[MicroBatch]) -> tuple[dict[str, float], int]:
        """Those of one step; returns what to log, and the number of tokens that went through."""
        settings = self.recipe.training
        rate = learning_rate(self.step, self.total, settings)
        set_learning_rate(self.optimizer, rate)
        torch.manual_seed(seed_of("dropout", settings.seed, self.step, self.engine.process_index))
        rows = [row for micro in micros for row in micro.rows]
        values = {**self._accumulate(rows), "grad_norm": self._clipped_norm()}
        if not all(math.isfinite(value) for value in values.values()):
            raise LiteError(
                f"The loss or its gradient is no longer a number at step {self.step + 1} (learning "
                f"rate {rate:.3g}); start again with a lower training.learning_rate and another "
                f"output, or look at the data with --inspect."
            )
        tokens = int(self._sums([sum(one.row.ids.numel() for one in rows)])[0])
        return {**values, "learning_rate": rate}, tokens

    def _update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def _accumulate(self, rows: list[RowInput]) -> dict[str, float]:
        """Gradients of one step's rows; returns the mean loss, and that of each kind.

        The objective is the sum of the streams' means. Of paired streams there are two, as in the
        original, which adds a batch with images and one without; a mixed one has a mean over all.
        """
        streams = list(self.feed.streams)
        counts = self._sums([self._count(r for r in rows if r.stream == s) for s in streams])
        # The engine averages gradients over the processes; the counts are those of all of them.
        world = self.engine.num_processes
        scale = {stream: world / count for stream, count in zip(streams, counts, strict=True)}
        losses = dict.fromkeys(streams, 0.0)
        by_kind = dict.fromkeys((IMAGES, TEXT), 0.0)
        for number, one in enumerate(rows, 1):
            visual = self.vision.encode(one.images)
            # Averaged once, after the last row.
            last = number == len(rows)
            with nullcontext() if last else self.engine.no_sync(self.engine_module):
                loss = self.engine_module(one.row, visual) * scale[one.stream]
                self.engine.backward(loss)
            losses[one.stream] += float(loss.detach()) / world
            by_kind[one.kind] += float(loss.detach()) / scale[one.stream]
        means = dict(zip(streams, self._sums([losses[s] for s in streams]), strict=True))
        loss_of_step = sum(means.values()) / len(means)
        if MIXED in means:
            means = self._means_by_kind(rows, by_kind)
        return {"loss": loss_of_step, **means}

    def _means_by_kind(self, rows: list[RowInput], totals: dict[str, float]) -> dict[str, float]:
        """Of the kinds that this step has."""
        sums = self._sums(list(totals.values()))
        counts = self._sums([self._count(r for r in rows if r.kind == kind) for kind in totals])
        found = zip(totals, sums, counts, strict=True)
        return {kind: total / count for kind, total, count in found if count}

    def _count(self, rows: Iterable[RowInput]) -> float:
        """What the losses of rows are averaged over."""
        return float(sum(self.feed.encoder.weighting.count(one.row) for one in rows))

    def _clipped_norm(self) -> float:
        norm = self.engine.clip_grad_norm_([*self.parameters.values()], self.recipe.training.clip)
        return float(norm) if norm is not None else 0.0

    def _sums(self, values: list[float]) -> list[float]:
        """The sums of `values` over all processes."""
        local = torch.tensor(values, dtype=torch.float64, device=self.engine.device)
        total: Tensor = self.engine.reduce(local, "sum")
        return total.tolist()

    def _evaluation_due(self) -> bool:
        every = self.recipe.evaluation.every
        return self.step == self.total or bool(every and self.step % every == 0)

    def _evaluate(self, log: RunLog) -> None:
        self.adapters.eval()
        losses = self.evaluator.losses(self.row_loss)
        answers = self.evaluator.samples(self.model)
        self.adapters.train()
        if losses or answers:
            log.evaluation(self.step, losses, answers)

    def _save(self, log: RunLog) -> int | None:
        """Write a checkpoint; a full disk costs this checkpoint, not the run."""
        if not self.engine.is_main_process:
            return self.step
        try:
            log.flush()  # what is resumed from must not be ahead of its log
            self.checkpoints.save(self.step, self._write)
        except OSError as error:
            if not self._unsaved:
                log.say(
                    f"The checkpoint of step {self.step} was not written ({error.strerror or error}"
                    f"); free some space in {self.folder}: it is tried again after each step."
                )
            self._unsaved = True
            return None
        self._unsaved = False
        return self.step

    def _write(self, folder: Path) -> None:
        save_adapter(self.adapters, folder / ADAPTER, self.model.config.spelling)
        write_tensors(optimizer_tensors(self.optimizer, self.parameters), folder / OPTIMIZER)
        write_training_facts(folder / ADAPTER, self._facts())
        (folder / DATA).write_text(json.dumps(self.data), encoding="utf-8")

    def _facts(self) -> TrainingFacts:
        model = self.recipe.model
        return TrainingFacts(
            nf4=model.base == "nf4",
            double_quantization=model.double_quantization,
            compute=getattr(torch, model.compute),
            attend=self.model.config.attend,
        )

    def _publish(self) -> None:
        """Put the newest checkpoint's adapter at `adapter`, where people look for it."""
        found = self.checkpoints.latest()
        assert found is not None
        with replacing_folder(self.folder / ADAPTER) as partial:
            shutil.copytree(found / ADAPTER, partial, dirs_exist_ok=True)
