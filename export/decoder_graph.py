"""decoder.onnx: tokens + visual memory + KV cache -> logits + KV cache.

Contract: one graph serves prefill, decode and scoring, with and without images. Inputs:

    input_ids       int64 [1, T]
    image_index     int32 [1, T]      0 where a token sees no image, else counted in visual_memory:
                                      of gated blocks the image, of spliced tokens the visual token
    first_image     int32 [1, T]      likewise the first image that a token sees, image_index being
                                      the last; only where it may see several
    conditioned     bool  []          the conversation has an image: the gated blocks run; a graph
                                      without blocks that wait for one has no such input
    visual_memory   float32           only images that some token here sees: of gated blocks
                                      [blocks, 2, kv_heads, N * L, d], of spliced tokens [N * L, D];
                                      keys of zeros are no tokens (tiles that are not filled)
    past_length     int32 [1]         tokens already in the KV cache
    logits_from     int64 [1]         first position of input_ids whose logits are wanted
    past.{i}.key/value   [1, kv_heads, capacity, head_dim], of the activations' type or int8

Outputs: float32 `logits [1, T - logits_from, vocab]` and `present.{i}.key/value`, which the caller
binds to the same buffers as `past`. Under a rule where no token of a run sees an image (any decode
step of `following`) the cross-attention is not computed at all, only the gated feed-forward.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from export.graph import BLOCKED, BOOL, CONTRIB, FLOAT16, INT32, INT64, Graph
from export.heads import pad_heads, padded_head_dim, rotary_tables
from export.vision_graph import EPSILON
from lite.bundle.attend import NEIGHBOURS
from qlora.checkpoints.sources import TensorSource
from qlora.model.config import ModelConfig
from qlora.model.encoders.tiled import TiledEncoder
from qlora.model.injection.gated import Gated
from qlora.model.injection.gated_llama import GatedLlama


class DecoderGraph:
    """Writes the decoder graph of one model, layer by layer."""

    def __init__(self, graph: Graph, config: ModelConfig, weights: TensorSource) -> None:
        self.g = graph
        self.config = config
        self.llama = config.llama
        self.weights = weights
        self.head_dim = padded_head_dim(config.llama.head_dim)
        injection = config.injection  # query heads of a gated block that share keys and values
        self.groups = injection.heads // injection.kv_heads if injection.layers else 1

    def build(self) -> None:
        g, c, llama = self.g, self.config, self.llama
        ids = g.input("input_ids", INT64, [1, "T"])
        self.image_index = self.first_image = g.input("image_index", INT32, [1, "T"])
        if c.attend == NEIGHBOURS:
            self.first_image = g.input("first_image", INT32, [1, "T"])
        gated, shape = c.injection.layers, ["N_L", llama.hidden_size]
        if gated:
            shape = [len(gated), 2, c.injection.kv_heads, "N_L", c.injection.dim_head]
        if isinstance(c.injection, Gated):
            self.conditioned = g.input("conditioned", BOOL, [])
        self.memory = g.real_input("visual_memory", shape)
        self.past_length = g.input("past_length", INT32, [1])
        logits_from = g.input("logits_from", INT64, [1])
        self._prepare(ids)
        x, delta = self._embed(ids) if gated else self._spliced(ids), None
        for i in range(llama.num_hidden_layers):
            if i in gated:
                x, delta = self._gated_block(self._settle(x, delta), i), None
            x, delta = self._decoder_layer(x, delta, i)
        h, _ = self._norm(x, delta, "lang_encoder.model.norm.weight")
        h = g.op("Slice", h, logits_from, g.constant(2**31), g.constant(1))
        # As it is stored: Llama 3's has 128,256 rows, 2.1 GB in float32.
        head = ir.tensor_adapters.TorchTensor(self.weights["lang_encoder.lm_head.weight"]).numpy()
        logits = g.linear(h, "lang_encoder.lm_head", head, role="lm_head")
        g.real_output(logits, "logits", [1, "L", llama.vocab_size])

    def _array(self, name: str) -> np.ndarray:
        return self.weights[name].float().numpy()

    # what all layers share

    def _prepare(self, ids: ir.Value) -> None:
        g, c = self.g, self.config
        length = g.op("Cast", g.op("Shape", ids, start=1, end=2), to=int(INT32))
        one = g.weight("const.one", np.array([1], dtype=np.int32))
        total = g.op("Add", self.past_length, length)
        self.last_position = g.op("Sub", total, one)  # GroupQueryAttention's seqlens_k
        self.total_length = g.op("Squeeze", total)
        cos, sin = rotary_tables(c)
        self.cos, self.sin = g.weight("rotary.cos", cos), g.weight("rotary.sin", sin)

        zero = g.weight("const.zero", np.array(0, dtype=np.int32))
        sees = g.op("Greater", self.image_index, zero)  # [1, T]
        most = g.op("ReduceMax", self.image_index, keepdims=0)
        self.sees, self.attends = sees, g.op("Greater", most, zero)
        if c.injection.layers:
            self.row_mask = g.op("Unsqueeze", g.op("Cast", sees, to=int(g.real)), g.constant(2))
            self.bias = self._attention_bias()

    def _attention_bias(self) -> ir.Value:
        """`[1, 1, T, N * L]`: 0 where the token may see the image, `BLOCKED` elsewhere.

        With grouped queries `[1, 1, G * T, N * L]`, see `_attend`.
        """
        g = self.g
        columns = g.op("Squeeze", g.op("Shape", self.memory, start=3, end=4))
        first = g.weight("const.first", np.array(0, dtype=np.int64))
        step = g.weight("const.step", np.array(1, dtype=np.int64))
        latents = g.weight("const.latents", np.array(self.config.latents, dtype=np.int64))
        owner = g.op("Div", g.op("Range", first, columns, step), latents)
        owner = g.op("Cast", g.op("Add", owner, step), to=int(INT32))  # [N * L], from 1
        last = g.op("Unsqueeze", self.image_index, g.constant(1, 3))  # [1, 1, T, 1]
        allowed = g.op("Equal", last, owner)
        if self.first_image is not self.image_index:
            first_seen = g.op("Unsqueeze", self.first_image, g.constant(1, 3))
            allowed = g.op("LessOrEqual", first_seen, owner)
            allowed = g.op("And", allowed, g.op("GreaterOrEqual", last, owner))
        if isinstance(self.config.encoder, TiledEncoder):
            allowed = g.op("And", allowed, self._tokens_there())
        if self.groups > 1:
            allowed = g.op("Concat", *[allowed] * self.groups, axis=2)
        return g.op(
            "Where",
            allowed,
            g.weight("const.open", np.array(0, dtype=np.float32)),
            g.weight("const.blocked", np.array(BLOCKED)),
        )

    def _tokens_there(self) -> ir.Value:
        """bool `[N * L]`: the first block's first key of the visual token is not zero."""
        g, first = self.g, self.g.weight("const.first", np.array(0, dtype=np.int64))
        keys = self.memory
        for _ in range(3):  # block, keys, head
            keys = g.op("Gather", keys, first, axis=0)
        size = g.op("ReduceL1", keys, g.constant(1), keepdims=0)
        return g.op("Greater", size, g.weight("const.open", np.array(0, dtype=np.float32)))

    def _embed(self, ids: ir.Value) -> ir.Value:
        name = "lang_encoder.model.embed_tokens.weight"
        # Half the size, and exact for LLaMA's own rows, which were published in fp16.
        kind = torch.float16 if self.g.precision.bits < 32 else torch.float32
        table = self.weights[name].to(kind).numpy()
        rows = self.g.op("Gather", self.g.weight(name, table), ids)
        same = self.g.real == FLOAT16 or table.dtype == np.float32
        return rows if same else self.g.op("Cast", rows, to=int(self.g.real))

    def _spliced(self, ids: ir.Value) -> ir.Value:
        """Embeddings `[1, T, D]` of text, and visual tokens in the places of `<image>`."""
        g = self.g
        # `<image>` has no row of its own.
        x = self._embed(
            g.op("Where", self.sees, g.weight("const.first", np.array(0, dtype=np.int64)), ids)
        )

        def spliced() -> ir.Value:
            one = g.weight("const.one", np.array([1], dtype=np.int32))
            floor = g.weight("const.none", np.array([0], dtype=np.int32))
            rows = g.op("Max", g.op("Sub", self.image_index, one), floor)
            mask = g.op("Unsqueeze", self.sees, g.constant(2))
            return g.op("Where", mask, g.op("Gather", self.memory, rows, axis=0), x)

        return g.either(self.attends, spliced, lambda: x)

    # residual stream: a layer hands its last addition to the next norm, which fuses the two

    def _settle(self, x: ir.Value, delta: ir.Value | None) -> ir.Value:
        return x if delta is None else self.g.op("Add", x, delta)

    def _norm(self, x: ir.Value, delta: ir.Value | None, name: str) -> tuple[ir.Value, ir.Value]:
        """RMSNorm of x + delta; returns (normed, x + delta)."""
        scale = self.g.weight(name, self._array(name))
        epsilon = self.llama.rms_norm_eps
        if delta is None:
            normed = self.g.op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=epsilon)
            return normed, x
        normed, _, _, total = self.g.op(
            "SkipSimplifiedLayerNormalization",
            x,
            delta,
            scale,
            outputs=4,
            domain=CONTRIB,
            epsilon=epsilon,
        )
        return normed, total

    # LLaMA

    def _decoder_layer(
        self, x: ir.Value, delta: ir.Value | None, i: int
    ) -> tuple[ir.Value, ir.Value]:
        name = f"lang_encoder.model.layers.{i}.decoder_layer"
        h, x = self._norm(x, delta, f"{name}.input_layernorm.weight")
        delta = self._self_attention(h, f"{name}.self_attn", i)
        h, x = self._norm(x, delta, f"{name}.post_attention_layernorm.weight")
        return x, self._mlp(h, f"{name}.mlp")

    def _self_attention(self, h: ir.Value, name: str, i: int) -> ir.Value:
        g, llama = self.g, self.llama
        heads, kv_heads = llama.num_attention_heads, llama.num_key_value_heads
        q = pad_heads(self._array(f"{name}.q_proj.weight"), heads, halves=True)
        k = pad_heads(self._array(f"{name}.k_proj.weight"), kv_heads, halves=True)
        v = pad_heads(self._array(f"{name}.v_proj.weight"), kv_heads, halves=False)
        qkv = g.linear(h, f"{name}.qkv_proj", np.concatenate((q, k, v)))
        shape = [1, kv_heads, "capacity", self.head_dim]
        past = [g.input(f"past.{i}.{part}", g.real, shape) for part in ("key", "value")]
        h, key, value = g.op(
            "GroupQueryAttention",
            qkv,
            None,
            None,
            *past,
            self.last_position,
            self.total_length,
            self.cos,
            self.sin,
            outputs=3,
            domain=CONTRIB,
            num_heads=heads,
            kv_num_heads=kv_heads,
            do_rotary=1,
            scale=float(llama.head_dim**-0.5),
        )
        g.output(key, f"present.{i}.key", g.real, shape)
        g.output(value, f"present.{i}.value", g.real, shape)
        out = self._array(f"{name}.o_proj.weight")
        return g.linear(h, f"{name}.o_proj", pad_heads(out.T, heads, halves=False).T)

    def _mlp(self, h: ir.Value, name: str, down: np.ndarray | None = None) -> ir.Value:
        """SwiGLU; `down` replaces the matrix of `down_proj`."""
        g = self.g
        gate = g.linear(h, f"{name}.gate_proj", self._array(f"{name}.gate_proj.weight"))
        up = g.linear(h, f"{name}.up_proj", self._array(f"{name}.up_proj.weight"))
        # SiLU is QuickGelu with alpha 1: one fused node instead of two.
        h = g.op("Mul", g.op("QuickGelu", gate, domain=CONTRIB, alpha=1.0), up)
        down = self._array(f"{name}.down_proj.weight") if down is None else down
        return g.linear(h, f"{name}.down_proj", down, role="down_proj")

    # gated cross-attention

    def _gated_block(self, x: ir.Value, layer: int) -> ir.Value:
        g, injection = self.g, self.config.injection
        name = f"lang_encoder.model.layers.{layer}.gated_cross_attn_layer"
        block = injection.layers.index(layer)
        like_llama = isinstance(injection, GatedLlama)

        def seeing() -> ir.Value:
            if like_llama:
                return g.op("Add", x, self._llama_cross_attention(x, name, block))
            return g.op("Add", x, self._cross_attention(x, name, block))

        def run() -> ir.Value:
            h = g.either(self.attends, seeing, lambda: x)
            feed = self._llama_feed_forward if like_llama else self._feed_forward
            return g.op("Add", h, feed(h, name))

        def run_where_seeing() -> ir.Value:
            h = seeing()
            fed = g.op("Mul", self._llama_feed_forward(h, name), self.row_mask)
            return g.op("Add", h, fed)

        if not like_llama:
            return g.either(self.conditioned, run, lambda: x)
        assert isinstance(injection, GatedLlama)
        return run() if injection.always else g.either(self.attends, run_where_seeing, lambda: x)

    def _cross_attention(self, x: ir.Value, name: str, block: int) -> ir.Value:
        g = self.g
        q = g.linear(
            self._layer_norm(x, f"{name}.attn.norm"),
            f"{name}.attn.to_q",
            self._array(f"{name}.attn.to_q.weight"),
            role="cross_attention",
        )
        return g.linear(
            self._attend(q, block),
            f"{name}.attn.to_out",
            self._gated(name, "attn.to_out", "attn_gate"),
            role="cross_attention",
        )

    def _llama_cross_attention(self, x: ir.Value, name: str, block: int) -> ir.Value:
        g, injection = self.g, self.config.injection
        assert isinstance(injection, GatedLlama)
        h, _ = self._norm(x, None, f"{name}.input_layernorm.weight")
        weight = self._array(f"{name}.q_proj.weight")
        q = g.linear(h, f"{name}.q_proj", weight, role="cross_attention")
        if injection.head_norms:
            q = g.op("Reshape", q, g.constant(0, 0, injection.heads, -1))
            q, _ = self._norm(q, None, f"{name}.q_norm.weight")
            q = g.op("Reshape", q, g.constant(0, 0, -1))
        out = self._gated(name, "o_proj", "attn_gate")
        return g.linear(self._attend(q, block), f"{name}.o_proj", out, role="cross_attention")

    def _llama_feed_forward(self, x: ir.Value, name: str) -> ir.Value:
        h, _ = self._norm(x, None, f"{name}.post_attention_layernorm.weight")
        return self._mlp(h, name, self._gated(name, "down_proj", "ff_gate"))

    def _attend(self, q: ir.Value, block: int) -> ir.Value:
        """Attention of `q [1, T, heads * d]` to the visual memory of one block.

        Heads that share keys and values are put one after the other as so many rows of queries.
        """
        g, c = self.g, self.config.injection
        if self.groups > 1:
            q = g.op("Reshape", q, g.constant(0, 0, c.kv_heads, self.groups, c.dim_head))
            q = g.op("Transpose", q, perm=[0, 3, 1, 2, 4])  # [1, G, T, kv_heads, d]
            q = g.op("Reshape", q, g.constant(1, -1, c.kv_heads * c.dim_head))
        memory = g.op("Gather", self.memory, g.constant(block), axis=0)  # [1, 2, heads, N * L, d]
        key = g.op("Gather", memory, g.weight("const.key", np.array(0)), axis=1)
        value = g.op("Gather", memory, g.weight("const.value", np.array(1)), axis=1)
        h = g.op(
            "MultiHeadAttention",
            q,
            key,
            value,
            None,
            None,
            self.bias,
            domain=CONTRIB,
            num_heads=c.kv_heads,
        )
        if self.groups > 1:
            h = g.op("Reshape", h, g.constant(1, self.groups, -1, c.kv_heads, c.dim_head))
            h = g.op("Transpose", h, perm=[0, 2, 3, 1, 4])
            h = g.op("Reshape", h, g.constant(1, -1, c.heads * c.dim_head))
        return g.op("Mul", h, self.row_mask)

    def _feed_forward(self, x: ir.Value, name: str) -> ir.Value:
        g = self.g
        h = self._layer_norm(x, f"{name}.ff.0")
        h = g.linear(h, f"{name}.ff.1", self._array(f"{name}.ff.1.weight"))
        h = g.op("Gelu", h, domain=CONTRIB)
        return g.linear(h, f"{name}.ff.3", self._gated(name, "ff.3", "ff_gate"))

    def _gated(self, name: str, linear: str, gate: str) -> np.ndarray:
        """The last matrix of a branch with its gate, of one value or one a row, multiplied in."""
        return (
            self._array(f"{name}.{linear}.weight") * np.tanh(self._array(f"{name}.{gate}"))[:, None]
        )

    def _layer_norm(self, x: ir.Value, name: str) -> ir.Value:
        scale = self.g.weight(f"{name}.weight", self._array(f"{name}.weight"))
        bias = self.g.weight(f"{name}.bias", self._array(f"{name}.bias"))
        return self.g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=EPSILON)
