"""The sizes of a model as plain numbers, and what follows from them: parameters and operations.

Contract: pure arithmetic; nothing is downloaded, and no tensor is made. Counts of parameters equal
those of the model that `qlora.model` builds from the same sizes, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from qlora.model.adapters import check_targets
from qlora.model.config import ModelConfig
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.encoders.tiled import TiledEncoder
from qlora.model.injection.gated_llama import GatedLlama
from qlora.model.parts import EncoderConfig, InjectionConfig
from qlora.plan.connectors import Connector, operations, parameters

# Forward, again in the backward pass (checkpointing), and the gradient of the input.
PASSES = 3
# Matrices that are applied to visual tokens and not to text.
_OF_IMAGES = ("to_kv", "gated_cross_attn_layer.k_proj", "gated_cross_attn_layer.v_proj")


@dataclass(frozen=True)
class Shapes:
    """Sizes of every part; see `qlora.model.config.ModelConfig` for the fields' meaning.

    Attributes:
        gated: the injection, with its gated blocks.
        vision: parameters of the vision encoder.
        patches: tokens of one image that the connector gets.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    embedding_rows: int
    gated: InjectionConfig
    connector: Connector
    vision: int
    patches: int

    @classmethod
    def of(cls, config: ModelConfig) -> Shapes:
        """The shapes of a model whose checkpoints were read."""
        llama, encoder = config.llama, config.encoder
        return cls(
            hidden=llama.hidden_size,
            layers=llama.num_hidden_layers,
            heads=llama.num_attention_heads,
            kv_heads=llama.num_key_value_heads,
            feed_forward=llama.intermediate_size,
            vocabulary=llama.vocab_size,
            embedding_rows=config.embedding_rows,
            gated=config.injection,
            connector=config.connector,
            vision=encoder_parameters(encoder),
            patches=encoder.tokens,
        )

    @property
    def gated_layers(self) -> tuple[int, ...]:
        """Decoder layers that have a gated block before them."""
        return self.gated.layers

    @property
    def dim_visual(self) -> int:
        """Width of a visual token."""
        return self.connector.width

    @property
    def latents(self) -> int:
        """Visual tokens of one image."""
        return self.connector.latents

    def linears(self) -> dict[str, tuple[int, int]]:
        """Path inside the language model -> `(out, in)` of each matrix that is held in 4 bits."""
        hidden, wide = self.hidden, self.feed_forward
        keys = hidden // self.heads * self.kv_heads
        inner, shared = (
            self.gated.dim_head * heads for heads in (self.gated.heads, self.gated.kv_heads)
        )
        decoder = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (wide, hidden),
            "mlp.up_proj": (wide, hidden),
            "mlp.down_proj": (hidden, wide),
        }
        gated = {
            "attn.to_q": (inner, hidden),
            "attn.to_kv": (2 * inner, self.dim_visual),
            "attn.to_out": (hidden, inner),
            "ff.1": (4 * hidden, hidden),
            "ff.3": (hidden, 4 * hidden),
        }
        if isinstance(self.gated, GatedLlama):
            gated = {
                "q_proj": (inner, hidden),
                "k_proj": (shared, self.dim_visual),
                "v_proj": (shared, self.dim_visual),
                "o_proj": (hidden, inner),
                "gate_proj": (self.gated.inner, hidden),
                "up_proj": (self.gated.inner, hidden),
                "down_proj": (hidden, self.gated.inner),
            }
        found: dict[str, tuple[int, int]] = {}
        for i in range(self.layers):
            layer = f"model.layers.{i}"
            if i in self.gated_layers:
                found |= {f"{layer}.gated_cross_attn_layer.{n}": s for n, s in gated.items()}
            found |= {f"{layer}.decoder_layer.{n}": s for n, s in decoder.items()}
        return found

    @property
    def matrices(self) -> int:
        """Parameters in `linears`."""
        return sum(map(math.prod, self.linears().values()))

    @property
    def gated_matrices(self) -> int:
        """Those of them that lie in gated blocks."""
        linears = self.linears().items()
        return sum(math.prod(shape) for path, shape in linears if "gated" in path)

    @property
    def rest(self) -> int:
        """Parameters that stay out of 4 bits: embeddings, head, norms, gates and all of vision."""
        embeddings = (self.embedding_rows + self.vocabulary) * self.hidden
        norms = (2 * self.layers + 1) * self.hidden
        # Of each block two norms, and of OpenFlamingo's their biases; and two gates.
        block = 4 * self.hidden + 2
        if isinstance(self.gated, GatedLlama):
            heads = 2 * self.gated.dim_head * self.gated.head_norms
            block = 2 * self.hidden + heads + 2 * self.gated.gates
        gated = len(self.gated_layers) * block
        return embeddings + norms + gated + parameters(self.connector) + self.vision

    @property
    def total(self) -> int:
        return self.matrices + self.rest

    def adapted(self, targets: Sequence[str] | str) -> dict[str, tuple[int, int]]:
        """The part of `linears` that gets adapters, by the rules of peft.

        Raises:
            BadInput: a target names no linear layer.
        """
        linears = self.linears()
        return {path: linears[path] for path in check_targets(_skeleton(linears), targets)}

    def forward_per_token(self, *, images: bool) -> int:
        """Operations of one token's forward pass in matrices, the head's left out.

        Two for each weight. A row without images skips the gated blocks; `to_kv` is applied to
        resampled tokens and not to text.
        """
        linears = self.linears().items()
        return 2 * sum(
            math.prod(shape)
            for path, shape in linears
            if not path.endswith(_OF_IMAGES) and (images or "gated" not in path)
        )

    def attention_per_token(self, length: int) -> float:
        """Operations of one token's forward self-attention in a sample of `length` tokens.

        Two products (scores, values) of two operations each, over the mean of length / 2 tokens
        that the causal mask leaves (FlashAttention-2, arXiv 2307.08691, section 4.1).
        """
        return 2 * 2 * self.hidden * self.layers * length / 2

    def training_per_token(
        self, adapters: int, *, images: bool = True, checkpointing: bool = True, length: int = 0
    ) -> float:
        """Operations of one token's training step.

        A frozen matrix needs its forward pass and the gradient of its input, which costs the same,
        and with checkpointing the forward pass again: 3 x 2 a weight instead of the 4 x 2 of full
        fine-tuning. An adapter needs its own gradient too. The head runs once each way, as the
        chunked loss makes its gradient in the forward pass. FlashAttention's backward pass is 2.5
        times its forward pass (section 4.1 of its paper).

        Args:
            adapters: number of trained parameters.
            images: whether the gated blocks run.
            checkpointing: whether layers are computed again.
            length: tokens in a sample; 0 leaves self-attention out.
        """
        again = 1 if checkpointing else 0
        matrices = (2 + again) * self.forward_per_token(images=images)
        head = 2 * 2 * self.vocabulary * self.hidden
        trained = (3 + again) * 2 * adapters
        attention = (1 + again + 2.5) * self.attention_per_token(length)
        return matrices + head + trained + attention

    def vision_per_image(self) -> float:
        """Operations of encoding one image: encoder and connector, forward only."""
        return 2 * self.vision * (self.patches + 1) + operations(self.connector, self.patches)


