"""Readers of whole models, one file a family, from what people publish.

Contract: each gives one `qlora.model.ModelWeights`: a configuration and a lazy mapping from
parameter names (those of `qlora.model.VisionLanguageModel`) to tensors. What a folder holds is read
off its files, never off its name. `qlora.families.models` names what is published, without loading
any of them.
"""
