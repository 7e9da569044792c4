"""Readers of whole models of other families, from the folders that people publish.

Contract: each gives what `qlora.model.read_weights` gives for the first family: one configuration
and one lazy mapping from parameter names (those of `qlora.model.VisionLanguageModel`) to tensors.
What a folder is is read off its files, never off its name.
"""

from qlora.families.recognise import read_model

__all__ = ["read_model"]