def encoder_parameters(encoder: EncoderConfig) -> int:
    """Parameters of the vision tower."""
    if isinstance(encoder, TiledEncoder):
        return tiled_parameters(encoder)
    assert isinstance(encoder, ClipEncoder)
    vision = encoder.clip["vision_cfg"]
    width, sizes = vision["width"], (vision["width"], vision["layers"], vision["patch_size"])
    tower = vit_parameters(*sizes, encoder.patches, vision.get("mlp_ratio", 4.0))
    return tower + 2 * width * encoder.final_norm


def tiled_parameters(encoder: TiledEncoder) -> int:
    """Parameters of Llama-3.2-Vision's tower, both transformers and the tables of layouts."""
    v, tokens = encoder.vision, encoder.tile_tokens
    width, inner = v.hidden_size, v.intermediate_size
    layer = 4 * width * width + 2 * width * inner + inner + width + 4 * width
    layers = (v.num_hidden_layers + v.num_global_layers) * layer + 2 * v.num_global_layers
    tables = (v.max_aspect_ratio_id + 1) * v.max_num_tiles * width * (tokens + 2) + 3
    return layers + tables + 3 * v.patch_size**2 * width + width + tokens * width + 4 * width


def vit_parameters(width: int, layers: int, patch: int, patches: int, ratio: float = 4.0) -> int:
    """Parameters of open_clip's vision tower without `ln_post` and `proj`."""
    mlp = int(width * ratio)
    layer = 4 * width * width + 4 * width + 2 * width * mlp + mlp + width + 4 * width
    embeddings = 3 * patch * patch * width + width + (patches + 1) * width
    return embeddings + 2 * width + layers * layer


def _skeleton(linears: dict[str, tuple[int, int]]) -> nn.Module:
    """Modules of the same paths without any memory, for rules that look at modules."""
    root = nn.Module()
    for path, (rows, columns) in linears.items():
        parent = root
        *folders, leaf = path.split(".")
        for folder in folders:
            if not hasattr(parent, folder):
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        parent.add_module(leaf, nn.Linear(columns, rows, bias=False, device="meta"))
    return root
