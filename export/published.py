"""Sets of checkpoints that have a name.

Contract: what each name stands for, as the options of `lite-export` would spell it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lite.attend import FOLLOWING


@dataclass(frozen=True)
class Checkpoints:
    """Where the parts of one model are: paths, hub ids or addresses (`qlora.hub.resolve`).

    Attributes:
        llama: LLaMA folder.
        clip: open_clip model name or config file.
        clip_weights: open_clip pretrained tag or file.
        flamingo: OpenFlamingo checkpoint.
        lora: LoRA file or folder, or None.
        attend: the attend rule that the model was trained with.
    """

    llama: str
    clip: str
    clip_weights: str
    flamingo: str
    lora: str | None
    attend: str


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
# Not published but made on the spot, see `export.tiny`.
TINY = "tiny"
