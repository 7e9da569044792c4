"""Llama-3.2-Vision's tower in the vision graph.

Contract: equals `qlora.model.encoders.tiled.TiledEncoder.encode`. Layouts of tiles are known when
the graph is written, so whatever depends on them alone is a table with a row for each: which part
of the pixels a tile is, its positions, and which tokens do not attend to each other.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.graph import BLOCKED, CONTRIB, INT64, Graph
from export.part_writer import EPSILON, PartWriter
from lite.image.tiles import layouts
from qlora.checkpoints.sources import TensorSource
from qlora.model.encoders.tiled import TiledEncoder

# Tokens of a tile are padded to a multiple of it.
MULTIPLE = 8


class TiledWriter(PartWriter):
    """Writes the tower of one model."""

    def __init__(self, graph: Graph, encoder: TiledEncoder, weights: TensorSource) -> None:
        super().__init__(graph, weights)
        self.vision = encoder.vision
        self.tiles, self.tokens = encoder.vision.max_num_tiles, encoder.tile_tokens
        self.padded = -(-self.tokens // MULTIPLE) * MULTIPLE
        self.shapes = layouts(self.tiles)
        self.used = np.array([rows * columns for rows, columns in self.shapes])
        self.filled = np.arange(self.tiles) < self.used[:, None]  # [layouts, tiles]

    def encode(self, pixels: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Tokens `[n, L, width]` of `pixels [n, 3, S, S]`, and 1 or 0 for each: `[n, L, 1]`."""
        g, width = self.g, self.vision.hidden_size
        number = self._layout(pixels)  # [n], from 0
        x = self._embed(self._split(pixels, number), number)
        bias = self._bias(number)
        x = g.op("Reshape", x, g.constant(0, -1, width))
        between = []
        for i in range(self.vision.num_hidden_layers):
            x = self._layer(x, f"transformer.layers.{i}", bias)
            between.append(x)
        # Outside the transformers the norms have torch's own epsilon.
        x = g.op("Reshape", self.layer_norm(x, "layernorm_post", EPSILON), self._by_tile(width))
        x = g.op("Add", x, self._tile_rows("post_tile_positional_embedding", number))
        x = g.op("Reshape", x, g.constant(0, -1, width))
        for i in range(self.vision.num_global_layers):
            x = self._layer(x, f"global_transformer.layers.{i}", bias, gated=True)
        tokens = g.op("Concat", x, self._interleaved(between), axis=2)
        tokens = g.op("Reshape", tokens, self._by_tile(self.vision.vision_output_dim))
        tokens = g.op("Slice", tokens, g.constant(0), g.constant(self.tokens), g.constant(2))
        mask = np.repeat(self.filled, self.tokens, axis=1)[..., None].astype(np.float32)
        filled = g.op("Gather", g.weight("tiles.filled", mask), number, axis=0)
        return g.op("Reshape", tokens, g.constant(0, -1, self.vision.vision_output_dim)), filled

    def array(self, name: str) -> np.ndarray:
        """A tensor of the tower in float32."""
        return super().array(f"vision_encoder.{name}")

    def _by_tile(self, width: int) -> ir.Value:
        return self.g.constant(0, self.tiles, self.padded, width)

    # from pixels to tiles

    def _layout(self, pixels: ir.Value) -> ir.Value:
        """Number of each image's layout, from 0: tiles that are not there are NaN."""
        g, size, most = self.g, self.vision.image_size, self.tiles
        starts = g.constant(*range(0, size * most, size))
        first = g.weight("const.first", np.array(0, dtype=np.int64))
        counts = []
        for axis in (2, 3):
            line = g.op("Gather", pixels, starts, axis=axis)
            line = g.op("Gather", g.op("Gather", line, first, axis=5 - axis), first, axis=1)
            present = g.op("Cast", g.op("Not", g.op("IsNaN", line)), to=int(INT64))  # [n, most]
            counts.append(g.op("ReduceSum", present, g.constant(1), keepdims=0))
        table = np.zeros((most + 1) ** 2, dtype=np.int64)
        for number, (rows, columns) in enumerate(self.shapes):
            table[rows * (most + 1) + columns] = number
        step = g.weight("tiles.step", np.array(most + 1, dtype=np.int64))
        place = g.op("Add", g.op("Mul", counts[0], step), counts[1])
        return g.op("Gather", g.weight("tiles.numbers", table), place, axis=0)

    def _split(self, pixels: ir.Value, number: ir.Value) -> ir.Value:
        """Tiles `[n * tiles, 3, s, s]` row by row, zeros where there is none."""
        g, size, most = self.g, self.vision.image_size, self.tiles
        pixels = g.op(
            "Where",
            g.op("IsNaN", pixels),
            g.weight("tiles.zero", np.array(0, dtype=np.float32)),
            pixels,
        )
        grid = g.op("Reshape", pixels, g.constant(0, 3, most, size, most, size))
        grid = g.op("Transpose", grid, perm=[0, 2, 4, 1, 3, 5])
        grid = g.op("Reshape", grid, g.constant(0, most * most, -1))  # [n, places, 3 * s * s]
        places = np.full((len(self.shapes), most), most * most - 1)  # a corner that is never filled
        for row, (rows, columns) in zip(places, self.shapes, strict=True):
            row[: rows * columns] = [r * most + c for r in range(rows) for c in range(columns)]
        index = g.op("Gather", g.weight("tiles.places", places), number, axis=0)
        index = g.op("Unsqueeze", index, g.constant(2))
        shape = g.op(
            "Concat", g.op("Shape", index, start=0, end=2), g.constant(3 * size**2), axis=0
        )
        tiles = g.op("GatherElements", grid, g.op("Expand", index, shape), axis=1)
        return g.op("Reshape", tiles, g.constant(-1, 3, size, size))

    def _embed(self, tiles: ir.Value, number: ir.Value) -> ir.Value:
        """Patches, class tokens and positions: `[n, tiles, padded, W]`."""
        g, width, patch = self.g, self.vision.hidden_size, self.vision.patch_size
        kernel = self.parameter("patch_embedding.weight")
        x = g.op("Conv", tiles, kernel, strides=[patch, patch])
        x = g.op("Reshape", x, g.constant(0, 0, -1))
        x = g.op("Transpose", x, perm=[0, 2, 1])
        x = g.op("Reshape", x, g.constant(-1, self.tiles, self.tokens - 1, width))
        x = g.op("Add", x, self._tile_rows("pre_tile_positional_embedding", number))
        one = self.array("class_embedding")[None, None, None]
        shape = g.op("Concat", g.op("Shape", x, start=0, end=2), g.constant(1, 1), axis=0)
        x = g.op("Concat", g.op("Expand", g.weight("class_embedding", one), shape), x, axis=2)
        x = self.layer_norm(g.op("Add", x, self._positions(number)), "layernorm_pre", EPSILON)
        return g.op("Pad", x, g.constant(0, 0, 0, 0, 0, 0, self.padded - self.tokens, 0))

    def _positions(self, number: ir.Value) -> ir.Value:
        """Of each token in its tile, and of the tile in the layout: `[n, tiles, tokens, W]`."""
        name = "gated_positional_embedding"
        gate = np.tanh(self.array(f"{name}.gate"))
        table = self.array(f"{name}.tile_embedding.weight")[1:]  # 0 is for no image
        table = table.reshape(-1, self.tiles, self.tokens, self.vision.hidden_size)
        table = gate * table + (1 - gate) * self.array(f"{name}.embedding")
        return self.g.op("Gather", self.g.weight("tiles.positions", table), number, axis=0)

    def _tile_rows(self, name: str, number: ir.Value) -> ir.Value:
        """One embedding for each tile: `[n, tiles, 1, W]`."""
        table = self.array(f"{name}.embedding.weight")[1:] * np.tanh(self.array(f"{name}.gate"))
        table = table.reshape(-1, self.tiles, 1, self.vision.hidden_size)
        return self.g.op("Gather", self.g.weight(f"tiles.{name}", table), number, axis=0)

    def _bias(self, number: ir.Value) -> ir.Value:
        """`[n, 1, T, T]`: padding, and tokens of tiles that are not filled, do not attend to
        each other, but to all real tokens."""
        g = self.g
        real = np.zeros((len(self.shapes), self.tiles, self.padded), dtype=bool)
        real[:, :, : self.tokens] = self.filled[..., None]
        real = real.reshape(len(real), 1, -1)
        real_tokens = g.op("Gather", g.weight("tiles.real", real), number, axis=0)  # [n, 1, T]
        rows, columns = (g.op("Unsqueeze", real_tokens, g.constant(axis)) for axis in (3, 2))
        return g.op(
            "Where",
            g.op("Or", rows, columns),
            g.weight("tiles.zero", np.array(0, dtype=np.float32)),
            g.weight("tiles.blocked", np.array(BLOCKED)),
        )

    # the transformers

    def _layer(self, x: ir.Value, name: str, bias: ir.Value, gated: bool = False) -> ir.Value:
        g, epsilon = self.g, self.vision.norm_eps
        gates = [np.tanh(self.array(f"{name}.{n}")) for n in ("gate_attn", "gate_ffn") if gated]
        attention, feed = gates or (1, 1)
        h = self.layer_norm(x, f"{name}.input_layernorm", epsilon)
        parts = [self.array(f"{name}.self_attn.{part}_proj.weight") for part in "qkv"]
        qkv = g.linear(h, f"{name}.self_attn.qkv_proj", np.concatenate(parts))
        q, k, v = g.op("Split", qkv, axis=-1, num_outputs=3, outputs=3)
        h = g.op(
            "MultiHeadAttention",
            *(q, k, v, None, None, bias),
            domain=CONTRIB,
            num_heads=self.vision.attention_heads,
        )
        out = self.array(f"{name}.self_attn.o_proj.weight") * attention
        x = g.op("Add", x, g.linear(h, f"{name}.self_attn.o_proj", out))
        h = self.layer_norm(x, f"{name}.post_attention_layernorm", epsilon)
        weight, one = self.array(f"{name}.mlp.fc1.weight"), self.array(f"{name}.mlp.fc1.bias")
        h = g.op("Gelu", g.linear(h, f"{name}.mlp.fc1", weight, one), domain=CONTRIB)
        weight, two = (self.array(f"{name}.mlp.fc2.{n}") * feed for n in ("weight", "bias"))
        return g.op("Add", x, g.linear(h, f"{name}.mlp.fc2", weight, two))

    def _interleaved(self, outputs: list[ir.Value]) -> ir.Value:
        """The same feature of all chosen layers side by side, `[n, T, W * layers]`."""
        g = self.g
        chosen = self.vision.intermediate_layers_indices
        stacked = [g.op("Unsqueeze", outputs[i], g.constant(3)) for i in chosen]
        return g.op("Reshape", g.op("Concat", *stacked, axis=3), g.constant(0, 0, -1))
