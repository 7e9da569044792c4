"""From a recipe to a trainer: data, checkpoints, model and adapters put together.

Contract: everything that can be wrong with a recipe, its data or its folder is found here, in the
order of what it costs to find it: settings, then data, then what has to be downloaded.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
)

from lite.errors import BadInput
from lite.text.template import MMGPT, Template, template
from lite.text.tokenizer import Tokenizer
from qlora.checkpoints.hub import SMALL_FILES, resolve
from qlora.checkpoints.tokenizer_files import read_tokenizer
from qlora.data.conversation import BadRecord, Conversation
from qlora.data.dataset import DataSet
from qlora.data.mixture import Mixture
from qlora.data.shuffle import random_of, seed_of
from qlora.families.published import PUBLISHED, TINY, Checkpoints
from qlora.model import ModelWeights
from qlora.model.adapters import add_adapters, load_adapter
from qlora.model.quantized import load_quantized
from qlora.model.weights import model_tokenizer
from qlora.plan import Settings, Shapes, make_plan, this_machine
from qlora.recipes.reading import read_recipe
from qlora.recipes.schema import Recipe, differences
from qlora.tiny.data import write_data
from qlora.tiny.model import write_checkpoints
from qlora.training.checkpoints import write_text_atomically
from qlora.training.evaluation import Evaluator
from qlora.training.feed import IMAGES, TEXT, Encoder, Feed
from qlora.training.trainer import Trainer
from qlora.training.visual_tokens import Eye

RECIPE = "recipe.yaml"
# Records of each kind that are encoded before training, to see that something can be trained.
_PROBES = 50

# Each process has the whole model, and gradients are averaged.
_ENGINES = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)

Progress = Callable[[str, int, int], None]


@dataclass
class Data:
    """The data of a run.

    Attributes:
        sets: as opened, with what was wrong in them.
        streams: by kind, without the held-out samples; a kind that no set has is missing.
        held_out: by kind.
    """

    sets: list[DataSet]
    streams: dict[str, Mixture]
    held_out: dict[str, list[tuple[Conversation, str]]]


def open_data(recipe: Recipe, progress: Progress = lambda what, done, total: None) -> Data:
    """Open and check all data sets.

    Args:
        recipe: its `data` section is used.
        progress: called with (data set, records seen, records) during the check.

    Raises:
        BadInput: a set cannot be used, see `qlora.data.dataset`.
    """
    settings, seed = recipe.data, recipe.training.seed
    root, given = Path(settings.root), settings.sets
    if settings.name == TINY:
        root = Path(recipe.output) / "data"
        given = write_data(root)
    if not root.is_dir():
        raise BadInput(f"There is no data folder {root}; give it as data.root.")
    sets = []
    for one in given:
        report = partial(progress, one.path)
        sets.append(
            DataSet.open(
                root,
                one.path,
                format=one.type,
                images=one.images,
                name=one.called,
                weight=one.weight,
                sample=one.sample,
                seed=seed,
                missing_images=settings.missing_images,
                bad_records=settings.bad_records,
                progress=report,
            )
        )
    streams, held_out = {}, {}
    for kind in (IMAGES, TEXT):
        parts = [(s, s.with_images if kind == IMAGES else s.without_images) for s in sets]
        parts = [(s, indices) for s, indices in parts if len(indices)]
        if not parts:
            continue
        kept, held = _hold_out(parts, settings.holdout, seed)
        streams[kind] = Mixture(kept, seed, kind)
        held_out[kind] = [(s.conversation(i, 0), s.name) for s, i in held]
    if not streams:
        raise BadInput(
            f"The data below {root} holds no record that can be trained on; look at it with "
            f"--audit."
        )
    return Data(sets, streams, held_out)


def _hold_out(
    parts: list[tuple[DataSet, Sequence[int]]], count: int, seed: int
) -> tuple[list[tuple[DataSet, list[int]]], list[tuple[DataSet, int]]]:
    """Split off `count` records, shared between the sets by their size."""
    total = sum(len(indices) for _, indices in parts)
    if count * 2 > total:
        raise BadInput(
            f"data.holdout={count} would leave too little of {total} usable records; lower it."
        )
    kept, held = [], []
    for number, (data_set, indices) in enumerate(parts):
        share = round(count * len(indices) / total)
        chosen = set(random_of(seed, "holdout", number).sample([*indices], share))
        kept.append((data_set, [i for i in indices if i not in chosen]))
        held += [(data_set, i) for i in sorted(chosen)]
    return [(s, indices) for s, indices in kept if indices], held


@contextlib.contextmanager
def checkpoints_of(recipe: Recipe) -> Iterator[Checkpoints]:
    """Where the recipe's checkpoints are; a tiny model is made on the spot."""
    given = recipe.model
    parts = given.model_dump(
        include={"model", "llama", "clip", "clip_weights", "flamingo", "attend"}
    )
    with tempfile.TemporaryDirectory() as folder:
        if given.name == TINY:
            named: Checkpoints | None = write_checkpoints(Path(folder))
        else:
            named = PUBLISHED.get(given.name or "")
        yield Checkpoints.of(named, parts)


def open_tokenizer(recipe: Recipe) -> tuple[Tokenizer, Template]:
    """Tokenizer and prompt template alone: of a LLaMA on the hub, only small files are fetched.

    How many tokens an image takes is written in no small file: a whole model is opened.

    Raises:
        BadInput: they cannot be had.
    """
    with checkpoints_of(recipe) as checkpoints:
        if checkpoints.model:
            weights = checkpoints.read(with_lora=False)
            return weights.chat_tokenizer(), template_of(recipe, weights.config.template)
        folder = resolve(checkpoints.llama, "llama", patterns=SMALL_FILES)
        base = read_tokenizer(folder)
    return model_tokenizer(base), template_of(recipe, MMGPT.name)


