"""The sizes of a vision-language model: encoder, connector, injection and decoder.

Contract: plain data, read off the checkpoints by `qlora.families` and nowhere else; the torch model
and the ONNX graphs are both built from it. Encoder, connector and injection are independent
choices: what one gives, the next takes by its width and number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import LlamaConfig

from lite.bundle.injection import Injection
from lite.image.preprocessing import Preprocessing
from qlora.model.parts import ConnectorConfig, EncoderConfig, InjectionConfig
from qlora.model.spelling import Spelling


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
        spelling: what adapters call the modules; None for our own names.
    """

    family: str
    llama: LlamaConfig
    preprocessing: Preprocessing
    encoder: EncoderConfig
    connector: ConnectorConfig
    injection: InjectionConfig
    attend: str
    embedding_rows: int
    template: str
    spelling: Spelling | None = None

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
