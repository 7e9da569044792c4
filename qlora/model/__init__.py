"""The model in torch: vision tower, resampler, gated cross-attention and LLaMA, composed."""

from qlora.model.config import ModelConfig
from qlora.model.flamingo import Flamingo
from qlora.model.weights import FlamingoWeights, read_weights

__all__ = ["Flamingo", "FlamingoWeights", "ModelConfig", "read_weights"]
