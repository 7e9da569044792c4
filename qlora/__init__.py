"""Training: the model in torch, its data, its recipes and readers of published checkpoints.

Contract: the libraries below tell nobody what they are used for; a network is needed only for what
is named by an address or a hub id.
"""

import os

import lite  # noqa: F401  first: it sets how other libraries behave

# Read when huggingface_hub is imported, be it by transformers, peft, accelerate or open_clip.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
