"""What a plan is made for: the part of a recipe that costs something, and the amount of data.

Contract: plain values.
"""

from __future__ import annotations

from dataclasses import dataclass

from qlora.recipes.schema import Recipe

FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class Settings:
    """The part of a recipe that memory and time depend on (fields: `qlora.recipes.schema`)."""

    targets: tuple[str, ...] | str
    base: str = "nf4"
    double_quantization: bool = True
    compute: str = "bfloat16"
    rank: int = 16
    dora: bool = False
    optimizer: str = "paged_adamw_32bit"
    max_tokens: int = 512
    batch: int = 1
    accumulate: int = 1
    checkpointing: bool = True

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> Settings:
        targets = recipe.adapter.targets
        return cls(
            targets=targets if isinstance(targets, str) else tuple(targets),
            base=recipe.model.base,
            double_quantization=recipe.model.double_quantization,
            compute=recipe.model.compute,
            rank=recipe.adapter.rank,
            dora=recipe.adapter.dora,
            optimizer=recipe.training.optimizer,
            max_tokens=recipe.data.max_tokens,
            batch=recipe.training.batch,
            accumulate=recipe.training.accumulate,
            checkpointing=recipe.training.checkpointing,
        )

    @property
    def width(self) -> int:
        """Bytes of a value of the compute type."""
        return 2 if self.compute == "bfloat16" else FLOAT

    @property
    def row(self) -> int:
        """Tokens of the longest row."""
        return self.batch * self.max_tokens


@dataclass(frozen=True)
class Workload:
    """How much there is to train on.

    Attributes:
        image_samples, text_samples: samples of each kind over the whole run.
        image_tokens, text_tokens: their mean length.
        images: images that have to be encoded.
        known: False where these are only an example.
    """

    image_samples: int
    text_samples: int
    image_tokens: float
    text_tokens: float
    images: int
    known: bool = True

    @classmethod
    def example(cls, settings: Settings) -> Workload:
        """1,000 samples of each kind, all as long as they may be."""
        longest = float(settings.max_tokens)
        return cls(1000, 1000, longest, longest, images=1000, known=False)
