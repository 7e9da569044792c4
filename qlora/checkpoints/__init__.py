"""Readers of the public checkpoints that a model is put together from.

Contract: every reader checks what it is given (names, shapes, configuration) and raises
`lite.errors.BadInput` with one sentence; none of them runs code from a file, and tensors are read
only when asked for.
"""

from qlora.checkpoints.clip import ClipCheckpoint, read_clip
from qlora.checkpoints.flamingo import cross_attn_interval, gated_layers, read_flamingo
from qlora.checkpoints.llama import LlamaCheckpoint, read_llama
from qlora.checkpoints.lora import LoraCheckpoint, LoraDelta, read_lora
from qlora.checkpoints.sources import (
    TensorSource,
    from_tensors,
    merged,
    open_tensors,
    read_pickle,
    renamed,
)
from qlora.checkpoints.tokenizer_files import TokenizerFiles, read_tokenizer
from qlora.checkpoints.views import DerivedTensors

__all__ = [
    "ClipCheckpoint",
    "DerivedTensors",
    "LlamaCheckpoint",
    "LoraCheckpoint",
    "LoraDelta",
    "TensorSource",
    "TokenizerFiles",
    "cross_attn_interval",
    "from_tensors",
    "gated_layers",
    "merged",
    "open_tensors",
    "read_clip",
    "read_flamingo",
    "read_llama",
    "read_lora",
    "read_pickle",
    "read_tokenizer",
    "renamed",
]
