"""The sizes of a model that sees: encoder, connector, injection and decoder, each a choice.

Contract: plain data, read off the checkpoints by `qlora.families` and `qlora.model.weights` and
nowhere else; the torch model and the ONNX graphs are both built from it. Encoder, connector and
injection are independent: what one gives, the next takes by its width and number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import LlamaConfig, MllamaVisionConfig

from lite.bundle.injection import GATED, SPLICED, Injection
from lite.image.preprocessing import Preprocessing

# Widths of one attention head in the resampler and in the gated blocks. OpenFlamingo fixes it, and
# no checkpoint tells it: only heads * DIM_HEAD shows in the tensors.
DIM_HEAD = 64


@dataclass(frozen=True)
class Encoder:
    """A vision transformer, and which of its tokens are used.

    Attributes:
        clip: open_clip model config, `quick_gelu` settled; its layers are those that are used.
        keep_class: the class token is used too, before the patch tokens.
        final_norm: `ln_post` is applied to every token.
        epsilon: of its norms.
    """

    clip: dict[str, Any]
    keep_class: bool = False
    final_norm: bool = False
    epsilon: float = 1e-5
    name = "clip"

    @property
    def width(self) -> int:
        """Of a token."""
        return int(self.clip["vision_cfg"]["width"])

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        vision = self.clip["vision_cfg"]
        return int(vision["image_size"] // vision["patch_size"]) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of one image that the connector gets."""
        return self.patches + self.keep_class


@dataclass(frozen=True)
class TiledEncoder:
    """Llama-3.2-Vision's tower: all tiles of an image at once, outputs of several layers.

    Attributes:
        vision: as transformers knows it.
    """

    vision: MllamaVisionConfig
    name = "tiled"

    @property
    def width(self) -> int:
        """Of a token: the last layer's output, and before the connector those between."""
        return int(self.vision.vision_output_dim)

    @property
    def tile_tokens(self) -> int:
        """Tokens of one tile, the class token first."""
        return int(self.vision.image_size // self.vision.patch_size) ** 2 + 1

    @property
    def tokens(self) -> int:
        """Tokens of one image that the connector gets, those of tiles it does not fill included."""
        return int(self.vision.max_num_tiles) * self.tile_tokens


@dataclass(frozen=True)
class Perceiver:
    """A perceiver resampler, OpenFlamingo's or IDEFICS's.

    Attributes:
        width: of its tokens, in and out.
        latents: tokens out.
        depth: layers.
        heads: attention heads.
        dim_head: width of a head.
        head_norms: queries and keys pass a norm of their own, head by head.
        activation: of the feed-forward, `gelu` or `relu`.
    """

    width: int
    latents: int
    depth: int
    heads: int
    dim_head: int = DIM_HEAD
    head_norms: bool = False
    activation: str = "gelu"
    name = "perceiver"


@dataclass(frozen=True)
class Abstractor:
    """The visual abstractor of mPLUG-Owl: queries that attend to the image, and an end token.

    Attributes:
        dim: width inside.
        dim_media: width of the encoder's tokens.
        queries: learned queries; one more token comes out.
        depth: layers.
        heads: attention heads.
        inner: width of the feed-forward's gated layer.
        width: of a token out.
    """

    dim: int
    dim_media: int
    queries: int
    depth: int
    heads: int
    inner: int
    width: int
    name = "abstractor"

    @property
    def latents(self) -> int:
        """Tokens out."""
        return self.queries + 1


@dataclass(frozen=True)
class Projector:
    """The projector of LLaVA: linear layers with GELU between them, on each token alone.

    Attributes:
        dim_media: width of the encoder's tokens.
        width: of a token out.
        depth: linear layers.
        latents: tokens, in and out.
        bias: the linear layers have biases.
    """

    dim_media: int
    width: int
    depth: int
    latents: int
    bias: bool = True
    name = "projector"


@dataclass(frozen=True)
class Gated:
    """Gated cross-attention by OpenFlamingo's blocks, skipped in conversations without images.

    Attributes:
        layers: decoder layers that have a gated block before them.
        heads: attention heads of a block.
    """

    layers: tuple[int, ...]
    heads: int
    dim_head = DIM_HEAD
    name = GATED

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.heads


@dataclass(frozen=True)
class GatedLlama:
    """Gated cross-attention by blocks that are built as LLaMA's layers.

    IDEFICS puts them between LLaMA's layers. Llama-3.2-Vision counts them as layers, which is the
    same: each stands before a layer with self-attention.

    Attributes:
        layers: decoder layers that have a gated block before them.
        heads: attention heads of a block.
        kv_heads: heads of its keys and values.
        dim_head: width of a head.
        inner: width of the feed-forward's gated layer.
        head_norms: queries and keys pass a norm of their own, head by head.
        gates: values of a gate, one or one for each feature.
        epsilon: of the norms.
        blind: the feed-forward runs for tokens that see no image too, in every conversation;
            otherwise such tokens pass the block unchanged.
    """

    layers: tuple[int, ...]
    heads: int
    kv_heads: int
    dim_head: int
    inner: int
    head_norms: bool
    gates: int
    epsilon: float
    blind: bool
    name = GATED


@dataclass(frozen=True)
class Spliced:
    """Visual tokens take the place of `<image>` tokens."""

    layers: tuple[int, ...] = ()
    heads: int = 0
    kv_heads: int = 0
    dim_head = 0
    name = SPLICED


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of every part.

    Attributes:
        family: what people call models of this kind; nothing depends on it.
        llama: the decoder as transformers knows it.
        preprocessing: how images become pixels.
        encoder, connector, injection: the three choices.
        attend: the attend rule, see `lite.bundle.attend`.
        embedding_rows: rows of the input embedding, added tokens that have one included; the head
            has `llama.vocab_size` rows, so added tokens beyond these are never predicted.
        template: name of the prompt template.
    """

    family: str
    llama: LlamaConfig
    preprocessing: Preprocessing
    encoder: Encoder | TiledEncoder
    connector: Perceiver | Abstractor | Projector
    injection: Gated | GatedLlama | Spliced
    attend: str
    embedding_rows: int
    template: str

    @property
    def latents(self) -> int:
        """Visual tokens of one image."""
        return self.connector.latents

    @property
    def dim_visual(self) -> int:
        """Width of a visual token."""
        return self.connector.width

    def injected(self, image_id: int) -> Injection:
        """Where images stand in ids whose `<image>` has that id."""
        return Injection.from_name(self.injection.name, image_id, self.latents, self.attend)
