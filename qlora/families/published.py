"""Sets of checkpoints that have a name.

Contract: what each name stands for, as the options of `lite-export` would spell it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from lite.bundle.attend import FOLLOWING, OWN
from lite.errors import BadInput

if TYPE_CHECKING:
    from qlora.model import ModelWeights


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
        model: folder of a whole model of another family (`qlora.families`). `llama` is then the
            language model of one that lacks it, and `clip` the tower of one that only names it;
            the others have no meaning.
    """

    llama: str
    clip: str
    clip_weights: str
    flamingo: str
    lora: str | None
    attend: str
    model: str | None = None

    @classmethod
    def of(cls, named: Checkpoints | None, parts: Mapping[str, str | None]) -> Checkpoints:
        """A named set, if any, with the parts that were given in its place.

        Raises:
            BadInput: a part that has no default was not given.
        """
        if parts.get("model"):
            return cls._whole(parts)
        defaults = asdict(named) if named else asdict(_DEFAULTS)
        chosen = {**defaults, **{key: value for key, value in parts.items() if value is not None}}
        for needed in ("llama", "flamingo"):
            if not chosen[needed]:
                raise BadInput(
                    f"The checkpoints are incomplete; give {needed}, or the name of a whole set "
                    f"such as {next(iter(PUBLISHED))}."
                )
        return cls(**chosen)

    @classmethod
    def _whole(cls, parts: Mapping[str, str | None]) -> Checkpoints:
        for name in ("clip_weights", "flamingo", "attend"):
            if parts.get(name):
                raise BadInput(
                    f"{parts['model']} is a whole model, in which {name.replace('_', '-')} has no "
                    f"meaning; leave it out."
                )
        return cls(
            llama=parts.get("llama") or "",
            clip=parts.get("clip") or "",
            clip_weights="",
            flamingo="",
            lora=parts.get("lora"),
            attend=OWN,
            model=parts["model"],
        )

    def read(self, with_lora: bool = True) -> ModelWeights:
        """Fetch what is not here, and open everything.

        Raises:
            BadInput: see `qlora.checkpoints.hub.resolve`,
                `qlora.families.flamingo.read_flamingo` and `qlora.families.read_model`.
        """
        from qlora.checkpoints.hub import resolve
        from qlora.families import read_model
        from qlora.families.flamingo import read_flamingo

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


_DEFAULTS = Checkpoints("", "ViT-L-14", "openai", "", None, FOLLOWING)

# Multimodal-GPT as released in April 2023: its README names these files. The LLaMA repository is
# the conversion that decapoda-research's, which is gone, was replaced by.
MMGPT_9B = Checkpoints(
    llama="huggyllama/llama-7b",
    clip="ViT-L-14",
    clip_weights="openai",
    flamingo="openflamingo/OpenFlamingo-9B-deprecated/checkpoint.pt",
    lora="https://download.openmmlab.com/mmgpt/v0/mmgpt-lora-v0-release.pt",
    attend=FOLLOWING,
)

PUBLISHED = {"mmgpt-9b": MMGPT_9B}
# Not published but made on the spot, see `qlora.tiny.model`.
TINY = "tiny"
