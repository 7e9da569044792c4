"""The writer of each part: the one place where the graphs learn which parts there are.

Contract: each table goes from a config class of `qlora.model` to the writer of its ONNX nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.connectors.abstractor import AbstractorWriter
from export.connectors.perceiver import PerceiverWriter
from export.connectors.projector import ProjectorWriter
from export.encoders.clip import ClipWriter
from export.encoders.tiled import TiledWriter
from export.injections.base import InjectionWriter
from export.injections.gated import GatedWriter
from export.injections.gated_llama import GatedLlamaWriter
from export.injections.spliced import SplicedWriter
from qlora.model.connectors.abstractor import Abstractor
from qlora.model.connectors.perceiver import Perceiver
from qlora.model.connectors.projector import Projector
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.encoders.tiled import TiledEncoder
from qlora.model.injection.gated import Gated
from qlora.model.injection.gated_llama import GatedLlama
from qlora.model.injection.spliced import Spliced

# Made of a graph, the config and the model's tensors; `encode(pixels [n, 3, H, W])` gives tokens
# `[n, T, W]` and a mask `[n, T, 1]` or None, as `EncoderConfig.encode` does.
ENCODERS: Mapping[type, Any] = {
    ClipEncoder: ClipWriter,
    TiledEncoder: TiledWriter,
}

# Made likewise; `connect(tokens [n, T, W])` gives visual tokens `[n, L, D_vis]`.
CONNECTORS: Mapping[type, Any] = {
    Perceiver: PerceiverWriter,
    Abstractor: AbstractorWriter,
    Projector: ProjectorWriter,
}

# Made of a graph, the config of the whole model and its tensors.
INJECTIONS: Mapping[type, type[InjectionWriter]] = {
    Gated: GatedWriter,
    GatedLlama: GatedLlamaWriter,
    Spliced: SplicedWriter,
}
