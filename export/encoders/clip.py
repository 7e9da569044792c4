"""CLIP's vision tower in the vision graph.

Contract: equals `qlora.model.encoders.clip.ClipEncoder.encode`.
"""

from __future__ import annotations

import onnx_ir as ir

from export.graph import CONTRIB, Graph
from export.part_writer import PartWriter
from qlora.checkpoints.clip_visual import STEM
from qlora.checkpoints.sources import TensorSource
from qlora.model.encoders.clip import ClipEncoder

# x * sigmoid(1.702 x): the activation of OpenAI's CLIP.
QUICK_GELU_ALPHA = 1.702


class ClipWriter(PartWriter):
    """Writes the tower of one model."""

    def __init__(self, graph: Graph, encoder: ClipEncoder, weights: TensorSource) -> None:
        super().__init__(graph, weights)
        self.encoder, self.vision = encoder, encoder.clip["vision_cfg"]

    def encode(self, pixels: ir.Value) -> tuple[ir.Value, None]:
        """`pixels [n, 3, S, S]` -> tokens `[n, P, W]`."""
        encoder, g = self.encoder, self.g
        x = self._stem(pixels) if STEM in self.vision else self._patches(pixels)
        x = g.op("Reshape", x, g.constant(0, 0, -1))
        x = g.op("Transpose", x, perm=[0, 2, 1])  # [n, P, W]
        x = g.op("Concat", self._class_token(x), x, axis=1)
        x = g.op("Add", x, self.parameter("vision_encoder.positional_embedding"))
        x = self.layer_norm(x, "vision_encoder.ln_pre", encoder.epsilon)
        for i in range(self.vision["layers"]):
            x = self._layer(x, f"vision_encoder.transformer.resblocks.{i}")
        if not encoder.keep_class:
            x = g.op("Slice", x, g.constant(1), g.constant(2**31), g.constant(1))
        if encoder.final_norm:
            x = self.layer_norm(x, "vision_encoder.ln_post", encoder.epsilon)
        return x, None

    def _patches(self, pixels: ir.Value) -> ir.Value:
        """One convolution for each patch: `[n, W, rows, columns]`."""
        patch = self.vision["patch_size"]
        kernel = self.parameter("vision_encoder.conv1.weight")  # [W, 3, patch, patch]
        return self.g.op("Conv", pixels, kernel, strides=[patch, patch])

    def _stem(self, x: ir.Value) -> ir.Value:
        """Convolutions with a ReLU after each, and one that leads to the tower's width."""
        g, layers = self.g, self.vision[STEM]
        for number, (_, stride) in enumerate(layers):
            # Convolutions and ReLUs take turns in the torch module.
            name = f"vision_encoder.conv1.{2 * number}"
            kernel, bias = self.parameter(f"{name}.weight"), self.parameter(f"{name}.bias")
            x = g.op("Conv", x, kernel, bias, strides=[stride, stride], pads=[1, 1, 1, 1])
            x = g.op("Relu", x)
        return g.op("Conv", x, self.parameter(f"vision_encoder.conv1.{2 * len(layers)}.weight"))

    def _class_token(self, x: ir.Value) -> ir.Value:
        """The class embedding, once per image: `[n, 1, W]`."""
        name = "vision_encoder.class_embedding"
        return self.for_each_image(x, name, self.array(name)[None, None])

    def _layer(self, x: ir.Value, name: str) -> ir.Value:
        g, vision, epsilon = self.g, self.vision, self.encoder.epsilon
        # Attention.
        h = self.layer_norm(x, f"{name}.ln_1", epsilon)
        in_proj = self.array(f"{name}.attn.in_proj_weight")
        in_bias = self.array(f"{name}.attn.in_proj_bias")
        h = g.linear(h, f"{name}.attn.in_proj", in_proj, in_bias)
        q, k, v = g.op("Split", h, axis=-1, num_outputs=3, outputs=3)
        heads = vision["width"] // vision.get("head_width", 64)
        h = g.op("MultiHeadAttention", q, k, v, domain=CONTRIB, num_heads=heads)
        x = g.op("Add", x, self.linear(h, f"{name}.attn.out_proj", bias=True))
        # Feed-forward.
        h = self.layer_norm(x, f"{name}.ln_2", epsilon)
        h = self.linear(h, f"{name}.mlp.c_fc", bias=True)
        if self.encoder.clip["quick_gelu"]:
            h = g.op("QuickGelu", h, domain=CONTRIB, alpha=QUICK_GELU_ALPHA)
        else:
            h = g.op("Gelu", h, domain=CONTRIB)
        return g.op("Add", x, self.linear(h, f"{name}.mlp.c_proj", bias=True))
