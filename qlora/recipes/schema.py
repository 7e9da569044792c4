"""A training recipe: everything that a run depends on, typed.

Contract: plain values in the sections of `Recipe`, checked when they are read
(`qlora.recipes.reading`) and never changed afterwards. Paths are relative to the folder that the
command runs in.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lite.text.template import TEMPLATES
from qlora.families.models import MODELS, NAMES

Policy = Literal["error", "skip"]
PAIRED = "paired"


class Section(BaseModel):
    """Common to all sections: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(Section):
    """The checkpoints to start from, and how the frozen base is held.

    Attributes:
        name: a published model (`qlora.families.models`), or `tiny`; the parts below replace its
            own.
        model, llama, clip, clip_weights, flamingo: as the options of `lite-export`.
        attend: the attend rule, `following` or `preceding`.
        base: `nf4` stores LLaMA's and the gated blocks' matrices in 4 bits, `none` as `compute`.
        double_quantization: quantize the NF4 constants too (0.37 bit a parameter less).
        compute: type of activations and of everything that is not in 4 bits.
    """

    name: str | None = None
    model: str | None = None
    llama: str | None = None
    clip: str | None = None
    clip_weights: str | None = None
    flamingo: str | None = None
    attend: Literal["following", "preceding"] | None = None
    base: Literal["nf4", "none"] = "nf4"
    double_quantization: bool = True
    compute: Literal["bfloat16", "float32"] = "bfloat16"

    @model_validator(mode="after")
    def _known(self) -> ModelSettings:
        if self.name is not None and self.name not in NAMES:
            raise ValueError(f"name is one of {', '.join(NAMES)}")
        parts = self.model or (self.llama and self.flamingo)
        if self.name is None and not parts:
            raise ValueError("give name, or llama and flamingo, or model")
        named = MODELS.get(self.name or "")
        if self.name and self.model and not (named and named.checkpoints.model):
            raise ValueError(
                f"name={self.name} is a set of parts, which model cannot replace; give one"
            )
        return self


class AdapterSettings(Section):
    """LoRA (arXiv 2106.09685) by peft, on the language model.

    Attributes:
        rank, alpha, dropout: as in the paper; the update is scaled by alpha / rank.
        targets: module name endings, or one regular expression for whole module paths.
        rslora: scale by alpha / sqrt(rank) (arXiv 2312.03732).
        dora: weight-decomposed adapters (arXiv 2402.09353).
        start: folder of a trained adapter to begin with, of the same settings and the same base.
    """

    rank: int = Field(16, ge=1, le=1024)
    alpha: float = Field(16.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] | str = Field(min_length=1)
    rslora: bool = False
    dora: bool = False
    start: str | None = None


class SetSettings(Section):
    """One data set.

    Attributes:
        path: its file, below the data root.
        type: its format; found out from the content where it is missing.
        images: folder of its images, below the data root.
        name: what to call it; by default the file's name.
        weight: how often an epoch goes through it; 0.5 takes half of it, 2 all of it twice.
        sample: use only so many records, drawn once for the run.
        template: prompt template of this set alone, to compare with training in one: after its
            export the model is asked in its own.
    """

    path: str
    type: str | None = None
    images: str | None = None
    name: str | None = None
    weight: float = Field(1.0, gt=0, le=1000)
    sample: int | None = Field(None, ge=1)
    template: str | None = None

    @property
    def called(self) -> str:
        """The name that samples of the set carry."""
        return self.name or PurePath(self.path).name.partition(".")[0]


class DataSettings(Section):
    """What to train on.

    Attributes:
        name: `tiny` makes a small set of drawn pictures on the spot; otherwise give `sets`.
        root: the folder that holds all data; no image outside it is ever read.
        template: prompt template; by default the one of the model's family.
        max_tokens: longest sample; longer dialogues lose trailing turns, longer answers their end.
        missing_images, bad_records: stop before training, or skip and count.
        holdout: samples with and without images, each, that are kept for evaluation; those that
            share an image stay together.
        mix: `proportional` shows every sample equally often, whether it has images or not;
            `paired` draws as many samples without images as with them for every step, however few
            there are, and adds the two mean losses, as Multimodal-GPT was trained.
        workers: processes that read and encode ahead; 0 does it in the training process.
        sets: the data sets.
    """

    name: Literal["tiny"] | None = None
    root: str = "data"
    template: str | None = None
    max_tokens: int = Field(512, ge=16, le=1_000_000)
    missing_images: Policy = "error"
    bad_records: Policy = "error"
    holdout: int = Field(0, ge=0)
    mix: Literal["proportional", "paired"] = "proportional"
    workers: int = Field(0, ge=0, le=64)
    sets: list[SetSettings] = []

    @model_validator(mode="after")
    def _some_data(self) -> DataSettings:
        if self.name is None and not self.sets:
            raise ValueError("sets is empty; list at least one data set")
        if self.name is not None and self.sets:
            raise ValueError(f"sets is given beside name={self.name}; set data.name=null")
        for name in (self.template, *(one.template for one in self.sets)):
            if name not in (None, *TEMPLATES):
                raise ValueError(f"template is one of {', '.join(TEMPLATES)}")
        return self


