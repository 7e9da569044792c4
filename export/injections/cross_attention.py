"""Cross-attention from text to the keys and values of images, as all gated blocks compute it.

Contract: equals `qlora.model.injection.attention.attend_to_images`. Keys and values of every block
are made in the vision graph, once for each image, and come in as `visual_memory`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from export.graph import BLOCKED, CONTRIB, INT32
from export.injections.base import AttendedImages, InjectionWriter


class CrossAttentionWriter(InjectionWriter):
    """What the writers of gated blocks have in common."""

    memory: ir.Value  # [blocks, 2, kv_heads, N * L, d]
    row_mask: ir.Value  # [1, T, 1], 0 where a token attends to no image
    bias: ir.Value  # see `_attention_bias`

    @property
    def groups(self) -> int:
        """Query heads that share keys and values."""
        return self.config.injection.heads // self.config.injection.kv_heads

    # the vision graph

    def features(self, visual: ir.Value) -> tuple[ir.Value, list[int | str]]:
        """Keys and values of every block: `[n, blocks, 2, heads, L, d]`."""
        g, c, latents = self.g, self.config.injection, self.config.latents
        memories = []
        for layer in c.layers:
            kv = self.keys_and_values(visual, self.name_of(layer))  # [n, L, 2 * heads * d]
            kv = g.op("Reshape", kv, g.constant(0, latents, 2, c.kv_heads, c.dim_head))
            kv = g.op("Transpose", kv, perm=[0, 2, 3, 1, 4])  # [n, 2, heads, L, d]
            memories.append(g.op("Unsqueeze", kv, g.constant(1)))
        shape: list[int | str] = ["n", len(c.layers), 2, c.kv_heads, latents, c.dim_head]
        return g.op("Concat", *memories, axis=1), shape

    @abstractmethod
    def keys_and_values(self, visual: ir.Value, name: str) -> ir.Value:
        """Of one block: `[n, L, D_vis]` -> `[n, L, 2 * heads * d]`, keys first."""

    # the decoder graph

    def declare(self) -> None:
        """The keys and values of the images that some token here attends to."""
        c = self.config.injection
        shape: list[int | str] = [len(c.layers), 2, c.kv_heads, "N_L", c.dim_head]
        self.memory = self.g.real_input("visual_memory", shape)

    def prepare(self, images: AttendedImages) -> None:
        """The masks of tokens and of their attention."""
        super().prepare(images)
        g = self.g
        self.row_mask = g.op("Unsqueeze", g.op("Cast", images.some, to=int(g.real)), g.constant(2))
        self.bias = self._attention_bias()

    def embed(self, ids: ir.Value, embedding: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """Of text alone."""
        return embedding(ids)

    def name_of(self, layer: int) -> str:
        """Of the parameters of the block before a layer."""
        return f"lang_encoder.model.layers.{layer}.gated_cross_attn_layer"

    def _attention_bias(self) -> ir.Value:
        """`[1, 1, T, N * L]`: 0 where the token attends to the image, `BLOCKED` elsewhere.

        With grouped queries `[1, 1, G * T, N * L]`, see `attend`.
        """
        g, images = self.g, self.images
        columns = g.op("Squeeze", g.op("Shape", self.memory, start=3, end=4))
        first = g.weight("const.first", np.array(0, dtype=np.int64))
        step = g.weight("const.step", np.array(1, dtype=np.int64))
        latents = g.weight("const.latents", np.array(self.config.latents, dtype=np.int64))
        owner = g.op("Div", g.op("Range", first, columns, step), latents)
        owner = g.op("Cast", g.op("Add", owner, step), to=int(INT32))  # [N * L], from 1
        last = g.op("Unsqueeze", images.last, g.constant(1, 3))  # [1, 1, T, 1]
        allowed = g.op("Equal", last, owner)
        if images.first is not images.last:
            first_attended = g.op("Unsqueeze", images.first, g.constant(1, 3))
            allowed = g.op("LessOrEqual", first_attended, owner)
            allowed = g.op("And", allowed, g.op("GreaterOrEqual", last, owner))
        if self.config.encoder.padded:
            allowed = g.op("And", allowed, self._is_token())
        if self.groups > 1:
            allowed = g.op("Concat", *[allowed] * self.groups, axis=2)
        return g.op(
            "Where",
            allowed,
            g.weight("const.open", np.array(0, dtype=np.float32)),
            g.weight("const.blocked", np.array(BLOCKED)),
        )

    def _is_token(self) -> ir.Value:
        """bool `[N * L]`: the first block's first key of the visual token is not zero."""
        g, first = self.g, self.g.weight("const.first", np.array(0, dtype=np.int64))
        keys = self.memory
        for _ in range(3):  # block, keys, head
            keys = g.op("Gather", keys, first, axis=0)
        size = g.op("ReduceL1", keys, g.constant(1), keepdims=0)
        return g.op("Greater", size, g.weight("const.open", np.array(0, dtype=np.float32)))

    def attend(self, q: ir.Value, layer: int) -> ir.Value:
        """Attention of `q [1, T, heads * d]` to the keys and values of the block before a layer.

        Heads that share keys and values are put one after the other as so many rows of queries.
        """
        g, c, groups = self.g, self.config.injection, self.groups
        if groups > 1:
            q = g.op("Reshape", q, g.constant(0, 0, c.kv_heads, groups, c.dim_head))
            q = g.op("Transpose", q, perm=[0, 3, 1, 2, 4])  # [1, G, T, kv_heads, d]
            q = g.op("Reshape", q, g.constant(1, -1, c.kv_heads * c.dim_head))
        block = g.constant(c.layers.index(layer))
        memory = g.op("Gather", self.memory, block, axis=0)  # [1, 2, heads, N * L, d]
        key = g.op("Gather", memory, g.weight("const.key", np.array(0)), axis=1)
        value = g.op("Gather", memory, g.weight("const.value", np.array(1)), axis=1)
        h = g.op(
            "MultiHeadAttention",
            *(q, key, value, None, None, self.bias),
            domain=CONTRIB,
            num_heads=c.kv_heads,
        )
        if groups > 1:
            h = g.op("Reshape", h, g.constant(1, groups, -1, c.kv_heads, c.dim_head))
            h = g.op("Transpose", h, perm=[0, 2, 3, 1, 4])  # [1, T, kv_heads, G, d]
            h = g.op("Reshape", h, g.constant(1, -1, c.heads * c.dim_head))
        return g.op("Mul", h, self.row_mask)

    def gated_matrix(self, name: str, linear: str, gate: str) -> np.ndarray:
        """The last matrix of a branch with its gate, of one value or one a row, multiplied in."""
        gates = np.tanh(self.array(f"{name}.{gate}"))
        return self.array(f"{name}.{linear}.weight") * gates[:, None]
