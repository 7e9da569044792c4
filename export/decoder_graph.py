"""decoder.onnx: tokens + visual memory + KV cache -> logits + KV cache.

Contract: one graph serves prefill, decode and scoring, with and without images. Inputs:

    input_ids       int64 [1, T]
    image_index     int32 [1, T]      0 where a token attends to no image, else counted in
                                      visual_memory: of gated blocks the image, of spliced tokens
                                      the visual token
    first_image     int32 [1, T]      likewise the first image that a token attends to, image_index
                                      being the last; only where it may attend to several
    conditioned     bool  []          the conversation has an image: the gated blocks run; a graph
                                      without blocks that wait for one has no such input
    visual_memory   float32           only images that some token here attends to: of gated blocks
                                      [blocks, 2, kv_heads, N * L, d], of spliced tokens [N * L, D];
                                      keys of zeros are no tokens (tiles that are not filled)
    past_length     int32 [1]         tokens already in the KV cache
    logits_from     int64 [1]         first position of input_ids whose logits are wanted
    past.{i}.key/value   [1, kv_heads, capacity, head_dim], of the activations' type or int8

Outputs: float32 `logits [1, T - logits_from, vocab]` and `present.{i}.key/value`, which the caller
binds to the same buffers as `past`. Under a rule where no token of a run attends to an image (any
decode step of `following`) the cross-attention is not computed at all, only the gated feed-forward.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from export.graph import CONTRIB, FLOAT16, INT32, INT64, Graph
from export.heads import pad_heads, padded_head_dim, rotary_tables
from export.injections.base import AttendedImages
from export.part_writer import PartWriter
from export.parts import INJECTIONS
from lite.bundle.attend import NEIGHBOURS
from qlora.checkpoints.sources import TensorSource
from qlora.model.config import ModelConfig


class DecoderGraph(PartWriter):
    """Writes the decoder graph of one model, layer by layer."""

    def __init__(self, graph: Graph, config: ModelConfig, weights: TensorSource) -> None:
        super().__init__(graph, weights)
        self.config, self.llama = config, config.llama
        self.head_dim = padded_head_dim(config.llama.head_dim)
        self.injection = INJECTIONS[type(config.injection)](graph, config, weights)

    def build(self) -> None:
        """Inputs, what all layers share, embedding, layers, head."""
        g, llama, injection = self.g, self.llama, self.injection
        ids = g.input("input_ids", INT64, [1, "T"])
        last = first = g.input("image_index", INT32, [1, "T"])
        if self.config.attend == NEIGHBOURS:
            first = g.input("first_image", INT32, [1, "T"])
        injection.declare()
        past_length = g.input("past_length", INT32, [1])
        logits_from = g.input("logits_from", INT64, [1])
        self._prepare(ids, past_length)
        injection.prepare(self._attended_images(last, first))

        x, delta = injection.embed(ids, self._embed), None
        for i in range(llama.num_hidden_layers):
            if i in self.config.injection.layers:
                x, delta = injection.block(self._settle(x, delta), i), None
            x, delta = self._decoder_layer(x, delta, i)

        h, _ = self._norm(x, delta, "lang_encoder.model.norm.weight")
        h = g.op("Slice", h, logits_from, g.constant(2**31), g.constant(1))
        # As it is stored: Llama 3's has 128,256 rows, 2.1 GB in float32.
        head = ir.tensor_adapters.TorchTensor(self.weights["lang_encoder.lm_head.weight"]).numpy()
        logits = g.linear(h, "lang_encoder.lm_head", head, role="lm_head")
        g.real_output(logits, "logits", [1, "L", llama.vocab_size])

    # what all layers share

    def _prepare(self, ids: ir.Value, past_length: ir.Value) -> None:
        g = self.g
        length = g.op("Cast", g.op("Shape", ids, start=1, end=2), to=int(INT32))
        one = g.weight("const.one", np.array([1], dtype=np.int32))
        total = g.op("Add", past_length, length)
        self.last_position = g.op("Sub", total, one)  # GroupQueryAttention's seqlens_k
        self.total_length = g.op("Squeeze", total)
        cos, sin = rotary_tables(self.config)
        self.cos, self.sin = g.weight("rotary.cos", cos), g.weight("rotary.sin", sin)

    def _attended_images(self, last: ir.Value, first: ir.Value) -> AttendedImages:
        g, zero = self.g, self.g.weight("const.zero", np.array(0, dtype=np.int32))
        some = g.op("Greater", last, zero)  # [1, T]
        most = g.op("ReduceMax", last, keepdims=0)
        return AttendedImages(last, first, some, g.op("Greater", most, zero))

    def _embed(self, ids: ir.Value) -> ir.Value:
        name = "lang_encoder.model.embed_tokens.weight"
        # Half the size, and exact for LLaMA's own rows, which were published in fp16.
        kind = torch.float16 if self.g.precision.bits < 32 else torch.float32
        table = self.weights[name].to(kind).numpy()
        rows = self.g.op("Gather", self.g.weight(name, table), ids)
        same = self.g.real == FLOAT16 or table.dtype == np.float32
        return rows if same else self.g.op("Cast", rows, to=int(self.g.real))

    # residual stream: a layer hands its last addition to the next norm, which fuses the two

    def _settle(self, x: ir.Value, delta: ir.Value | None) -> ir.Value:
        return x if delta is None else self.g.op("Add", x, delta)

    def _norm(self, x: ir.Value, delta: ir.Value | None, name: str) -> tuple[ir.Value, ir.Value]:
        """RMSNorm of x + delta; returns (normed, x + delta)."""
        scale = self.parameter(name)
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
        return x, self.swiglu(h, f"{name}.mlp")

    def _self_attention(self, h: ir.Value, name: str, i: int) -> ir.Value:
        g, llama = self.g, self.llama
        heads, kv_heads = llama.num_attention_heads, llama.num_key_value_heads
        q = pad_heads(self.array(f"{name}.q_proj.weight"), heads, halves=True)
        k = pad_heads(self.array(f"{name}.k_proj.weight"), kv_heads, halves=True)
        v = pad_heads(self.array(f"{name}.v_proj.weight"), kv_heads, halves=False)
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
        out = self.array(f"{name}.o_proj.weight")
        return g.linear(h, f"{name}.o_proj", pad_heads(out.T, heads, halves=False).T)
