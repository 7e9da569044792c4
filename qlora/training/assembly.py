"""From a recipe and its data to a trainer: checkpoints, model and adapters put together.

Contract: what can be wrong is found in the order of what it costs to find it: the data against the
tokenizer, then the memory, then the weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator

from lite.errors import BadInput
from qlora.data.conversation import BadRecord
from qlora.data.opening import Data, Progress
from qlora.data.shuffle import seed_of
from qlora.data.weighting import Weighting
from qlora.model import ModelWeights, VisionLanguageModel
from qlora.model.adapters import add_adapters, load_adapter
from qlora.model.quantized import load_quantized
from qlora.plan import Counts, Settings, make_plan, this_machine
from qlora.recipes.model import checkpoints_of, own_templates, template_of
from qlora.recipes.schema import Recipe, deciding
from qlora.training.engine import check_agreement
from qlora.training.evaluation import Evaluator
from qlora.training.feed import Feed, SampleEncoder
from qlora.training.folder import HELD_OUT
from qlora.training.trainer import Trainer
from qlora.training.vision_features import VisionFeatures

# Records of each kind that are encoded before training, to see that something can be trained.
_PROBES = 50


def make_trainer(
    recipe: Recipe, data: Data, accelerator: Accelerator, progress: Progress
) -> Trainer:
    """Load the model into 4 bits, add the adapters, and put the run together.

    Raises:
        BadInput: the checkpoints, the targets or the data do not serve, or the processes were
            given different ones.
    """
    settings = recipe.training
    if settings.accumulate % accelerator.num_processes:
        raise BadInput(
            f"training.accumulate={settings.accumulate} cannot be shared by "
            f"{accelerator.num_processes} processes; make it a multiple of them."
        )
    facts = {key: repr(value) for key, value in deciding(recipe).items()}
    facts |= {f"data set {one.name}": f"{one.fingerprint} {one.content}" for one in data.sets}
    check_agreement(accelerator, facts | {HELD_OUT: data.held_out_digest})
    with checkpoints_of(recipe) as checkpoints:
        weights = checkpoints.read(with_lora=False)
        encoder = make_encoder(recipe, weights)
        _check_trainable(data, encoder, recipe)
        _check_memory(recipe, weights)
        model = _load(recipe, weights, accelerator.device, progress)
    adapter = recipe.adapter.model_dump(exclude={"start"})
    adapters = add_adapters(model, **adapter, seed=seed_of("adapter", settings.seed))
    if recipe.adapter.start is not None:
        load_adapter(adapters, Path(recipe.adapter.start), model.config.spelling)
    keep = Path(recipe.output) / "visual-tokens" if settings.cache_visual_tokens else None
    vision = VisionFeatures(model, getattr(torch, recipe.model.compute), keep)
    encoder.store = vision.store
    feed = Feed(dict(data.streams), encoder, settings)
    asked = recipe.evaluation
    evaluator = Evaluator(dict(data.held_out), encoder, vision, asked.answers, asked.answer_tokens)
    left_out = evaluator.check()
    total = data.steps(settings)
    trainer = Trainer(recipe, model, adapters, feed, total, evaluator, vision, accelerator)
    trainer.skipped += left_out
    trainer.data = [[one.name, one.fingerprint] for one in data.sets]
    trainer.data.append([HELD_OUT, data.held_out_digest])
    trainer.held_out_by_image = data.grouped
    return trainer


def make_encoder(recipe: Recipe, weights: ModelWeights) -> SampleEncoder:
    """What turns conversations into samples."""
    config = weights.config
    injection = config.injected(weights.special_ids["<image>"])
    return SampleEncoder(
        tokenizer=weights.chat_tokenizer(),
        template=template_of(recipe, config.template),
        max_tokens=recipe.data.max_tokens,
        injection=injection,
        weighting=Weighting(recipe.training.loss),
        preprocessing=weights.config.preprocessing,
        skip_broken=recipe.data.bad_records == "skip",
        templates=own_templates(recipe),
    )


def _load(
    recipe: Recipe, weights: ModelWeights, device: torch.device, progress: Progress
) -> VisionLanguageModel:
    return load_quantized(
        weights,
        compute=getattr(torch, recipe.model.compute),
        device=device,
        base=recipe.model.base,
        double=recipe.model.double_quantization,
        progress=lambda done: progress("Loading", done, weights.parameters),
    )


def _check_memory(recipe: Recipe, weights: ModelWeights) -> None:
    """Refuse what the GPU could not hold. Host memory is shared and can swap: there it is tried."""
    if not torch.cuda.is_available():
        return
    plan = make_plan(Counts(weights.config), Settings.from_recipe(recipe), this_machine())
    if refusal := plan.refusal():
        raise BadInput(refusal)


def _check_trainable(data: Data, encoder: SampleEncoder, recipe: Recipe) -> None:
    """Refuse data in which no answer fits: encodes the first samples of each kind."""
    for kind, stream in data.streams.items():
        for position in range(min(_PROBES, stream.epoch_length)):
            try:
                sample = encoder.sample(*stream[position])
            except BadRecord:
                continue
            if sample.trained:
                break
        else:
            raise BadInput(
                f"None of the first {_PROBES} samples ({kind}) has a token to train on within "
                f"data.max_tokens={recipe.data.max_tokens}; raise it, or look at the data with "
                f"--inspect."
            )
