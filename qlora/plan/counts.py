"""What a model is made of: parameters, matrices and operations, counted on the model itself.

Contract: the model of `qlora.model` is built on the meta device and looked at, so nothing is
downloaded and no weight is made. All operations are floating-point operations; a multiplication
and an addition are two.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from qlora.model import VisionLanguageModel
from qlora.model.adapters import check_targets
from qlora.model.config import ModelConfig
from qlora.model.model import assign

# Forward, again in the backward pass (checkpointing), and the gradient of the input.
PASSES = 3
_GATED = "gated_cross_attn_layer"
# Matrices of gated blocks that are applied to image features and not to text.
_OF_IMAGES = tuple(f"{_GATED}.{name}" for name in ("attn.to_kv", "k_proj", "v_proj"))


@dataclass(frozen=True)
class Counts:
    """Counts of one model.

    Attributes:
        config: its sizes.
    """

    config: ModelConfig

    @cached_property
    def _model(self) -> VisionLanguageModel:
        return VisionLanguageModel(self.config, image_id=self.config.llama.vocab_size)

    @cached_property
    def total(self) -> int:
        """Parameters."""
        return _parameters(self._model)

    @cached_property
    def vision_encoder(self) -> int:
        """Parameters of the vision encoder."""
        return _parameters(self._model.vision_encoder)

    @cached_property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Path inside the language model -> `(out, in)` of each matrix that is held in 4 bits."""
        language_model = self._model.lang_encoder
        return {
            path: (module.out_features, module.in_features)
            for path, module in language_model.named_modules()
            if isinstance(module, nn.Linear) and path.startswith("model.layers.")
        }

    @property
    def matrices(self) -> int:
        """Parameters in `linears`."""
        return sum(map(math.prod, self.linears.values()))

    @property
    def gated_matrices(self) -> int:
        """Those of them that lie in gated blocks."""
        return sum(math.prod(shape) for path, shape in self.linears.items() if _GATED in path)

    @property
    def rest(self) -> int:
        """Parameters that stay out of 4 bits: embeddings, head, norms, gates and all of vision."""
        return self.total - self.matrices

    def adapted(self, targets: Sequence[str] | str) -> dict[str, tuple[int, int]]:
        """The part of `linears` that gets adapters, by the rules of peft.

        Raises:
            BadInput: a target names no linear layer.
        """
        paths = check_targets(self._model.lang_encoder, targets)
        return {path: self.linears[path] for path in paths}

    def forward_per_token(self, *, images: bool) -> int:
        """Operations of one token's forward pass in matrices, the head's left out.

        Two for each weight. A row without images skips the gated blocks, whose keys and values are
        computed from image features and not from text.
        """
        return 2 * sum(
            math.prod(shape)
            for path, shape in self.linears.items()
            if not path.endswith(_OF_IMAGES) and (images or _GATED not in path)
        )

    def attention_per_token(self, length: int) -> float:
        """Operations of one token's forward self-attention in a sample of `length` tokens.

        Two products (scores, values) of two operations each, over the mean of length / 2 tokens
        that the causal mask leaves (FlashAttention-2, arXiv 2307.08691, section 4.1).
        """
        llama = self.config.llama
        return 2 * 2 * llama.hidden_size * llama.num_hidden_layers * length / 2

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
        llama, again = self.config.llama, 1 if checkpointing else 0
        matrices = (2 + again) * self.forward_per_token(images=images)
        head = 2 * 2 * llama.vocab_size * llama.hidden_size
        trained = (3 + again) * 2 * adapters
        attention = (1 + again + 2.5) * self.attention_per_token(length)
        return matrices + head + trained + attention

    @cached_property
    def vision_per_image(self) -> int:
        """Operations of encoding one image: encoder and connector, forward only.

        Every parameter of the encoder is taken to meet every token, the class token included.
        """
        encoder = self.config.encoder
        return 2 * self.vision_encoder * (encoder.tokens + 1) + _operations(
            self._model.connector, encoder.tokens, encoder.width
        )


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _operations(connector: nn.Module, tokens: int, width: int) -> int:
    """Operations of a connector's forward pass for one image's `tokens` of `width`.

    Fake tensors instead of meta ones: they say that they are on the CPU, which autocast wants.
    """
    connector = copy.deepcopy(connector)
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():
        for name, parameter in [*connector.named_parameters()]:
            assign(connector, name, torch.empty(parameter.shape))
        connector(torch.empty(1, tokens, width))
    return int(counter.get_total_flops())
