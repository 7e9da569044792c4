"""The model in torch: vision encoder, connector, injection and LLaMA, composed."""

from qlora.model.config import ModelConfig
from qlora.model.model import VisionLanguageModel
from qlora.model.weights import ModelWeights

__all__ = ["ModelConfig", "ModelWeights", "VisionLanguageModel"]