def own_templates(recipe: Recipe) -> dict[str, Template]:
    """By its name, the prompt template of each data set that has one of its own."""
    return {one.called: template(one.template) for one in recipe.data.sets if one.template}


def template_of(recipe: Recipe, family: str) -> Template:
    """The prompt template of a run on a model whose family has the template of that name.

    Raises:
        BadInput: the recipe asks for another one, which no export of the model would use.
    """
    asked = recipe.data.template
    if asked not in (None, family):
        raise BadInput(
            f"data.template is {asked} but the model's own is {family}, in which it is asked after "
            f"its export; leave data.template out."
        )
    return template(family)


def make_encoder(recipe: Recipe, weights: ModelWeights) -> Encoder:
    """What turns conversations into samples."""
    config = weights.config
    injection = config.injected(weights.special_ids["<image>"])
    return Encoder(
        tokenizer=weights.chat_tokenizer(),
        template=template_of(recipe, config.template),
        max_tokens=recipe.data.max_tokens,
        injection=injection,
        normalise=recipe.training.loss,
        preprocessing=weights.config.preprocessing,
        skip_broken=recipe.data.bad_records == "skip",
        templates=own_templates(recipe),
    )


def total_steps(recipe: Recipe, data: Data) -> int:
    """Optimizer steps of the run: an epoch is one pass over the samples with images."""
    settings = recipe.training
    if settings.steps is not None:
        return settings.steps
    first = next(iter(data.streams.values()))
    samples = settings.epochs * first.epoch_length
    return max(1, int(samples // (settings.batch * settings.accumulate)))


def make_accelerator() -> Accelerator:
    """The engine: one process, or what `accelerate launch` or `torchrun` has started.

    Raises:
        BadInput: the launcher is set up for FSDP, DeepSpeed or the like.
    """
    # Rows without images leave the gated blocks' adapters without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    # Accumulation and precision are the recipe's, whatever `accelerate launch` was configured for.
    engine = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[unused],
    )
    if engine.distributed_type not in _ENGINES:
        raise BadInput(
            f"The launcher asks for {engine.distributed_type.value}, which shards weights that are "
            f"shared here; launch it with plain data parallelism (accelerate launch --multi_gpu)."
        )
    return engine


def make_trainer(
    recipe: Recipe, data: Data, accelerator: Accelerator, progress: Progress
) -> Trainer:
    """Load the model into 4 bits, add the adapters, and put the run together.

    Raises:
        BadInput: the checkpoints, the targets or the data do not serve.
    """
    settings = recipe.training
    if settings.accumulate % accelerator.num_processes:
        raise BadInput(
            f"training.accumulate={settings.accumulate} cannot be shared by "
            f"{accelerator.num_processes} processes; make it a multiple of them."
        )
    compute = getattr(torch, recipe.model.compute)
    with checkpoints_of(recipe) as checkpoints:
        weights = checkpoints.read(with_lora=False)
        encoder = make_encoder(recipe, weights)
        _check_trainable(data, encoder, recipe)
        _check_memory(recipe, weights)
        model = load_quantized(
            weights,
            compute=compute,
            device=accelerator.device,
            base=recipe.model.base,
            double=recipe.model.double_quantization,
            progress=lambda done: progress("Loading", done, weights.parameters),
        )
    adapter = recipe.adapter.model_dump(exclude={"start"})
    adapters = add_adapters(model, **adapter, seed=seed_of("adapter", settings.seed))
    if recipe.adapter.start is not None:
        load_adapter(adapters, Path(recipe.adapter.start))
    keep = Path(recipe.output) / "visual-tokens" if settings.cache_visual_tokens else None
    eye = Eye(model, compute, keep)
    encoder.cache = eye.cache
    feed = Feed(dict(data.streams), encoder, settings)
    look = recipe.evaluation
    evaluator = Evaluator(dict(data.held_out), encoder, eye, look.answers, look.answer_tokens)
    left_out = evaluator.check()
    total = total_steps(recipe, data)
    trainer = Trainer(recipe, model, adapters, feed, total, evaluator, eye, accelerator)
    trainer.skipped += left_out
    trainer.data = [[one.name, one.fingerprint] for one in data.sets]
    return trainer


def prepare_folder(recipe: Recipe, resume: bool) -> None:
    """Make the run's folder, or check that it holds the same run.

    Raises:
        BadInput: it holds a run that must not be mixed with this one.
    """
    folder = Path(recipe.output)
    written = folder / RECIPE
    started = (folder / "checkpoints").is_dir() or (folder / "adapter").is_dir()
    if started and not resume:
        raise BadInput(
            f"{folder} holds a run already; go on with it by --resume, or give another output."
        )
    if started and written.exists():
        changed = differences(read_recipe(str(written)), recipe)
        if changed:
            raise BadInput(
                f"The run in {folder} was started with another {', '.join(changed[:3])}; resume it "
                f"with the settings in {written}, or give another output."
            )
    text = yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(written, text)
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be written to ({error.strerror}); give another output."
        ) from None


def _check_memory(recipe: Recipe, weights: ModelWeights) -> None:
    """Refuse what the GPU could not hold. Host memory is shared and can swap: there it is tried."""
    if not torch.cuda.is_available():
        return
    plan = make_plan(Shapes.of(weights.config), Settings.of(recipe), this_machine())
    if refusal := plan.refusal():
        raise BadInput(refusal)


def _check_trainable(data: Data, encoder: Encoder, recipe: Recipe) -> None:
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
