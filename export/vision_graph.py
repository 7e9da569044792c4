"""vision.onnx: pixels -> visual tokens, and what of them the decoder takes.

Contract: one graph from `pixels [n, 3, S, S]` to `resampled_tokens [n, L, D_vis]`, the connector's
output, and `visual_memory`, so that whatever depends on the image alone is computed once per image:
of a gated decoder `[n, blocks, 2, heads, L, d]` (keys at 0, values at 1), where tokens are spliced
these tokens again.
"""

from __future__ import annotations

from export.graph import Graph
from export.parts import CONNECTORS, ENCODERS, INJECTIONS
from qlora.checkpoints.sources import TensorSource
from qlora.model.config import ModelConfig


class VisionGraph:
    """Writes the vision graph of one model."""

    def __init__(self, graph: Graph, config: ModelConfig, weights: TensorSource) -> None:
        self.g, self.config = graph, config
        self.encoder = ENCODERS[type(config.encoder)](graph, config.encoder, weights)
        self.connector = CONNECTORS[type(config.connector)](graph, config.connector, weights)
        self.injection = INJECTIONS[type(config.injection)](graph, config, weights)

    def build(self) -> None:
        """Encoder, connector, and the injection's share."""
        g, c, side = self.g, self.config, self.config.preprocessing.side
        pixels = g.real_input("pixels", ["n", 3, side, side])
        tokens, mask = self.encoder.encode(pixels)  # [n, T, W]
        visual = self.connector.connect(tokens)  # [n, L, D_vis]
        if mask is not None:
            visual = g.op("Mul", visual, mask)
        features, shape = self.injection.features(visual)
        g.real_output(visual, "resampled_tokens", ["n", c.latents, c.dim_visual])
        g.real_output(features, "visual_memory", shape)
