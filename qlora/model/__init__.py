"""The model in torch: vision tower, resampler, gated cross-attention and LLaMA, composed."""

from qlora.model.config import ModelConfig
from qlora.model.model import VisionLanguageModel
from qlora.model.weights import ModelWeights, read_weights

__all__ = ["ModelConfig", "ModelWeights", "VisionLanguageModel", "read_weights"]