class TrainingSettings(Section):
    """The optimization.

    Attributes:
        epochs: passes over all samples; where `data.mix` is paired, over those with images.
        steps: number of optimizer steps, instead of epochs.
        batch: samples that are packed together, never padded; where `data.mix` is paired, so many
            of each kind.
        text_batch: samples without images, where `data.mix` is paired and there is less to learn
            from these; at most `batch`, and so many where it is not given.
        accumulate: such batches in one optimizer step, over all processes together.
        learning_rate: its peak.
        schedule: `cosine` to zero or `constant`, after `warmup` steps of linear increase.
        weight_decay, decay_only: decoupled decay, on the parameters whose name holds that text.
        clip: largest norm of the whole gradient of a step.
        optimizer: of bitsandbytes, or `adamw` of torch; paged ones survive memory spikes on CUDA.
        loss: `sample` weighs each sample equally, as the original; `token` each token.
        checkpointing: recompute layers in the backward pass instead of keeping activations.
        cache_visual_tokens: keep resampled tokens on disk; exact, as all that makes them is frozen.
        seed: of adapters, dropout and the order of samples.
    """

    epochs: float = Field(1.0, gt=0, le=1_000_000)
    steps: int | None = Field(None, ge=1, lt=10**8)
    batch: int = Field(1, ge=1, le=65_536)
    text_batch: int | None = Field(None, ge=1)
    accumulate: int = Field(1, ge=1, le=1_000_000)
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    decay_only: str = ""
    clip: float = Field(1.0, gt=0)
    optimizer: Literal["paged_adamw_32bit", "paged_adamw_8bit", "adamw_8bit", "adamw"] = (
        "paged_adamw_32bit"
    )
    loss: Literal["sample", "token"] = "sample"
    checkpointing: bool = True
    cache_visual_tokens: bool = True
    seed: int = Field(42, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _smaller(self) -> TrainingSettings:
        if self.text_batch is not None and self.text_batch > self.batch:
            raise ValueError("text_batch is at most batch")
        return self


class EvaluationSettings(Section):
    """Looks at the model during the run.

    Attributes:
        every: optimizer steps between evaluations; 0 for one at the end.
        answers: held-out questions to answer each time.
        answer_tokens: longest of these answers.
    """

    every: int = Field(0, ge=0)
    answers: int = Field(3, ge=0)
    answer_tokens: int = Field(64, ge=1)


class CheckpointSettings(Section):
    """What a run can be resumed from.

    Attributes:
        every: optimizer steps between checkpoints.
        keep: how many of them; at least two, so that a damaged one can be passed over.
    """

    every: int = Field(100, ge=1)
    keep: int = Field(2, ge=2)


class Recipe(Section):
    """A whole run. `output` is the folder that gets checkpoints, logs and the finished adapter."""

    model: ModelSettings
    adapter: AdapterSettings
    data: DataSettings
    training: TrainingSettings
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    output: str = Field(min_length=1)

    @model_validator(mode="after")
    def _paired(self) -> Recipe:
        if self.training.text_batch is not None and self.data.mix != PAIRED:
            raise ValueError("training.text_batch is for data.mix=paired; set both or none")
        return self

    def lenient(self) -> Recipe:
        """The same, but unusable records are counted and never refused."""
        data = self.data.model_copy(update={"missing_images": "skip", "bad_records": "skip"})
        return self.model_copy(update={"data": data})


# What may change between a run and its resumption: it leaves every weight as it would be.
FREE_ON_RESUME = (
    "output",
    "data.workers",
    "data.root",
    "evaluation",
    "checkpoints",
    "training.cache_visual_tokens",
    "training.checkpointing",
)


def differences(first: Recipe, second: Recipe) -> list[str]:
    """Keys whose values differ although they decide what the run computes."""
    one, two = deciding(first), deciding(second)
    return [key for key in sorted({*one, *two}) if one.get(key) != two.get(key)]


def deciding(recipe: Recipe) -> dict[str, Any]:
    """By dotted key, the values that decide what a run computes."""
    return {
        key: value
        for key, value in _flat(recipe.model_dump()).items()
        if not any(key == free or key.startswith(f"{free}.") for free in FREE_ON_RESUME)
    }


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = list(enumerate(value))
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in items:
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat
