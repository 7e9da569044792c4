"""The published models, and where the checkpoints of a model are.

Contract: one row a model, which everything that names models reads: `lite-export NAME`, a recipe's
`model.name`, the plan before anything is downloaded, and `lite-bench --shape`. Importing this
needs neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from lite.bundle.attend import FOLLOWING, OWN
from lite.errors import BadInput

if TYPE_CHECKING:
    from qlora.model import ModelConfig, ModelWeights


@dataclass(frozen=True)
class Checkpoints:
    """Where the parts of one model are: paths, hub ids or addresses (`checkpoints.hub.resolve`).

    Attributes:
        llama: LLaMA folder.
        clip: open_clip model name or config file.
        clip_weights: open_clip pretrained tag or file.
        flamingo: OpenFlamingo checkpoint.
        lora: LoRA file or folder, or None.
        attend: the attend rule that the model was trained with.
        model: folder of a whole model (`qlora.families`). `llama` is then the language model of
            one that lacks it, and `clip` the tower of one that only names it; the others have no
            meaning.
    """

    llama: str = ""
    clip: str = "ViT-L-14"
    clip_weights: str = "openai"
    flamingo: str = ""
    lora: str | None = None
    attend: str = FOLLOWING
    model: str | None = None

    @classmethod
    def whole(
        cls, model: str, llama: str = "", clip: str = "", lora: str | None = None
    ) -> Checkpoints:
        """Those of a model that is one folder."""
        return cls(llama, clip, "", "", lora, OWN, model)

    @classmethod
    def with_parts(cls, named: Checkpoints | None, parts: Mapping[str, str | None]) -> Checkpoints:
        """Those of a named model, if any, with its parts replaced by those given.

        Raises:
            BadInput: a part that has no default was not given, or one that this model does not
                have was.
        """
        given = {key: value for key, value in parts.items() if value is not None}
        model = given.get("model") or (named.model if named else None)
        if model:
            if named and not named.model:
                raise BadInput(
                    f"{model} is a whole model and the named one is a set of parts; give one of "
                    f"them."
                )
            return cls._whole(model, given)
        chosen = replace(named or cls(), **given)
        for needed in ("llama", "flamingo"):
            if not getattr(chosen, needed):
                raise BadInput(
                    f"The checkpoints are incomplete; give {needed}, or the name of a whole set "
                    f"such as {next(iter(MODELS))}."
                )
        return chosen

    @classmethod
    def _whole(cls, model: str, given: Mapping[str, str]) -> Checkpoints:
        for name in ("clip_weights", "flamingo", "attend"):
            if name in given:
                raise BadInput(
                    f"{model} is a whole model, in which {name.replace('_', '-')} has no meaning; "
                    f"leave it out."
                )
        others = {name: given[name] for name in ("llama", "clip", "lora") if name in given}
        return cls.whole(model, **others)

    @property
    def sources(self) -> tuple[str, ...]:
        """The files that the model's sizes are read off."""
        return (self.model,) if self.model else (self.llama, self.flamingo)

    def read(self, with_lora: bool = True) -> ModelWeights:
        """Fetch what is not here, and open everything.

        Raises:
            BadInput: see `qlora.checkpoints.hub.resolve`,
                `qlora.families.flamingo.read_flamingo` and `qlora.families.recognition.read_model`.
        """
        from qlora.checkpoints.hub import resolve
        from qlora.families.flamingo import read_flamingo
        from qlora.families.recognition import read_model

        lora = resolve(self.lora, "lora") if self.lora and with_lora else None
        if self.model:
            base = resolve(self.llama, "llama") if self.llama else None
            return read_model(resolve(self.model, "model"), lora, base, self.clip or None)
        return read_flamingo(
            resolve(self.llama, "llama"),
            self.clip,
            self.clip_weights,
            resolve(self.flamingo, "flamingo"),
            lora,
            self.attend,
        )


@dataclass(frozen=True)
class PublishedModel:
    """A model that has a name here.

    Attributes:
        name: what commands and recipes call it.
        reader: the module of `qlora.families` that reads it, whose `SIZES` have its sizes.
        licence: of the weights, in a few words.
        checkpoints: where they are.
        alike: hub ids of other models of the same family and sizes.
    """

    name: str
    reader: str
    licence: str
    checkpoints: Checkpoints
    alike: tuple[str, ...] = ()

    @property
    def config(self) -> ModelConfig:
        """The sizes that its files give, known before they are downloaded."""
        sizes: dict[str, ModelConfig] = import_module(f"qlora.families.{self.reader}").SIZES
        return sizes[self.name]


MODELS = {
    model.name: model
    for model in (
        # Multimodal-GPT as released in April 2023: its README names these files. The LLaMA
        # repository is the conversion that replaced decapoda-research's, which is gone.
        PublishedModel(
            "mmgpt-9b",
            "flamingo",
            "LLaMA (non-commercial)",
            Checkpoints(
                llama="huggyllama/llama-7b",
                flamingo="openflamingo/OpenFlamingo-9B-deprecated/checkpoint.pt",
                lora="https://download.openmmlab.com/mmgpt/v0/mmgpt-lora-v0-release.pt",
            ),
        ),
        PublishedModel(
            "mplug-owl-7b",
            "owl",
            "LLaMA (non-commercial)",
            Checkpoints.whole("MAGAer13/mplug-owl-llama-7b"),
        ),
        PublishedModel(
            "llava-1.5-7b",
            "llava",
            "Llama 2 Community",
            Checkpoints.whole("llava-hf/llava-1.5-7b-hf"),
            alike=("liuhaotian/llava-v1.5-7b",),
        ),
        PublishedModel(
            "idefics-9b",
            "idefics",
            "LLaMA (non-commercial)",
            Checkpoints.whole("HuggingFaceM4/idefics-9b-instruct"),
            alike=("HuggingFaceM4/idefics-9b",),
        ),
        PublishedModel(
            "llama-3.2-11b-vision",
            "mllama",
            "Llama 3.2 Community",
            Checkpoints.whole("meta-llama/Llama-3.2-11B-Vision-Instruct"),
            alike=("meta-llama/Llama-3.2-11B-Vision",),
        ),
    )
}
# Not published but made on the spot, see `qlora.tiny.model`.
TINY = "tiny"
NAMES = (*MODELS, TINY)


def published_at(checkpoints: Checkpoints) -> PublishedModel | None:
    """The published model whose sizes these checkpoints have, by where they are."""
    for model in MODELS.values():
        known = model.checkpoints.sources
        if checkpoints.sources == known or checkpoints.model in model.alike:
            return model
    return None
