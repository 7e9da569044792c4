"""What other programs call the modules of the language model, for the adapters that we write.

Contract: plain data of a family's reader. An adapter is saved under the names that the model has in
transformers, so that peft over transformers' class and its peers read it; where transformers has no
such class, under our own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_MODULE = re.compile(r"model\.layers\.(\d+)\.(decoder_layer|gated_cross_attn_layer)\.(.+)")


@dataclass(frozen=True)
class Spelling:
    """Names of modules inside transformers' class.

    Attributes:
        layers: of each decoder layer.
        blocks: of the gated block before a decoder layer, by that layer's number.
        in_block: our name of a linear layer of a gated block -> theirs.
    """

    layers: tuple[str, ...]
    blocks: Mapping[int, str] = field(default_factory=dict)
    in_block: Mapping[str, str] = field(default_factory=dict)

    def module(self, path: str) -> str:
        """Their path of a module of our language model."""
        match = _MODULE.fullmatch(path)
        if match is None:
            return path
        layer, inside = int(match[1]), match[3]
        if match[2] == "decoder_layer":
            return f"{self.layers[layer]}.{inside}"
        return f"{self.blocks[layer]}.{self.in_block[inside]}"
