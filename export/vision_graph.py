"""vision.onnx: pixels -> visual tokens, and what of them the decoder takes.

Contract: one graph from `pixels [n, 3, S, S]` to `resampled_tokens [n, L, D_vis]`, the connector's
output, and `visual_memory`, so that whatever depends on the image alone is computed once per image:
of a gated decoder `[n, blocks, 2, heads, L, d]` (keys at 0, values at 1), where tokens are spliced
these tokens again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from export.graph import CONTRIB, Graph
from export.tiled_tower import TiledTower
from qlora.checkpoints.clip_visual import STEM
from qlora.checkpoints.sources import TensorSource
from qlora.model.config import ModelConfig
from qlora.model.connectors.abstractor import FFN_EPSILON, Abstractor
from qlora.model.connectors.perceiver import Perceiver
from qlora.model.connectors.projector import Projector
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.encoders.tiled import TiledEncoder
from qlora.model.injection.gated_llama import GatedLlama

# LayerNorm epsilon of torch, open_clip and OpenFlamingo alike.
EPSILON = 1e-5
# x * sigmoid(1.702 x): the activation of OpenAI's CLIP.
QUICK_GELU_ALPHA = 1.702


class VisionGraph:
    """Writes the vision graph of one model."""

    def __init__(self, graph: Graph, config: ModelConfig, weights: TensorSource) -> None:
        self.g = graph
        self.config = config
        self.weights = weights

    def build(self) -> None:
        c, side = self.config, self.config.preprocessing.side
        pixels = self.g.real_input("pixels", ["n", 3, side, side])
        if isinstance(c.encoder, TiledEncoder):
            media, filled = TiledTower(self.g, c.encoder, self.weights).build(pixels)
            tokens = self.g.op("Mul", self._connect(media), filled)
        else:
            tokens = self._connect(self._encode(pixels))
        shape: list[int | str] = ["n", c.latents, c.dim_visual]
        if gated := c.injection.layers:
            memory = self._memory(tokens)
            of_memory: list[int | str] = [
                "n",
                len(gated),
                2,
                c.injection.kv_heads,
                c.latents,
                c.injection.dim_head,
            ]
        else:
            memory, of_memory = self.g.op("Identity", tokens), shape
        self.g.real_output(tokens, "resampled_tokens", shape)
        self.g.real_output(memory, "visual_memory", of_memory)

    def _array(self, name: str) -> np.ndarray:
        return self.weights[name].float().numpy()

    def _norm(self, x: ir.Value, name: str, epsilon: float = EPSILON) -> ir.Value:
        scale = self.g.weight(f"{name}.weight", self._array(f"{name}.weight"))
        bias = self.g.weight(f"{name}.bias", self._array(f"{name}.bias"))
        return self.g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def _linear(self, x: ir.Value, name: str, bias: bool = False) -> ir.Value:
        return self.g.linear(
            x,
            name,
            self._array(f"{name}.weight"),
            self._array(f"{name}.bias") if bias else None,
        )

    # CLIP's vision tower: the last layer's tokens

    @property
    def _clip(self) -> ClipEncoder:
        assert isinstance(self.config.encoder, ClipEncoder)
        return self.config.encoder

    def _encode(self, pixels: ir.Value) -> ir.Value:
        encoder = self._clip
        vision, epsilon = encoder.clip["vision_cfg"], encoder.epsilon
        g, x = self.g, self._stem(pixels) if STEM in vision else self._patches(pixels)
        x = g.op("Reshape", x, g.constant(0, 0, -1))
        x = g.op("Transpose", x, perm=[0, 2, 1])  # [n, P, W]
        x = g.op("Concat", self._class_token(x), x, axis=1)
        positions = self._array("vision_encoder.positional_embedding")
        x = g.op("Add", x, g.weight("vision_encoder.positional_embedding", positions))
        x = self._norm(x, "vision_encoder.ln_pre", epsilon)
        for i in range(vision["layers"]):
            x = self._encoder_layer(x, f"vision_encoder.transformer.resblocks.{i}")
        if not encoder.keep_class:
            x = g.op("Slice", x, g.constant(1), g.constant(2**31), g.constant(1))
        return self._norm(x, "vision_encoder.ln_post", epsilon) if encoder.final_norm else x

    def _patches(self, pixels: ir.Value) -> ir.Value:
        """One convolution for each patch: `[n, W, rows, columns]`."""
        g, patch = self.g, self._clip.clip["vision_cfg"]["patch_size"]
        kernel = self._array("vision_encoder.conv1.weight")  # [W, 3, patch, patch]
        kernel_value = g.weight("vision_encoder.conv1.weight", kernel)
        return g.op("Conv", pixels, kernel_value, strides=[patch, patch])

    def _stem(self, x: ir.Value) -> ir.Value:
        """Convolutions with a ReLU after each, and one that leads to the tower's width."""
        g, layers = self.g, self._clip.clip["vision_cfg"][STEM]
        for number, (_, stride) in enumerate(layers):
            # Convolutions and ReLUs take turns in the torch module.
            name = f"vision_encoder.conv1.{2 * number}"
            kernel = g.weight(f"{name}.weight", self._array(f"{name}.weight"))
            bias = g.weight(f"{name}.bias", self._array(f"{name}.bias"))
            x = g.op("Conv", x, kernel, bias, strides=[stride, stride], pads=[1, 1, 1, 1])
            x = g.op("Relu", x)
        name = f"vision_encoder.conv1.{2 * len(layers)}.weight"
        return g.op("Conv", x, g.weight(name, self._array(name)))

    def _class_token(self, x: ir.Value) -> ir.Value:
        """The class embedding, once per image: `[n, 1, W]`."""
        token = self._array("vision_encoder.class_embedding")[None, None]
        return self._for_each(x, "vision_encoder.class_embedding", token)

    def _for_each(self, x: ir.Value, name: str, rows: np.ndarray) -> ir.Value:
        """`rows [1, L, D]` once for each image of `x [n, ...]`."""
        g = self.g
        shape = g.op("Concat", g.op("Shape", x, start=0, end=1), g.constant(1, 1), axis=0)
        return g.op("Expand", g.weight(name, rows), shape)

    def _encoder_layer(self, x: ir.Value, name: str) -> ir.Value:
        encoder = self._clip
        g, vision, epsilon = self.g, encoder.clip["vision_cfg"], encoder.epsilon
        h = self._norm(x, f"{name}.ln_1", epsilon)
        in_proj = self._array(f"{name}.attn.in_proj_weight")
        in_bias = self._array(f"{name}.attn.in_proj_bias")
        h = g.linear(h, f"{name}.attn.in_proj", in_proj, in_bias)
        q, k, v = g.op("Split", h, axis=-1, num_outputs=3, outputs=3)
        heads = vision["width"] // vision.get("head_width", 64)
        h = g.op("MultiHeadAttention", q, k, v, domain=CONTRIB, num_heads=heads)
        x = g.op("Add", x, self._linear(h, f"{name}.attn.out_proj", bias=True))
        h = self._linear(self._norm(x, f"{name}.ln_2", epsilon), f"{name}.mlp.c_fc", bias=True)
        if encoder.clip["quick_gelu"]:
            h = g.op("QuickGelu", h, domain=CONTRIB, alpha=QUICK_GELU_ALPHA)
        else:
            h = g.op("Gelu", h, domain=CONTRIB)
        return g.op("Add", x, self._linear(h, f"{name}.mlp.c_proj", bias=True))

    def _connect(self, media: ir.Value) -> ir.Value:
        """The connector: `[n, P, W]` -> `[n, L, D_vis]`."""
        connector = self.config.connector
        if isinstance(connector, Perceiver):
            return self._resample(media, connector)
        if isinstance(connector, Abstractor):
            return self._abstract(media, connector)
        assert isinstance(connector, Projector)
        return self._project(media, connector)

    # the perceiver resampler

    def _resample(self, media: ir.Value, connector: Perceiver) -> ir.Value:
        g = self.g
        x = self._for_each(media, "perceiver.latents", self._array("perceiver.latents")[None])
        for i in range(connector.depth):
            seen = self._resampler_attention(media, x, f"perceiver.layers.{i}.0", connector)
            x = g.op("Add", x, seen)
            h = self._norm(x, f"perceiver.layers.{i}.1.0")
            h = self._linear(h, f"perceiver.layers.{i}.1.1")
            gelu = connector.activation == "gelu"
            h = g.op("Gelu", h, domain=CONTRIB) if gelu else g.op("Relu", h)
            x = g.op("Add", x, self._linear(h, f"perceiver.layers.{i}.1.3"))
        return self._norm(x, "perceiver.norm")

    def _resampler_attention(
        self, media: ir.Value, latents: ir.Value, name: str, connector: Perceiver
    ) -> ir.Value:
        g, heads = self.g, connector.heads
        latents = self._norm(latents, f"{name}.norm_latents")
        media = self._norm(media, f"{name}.norm_media")
        kv = self._linear(g.op("Concat", media, latents, axis=1), f"{name}.to_kv")
        k, v = g.op("Split", kv, axis=-1, num_outputs=2, outputs=2)
        q = self._linear(latents, f"{name}.to_q")
        if connector.head_norms:
            q = self._by_head(q, heads, lambda x: self._norm(x, f"{name}.q_norm"))
            k = self._by_head(k, heads, lambda x: self._norm(x, f"{name}.k_norm"))
        h = g.op("MultiHeadAttention", q, k, v, domain=CONTRIB, num_heads=heads)
        return self._linear(h, f"{name}.to_out")

    def _by_head(self, x: ir.Value, heads: int, norm: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """`norm` on each head of `x [n, T, heads * d]`."""
        g = self.g
        x = norm(g.op("Reshape", x, g.constant(0, 0, heads, -1)))
        return g.op("Reshape", x, g.constant(0, 0, -1))

    # mPLUG-Owl's visual abstractor

    def _abstract(self, media: ir.Value, connector: Abstractor) -> ir.Value:
        g = self.g
        x = self._for_each(media, "abstractor.query_tokens", self._array("abstractor.query_tokens"))
        for i in range(connector.depth):
            x = self._abstractor_layer(media, x, f"abstractor.layers.{i}", connector.heads)
        x = self._linear(x, "abstractor.visual_fc", bias=True)
        end = self._for_each(media, "abstractor.vit_eos", self._array("abstractor.vit_eos"))
        return g.op("Concat", x, end, axis=1)

    def _abstractor_layer(
        self, media: ir.Value, queries: ir.Value, name: str, heads: int
    ) -> ir.Value:
        g = self.g

        def linear(x: ir.Value, part: str) -> ir.Value:
            return self._linear(x, f"{name}.{part}", bias=True)

        queries = self._norm(queries, f"{name}.norm1")
        seen = g.op("Concat", queries, self._norm(media, f"{name}.normk"), axis=1)
        q, k, v = linear(queries, "query"), linear(seen, "key"), linear(seen, "value")
        h = g.op("MultiHeadAttention", q, k, v, domain=CONTRIB, num_heads=heads)
        x = g.op("Add", queries, linear(h, "out_proj"))
        h = self._norm(x, f"{name}.norm2")
        gate = g.op("QuickGelu", linear(h, "w1"), domain=CONTRIB, alpha=1.0)  # SiLU
        h = self._norm(g.op("Mul", gate, linear(h, "w3")), f"{name}.ffn_ln", FFN_EPSILON)
        return g.op("Add", x, linear(h, "w2"))

    # LLaVA's projector

    def _project(self, media: ir.Value, connector: Projector) -> ir.Value:
        x = media
        for i in range(connector.depth):
            x = self.g.op("Gelu", x, domain=CONTRIB) if i else x
            x = self._linear(x, f"projector.layers.{i}", bias=connector.bias)
        return x

    # the media side of the gated blocks

    def _memory(self, resampled: ir.Value) -> ir.Value:
        """Keys and values of every block: `[n, blocks, 2, heads, L, d]`."""
        g, c = self.g, self.config
        memories = []
        for layer in c.injection.layers:
            kv = self._keys_and_values(resampled, layer)  # [n, L, 2 * heads * d]
            heads, dim_head = c.injection.kv_heads, c.injection.dim_head
            kv = g.op("Reshape", kv, g.constant(0, c.latents, 2, heads, dim_head))
            kv = g.op("Transpose", kv, perm=[0, 2, 3, 1, 4])  # [n, 2, heads, L, d]
            memories.append(g.op("Unsqueeze", kv, g.constant(1)))
        return g.op("Concat", *memories, axis=1)

    def _keys_and_values(self, tokens: ir.Value, layer: int) -> ir.Value:
        name = f"lang_encoder.model.layers.{layer}.gated_cross_attn_layer"
        injection = self.config.injection
        if not isinstance(injection, GatedLlama):
            return self._linear(tokens, f"{name}.attn.to_kv")
        key, value = (self._linear(tokens, f"{name}.{part}") for part in ("k_proj", "v_proj"))
        if injection.head_norms:
            scale = self.g.weight(f"{name}.k_norm.weight", self._array(f"{name}.k_norm.weight"))
            key = self._by_head(
                key,
                injection.kv_heads,
                lambda x: self.g.op(
                    "SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=injection.epsilon
                ),
            )
        return self.g.op("Concat", key, value, axis=-1)
