"""The torch model: vision encoder -> connector -> injection -> LLaMA.

Contract: built by composition on transformers' LLaMA and open_clip's vision tower; equals the
reference implementations' logits. What the parts are is data (`ModelConfig`), so all families and
both attend rules share every line here, and a conversation without images is exactly the plain
LLaMA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from lite.bundle.injection import Injection
from lite.errors import BadInput
from qlora.checkpoints.views import TensorSource
from qlora.model.config import ModelConfig
from qlora.model.decoder import CACHE, build_decoder
from qlora.model.weights import ModelWeights


class VisionLanguageModel(nn.Module):
    """Text tokens and images in, next-token logits out.

    Parameter names follow OpenFlamingo: `vision_encoder.*`, `lang_encoder.*`, and between them the
    connector under its own name, `perceiver.*` there.

    Attributes:
        checkpointing: recompute decoder layers in the backward pass, see `GatedDecoderLayer`.

    Example:
        >>> model = VisionLanguageModel.from_weights(read_model(Path("llava-1.5-7b-hf")))
        >>> logits = model(ids, pixels)   # [T, vocab]
    """

    def __init__(self, config: ModelConfig, image_id: int) -> None:
        """The modules, with empty (meta) parameters: see `from_weights`."""
        super().__init__()
        self.config = config
        self.image_id = image_id
        self.vision_encoder = config.encoder.build()
        with torch.device("meta"):
            self.add_module(config.connector.name, config.connector.build())
            self.lang_encoder = build_decoder(config)
        # Not a parameter: computed from the config, so it must not stay on the meta device.
        self.lang_encoder.model.rotary_emb = LlamaRotaryEmbedding(config.llama)

    @property
    def injection(self) -> Injection:
        """Where images stand in token ids."""
        return self.config.injected(self.image_id)

    @property
    def connector(self) -> nn.Module:
        """What makes visual tokens of the encoder's."""
        return self.get_submodule(self.config.connector.name)

    @property
    def checkpointing(self) -> bool:
        return all(layer.checkpointing for layer in self.lang_encoder.get_decoder().layers)

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        for layer in self.lang_encoder.get_decoder().layers:
            layer.checkpointing = on

    @classmethod
    def from_weights(
        cls, weights: ModelWeights, dtype: torch.dtype = torch.float32
    ) -> VisionLanguageModel:
        """A model of checkpoints that were opened, on the CPU, in eval mode.

        Args:
            weights: of a reader of `qlora.families`.
            dtype: of all parameters.
        """
        model = cls(weights.config, weights.special_ids["<image>"])
        fill(model, weights.tensors, dtype)
        return model.eval()

    def encode(self, pixels: Tensor) -> Tensor:
        """`pixels [n, 3, H, W]` -> visual tokens `[n, L, D_vis]`; zeros where there is none."""
        tokens, mask = self.config.encoder.encode(self.vision_encoder, pixels)
        visual = self.connector(tokens)
        return visual if mask is None else visual * mask

    def forward(
        self,
        ids: Tensor,
        pixels: Tensor | None = None,
        *,
        visual: Tensor | None = None,
        index: Tensor | None = None,
        positions: Tensor | None = None,
        past: Cache | None = None,
    ) -> Tensor:
        """Logits of every position.

        Args:
            ids: `[T]` or `[B, T]`; the `<image>`s in a row stand for its images, in order, see
                `lite.bundle.injection`.
            pixels: `[n, 3, H, W]`, or `[B, n, 3, H, W]` for a batch; None or n = 0 without images.
            visual, index, positions, past: see `hidden`.

        Returns:
            `[T, vocab]` or `[B, T, vocab]`; vocab excludes the added tokens.

        Raises:
            BadInput: the number of images differs from the number of `<image>` tokens.
        """
        single = ids.dim() == 1
        ids = ids[None] if single else ids
        if visual is None and pixels is not None and pixels.numel():
            pixels = pixels[None] if pixels.dim() == 4 else pixels
            visual = self.encode(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
        hidden = self.hidden(ids, visual=visual, index=index, positions=positions, past=past)
        logits = self.lang_encoder.lm_head(hidden)
        return logits[0] if single else logits

    def hidden(
        self,
        ids: Tensor,
        *,
        visual: Tensor | None = None,
        index: Tensor | None = None,
        positions: Tensor | None = None,
        past: Cache | None = None,
    ) -> Tensor:
        """What the head is applied to: the last layer's output after the final norm.

        Args:
            ids: `[B, T]`.
            visual: visual tokens `[B, n, L, D_vis]` of each row's images; None without images.
            index: int `[B, T]`, the image that each token attends to or is a part of, or
                `[B, T, 2]` where it may attend to several
                (`lite.bundle.injection.Injection.index`); needed where `ids` alone cannot tell it:
                in a continuation, and in a row of several samples.
            positions: int `[B, T]`, each token's position in its sample. A step other than +1
                starts another sample, and samples do not attend to each other; None for one sample.
            past: KV cache to read and extend; not together with `positions`.

        Returns:
            `[B, T, D]`.

        Raises:
            BadInput: the number of images differs from the number of `<image>` tokens.
        """
        if index is None:
            index = self.image_index(ids, 0 if visual is None else visual.shape[1])
        decoder = self.lang_encoder.get_decoder()
        inputs = self.config.injection.decoder_inputs(
            ids, visual, index, decoder.get_input_embeddings()
        )
        inputs[CACHE] = past
        output = decoder(position_ids=positions, use_cache=past is not None, **inputs)
        return output.last_hidden_state

    def image_index(self, ids: Tensor, images: int) -> Tensor:
        """The `index` of `ids [B, T]`, checked against the number of images."""
        rows = ids.cpu().numpy()
        for row in rows:
            self.injection.check(row, images)
        index = [self.injection.index(row) for row in rows]
        return torch.as_tensor(np.stack(index), device=ids.device)

    @torch.no_grad()
    def generate(
        self,
        ids: Tensor | Sequence[int],
        pixels: Tensor | None = None,
        *,
        visual: Tensor | None = None,
        max_new_tokens: int = 512,
        eos: int | None = None,
        choose: Callable[[np.ndarray], int] | None = None,
        use_cache: bool = True,
    ) -> list[int]:
        """Continue one prompt.

        Args:
            ids: prompt `[T]`.
            pixels: its images `[n, 3, H, W]`.
            visual: their visual tokens `[1, n, L, D_vis]` instead.
            max_new_tokens: stop after so many.
            eos: stop at this id, which is not returned.
            choose: next token from logits `[vocab]` (`lite.chat.sampling.Sampler`); greedy by
                default.
            use_cache: False recomputes the whole sequence at each step.

        Returns:
            The new token ids.
        """
        device = self.lang_encoder.lm_head.weight.device
        sequence = torch.as_tensor(ids, dtype=torch.long)[None].cpu()
        prompt = sequence.shape[1]
        if visual is None and pixels is not None and pixels.numel():
            visual = self.encode(pixels)[None]
        images = 0 if visual is None else visual.shape[1]
        past = DynamicCache(config=self.config.llama) if use_cache else None
        while sequence.shape[1] - prompt < max_new_tokens:
            done = past.get_seq_length() if past is not None else 0
            index = self.image_index(sequence, images)[:, done:].to(device)
            logits = self(sequence[:, done:].to(device), visual=visual, index=index, past=past)
            last = logits[0, -1].float().cpu().numpy()
            token = int(choose(last) if choose else last.argmax())
            if token == eos:
                break
            sequence = torch.cat((sequence, torch.tensor([[token]])), dim=1)
        return sequence[0, prompt:].tolist()


def fill(model: nn.Module, tensors: TensorSource, dtype: torch.dtype) -> None:
    """Give every parameter of `model` its tensor from `tensors`, one at a time.

    Raises:
        BadInput: see `check_fit`.
    """
    check_fit(model, tensors)
    for name, _ in [*model.named_parameters()]:
        assign(model, name, tensors[name].to(dtype))


def check_fit(model: nn.Module, tensors: TensorSource) -> None:
    """Compare names and shapes of a model's parameters with what is to be put there.

    Raises:
        BadInput: a parameter has no tensor, a tensor has no parameter, or a shape differs.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name in tensors.keys() - shapes.keys():
        raise BadInput(f"{tensors.where(name)} holds {name}, which this model does not have.")
    for name, shape in shapes.items():
        if name not in tensors:
            raise BadInput(f"No checkpoint holds {name}; give the complete files.")
        if tensors.shape(name) != shape:
            raise BadInput(
                f"{name} in {tensors.where(name)} has shape {list(tensors.shape(name))} but the "
                f"model needs {list(shape)}; use files that belong to one model."
            )


def assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Make `tensor` the parameter called `name`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Parameter(tensor, requires_grad=False))
