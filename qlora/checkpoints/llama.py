"""A LLaMA folder in the Hugging Face layout, of 2023 or of today.

Contract: `read_llama` gives the decoder's tensors under their standard names and its sizes, after
every name and shape was compared with `config.json`. What the runtime cannot compute (RoPE scaled
in another way than Llama 3's, biases, another activation, quantized weights) is refused here.

Left out on purpose: `rotary_emb.inv_freq` buffers, which transformers before 4.31 saved and which
are computed from `rope_theta`. The special-token ids of `config.json` are not used anywhere: the
folders of 2023 hold wrong ones, and the tokenizer's own ids count.
"""

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from lite.errors import BadInput
from qlora.checkpoints.checks import check_tensors, one_line, read_json, same_content
from qlora.checkpoints.layouts import refuse_other_layouts
from qlora.checkpoints.sources import TensorSource, merged, open_tensors, renamed
from qlora.checkpoints.translation import shapes_of

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_INV_FREQ = re.compile(r"(model\.layers\.\d+\.self_attn|model)\.rotary_emb\.inv_freq")
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
)
# All that a decoder of the plain kind depends on; what else configs hold is about training,
# generation or other tools, and what would change the decoder is refused.
_KEYS = (
    *_SIZES,
    "rms_norm_eps",
    "max_position_embeddings",
    "tie_word_embeddings",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "pad_token_id",
)
# Types whose arithmetic is LLaMA's, and what their configs leave out where LlamaConfig has another
# default: MistralConfig's.
_COMPUTED: dict[Any, dict[str, Any]] = {
    "llama": {},
    "mistral": {
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096 * 32,
        "sliding_window": 4096,
    },
}
# Settings by which relatives of LLaMA differ from it: Granite's and MiniCPM's factors, Gemma's
# caps, Cohere's logit_scale, SmolLM3's layers without RoPE, windows, experts, norms of heads.
_CHANGES = re.compile(
    r"multiplier|softcap|sliding_window|layer_types|logits?_scal|no_rope|nope_|experts|qk_norm|"
    r"partial_rotary|rotary_pct|rotary_dim|clip_qkv|scale_emb|scale_depth|dim_model_base|"
    r"query_pre_attn|use_alibi|^alibi|parallel_residual|attention_sink|attention_chunk|norm_type|"
    r"^qkv_bias|^use_bias|^bias$|sandwich|altup|laurel"
)
# Far above any LLaMA (70B has 80): a damaged config must not make the list of names endless.
_MOST_LAYERS = 1000
# Llama 3.1's scaling of RoPE's frequencies, as configs call it.
LLAMA3 = "llama3"


@dataclass(frozen=True)
class LlamaCheckpoint:
    """What `read_llama` found.

    Attributes:
        config: sizes; `config.rope_parameters["rope_theta"]` is the base of plain RoPE.
        tensors: `model.embed_tokens.weight [vocab, hidden]`, `model.layers.{i}.*`,
            `model.norm.weight [hidden]` and `lm_head.weight [vocab, hidden]`.
        folder: where it was read.
    """

    config: LlamaConfig
    tensors: TensorSource
    folder: Path

    @property
    def embedding_rows(self) -> int:
        """Rows of the input embedding, added tokens included."""
        return self.tensors.shape(_EMBEDDING)[0]


def read_llama(folder: Path) -> LlamaCheckpoint:
    """Open a LLaMA folder; tensors are read when asked for.

    With `tie_word_embeddings`, `lm_head.weight` is the embedding.

    Raises:
        BadInput: no LLaMA `config.json`, a kind of LLaMA that the runtime does not compute, or
            weights that are missing, damaged, unexpected, or of other shapes.
    """
    folder = Path(folder)
    refuse_other_layouts(folder)
    path = folder / "config.json"
    return decoder_of(read_json(path, "LLaMA config"), open_tensors(folder), path, folder)


def decoder_of(
    raw: dict[str, Any], tensors: TensorSource, path: Path, folder: Path, added: int = 0
) -> LlamaCheckpoint:
    """A LLaMA from its configuration and its tensors, wherever these lie.

    Args:
        raw: the configuration.
        tensors: under LLaMA's own names.
        path: of the configuration, for messages.
        folder: of the weights.
        added: rows of the embedding beyond the vocabulary, which the head does not have.

    Raises:
        BadInput: as `read_llama`.
    """
    config = _checked_config(raw, path)
    tensors = renamed(tensors, lambda name: None if _INV_FREQ.fullmatch(name) else name)
    if config.tie_word_embeddings and _EMBEDDING in tensors:
        tensors = _tie(tensors)
    expected = shapes_of(lambda: LlamaForCausalLM(_untied(config)))
    expected[_EMBEDDING] = (config.vocab_size + added, config.hidden_size)
    check_tensors(tensors, expected, folder, "LLaMA checkpoint")
    return LlamaCheckpoint(config, tensors, folder)


def _untied(config: LlamaConfig) -> LlamaConfig:
    """The same with a head of its own, which is what a reader gives in every case."""
    config = copy.deepcopy(config)
    config.tie_word_embeddings = False
    return config


def _tie(tensors: TensorSource) -> TensorSource:
    if _HEAD not in tensors:
        return merged(tensors, renamed(tensors, {_HEAD: _EMBEDDING}))
    if not same_content(tensors[_HEAD], tensors[_EMBEDDING]):
        raise BadInput(
            f"{tensors.where(_HEAD)} holds an {_HEAD} that differs from {_EMBEDDING} although "
            f"config.json ties them; set tie_word_embeddings to false if the head is meant."
        )
    return tensors


def _checked_config(raw: dict[str, Any], path: Path) -> LlamaConfig:
    kind = raw.get("model_type")
    if kind not in _COMPUTED:
        raise BadInput(
            f"{path} describes a language model of type {kind!r}, which this project does not "
            f"compute, but only {' and '.join(_COMPUTED)}; give a model of such a type."
        )
    raw = _COMPUTED[kind] | raw
    _refuse_unsupported(path, raw)
    try:
        config = LlamaConfig(**{key: raw[key] for key in _KEYS if key in raw})
        _check_sizes(config)
    # transformers validates with classes of its own, and its arithmetic comes before its checks.
    except Exception as error:
        reason = one_line(error.__cause__ or error)
        raise BadInput(
            f"{path} is not a usable {kind} config ({reason}); download it again."
        ) from error
    if config.pad_token_id is not None and not 0 <= config.pad_token_id < config.vocab_size:
        # Folders of 2023 say -1, which an embedding would take for its last row.
        config.pad_token_id = None
    return config


def _refuse_unsupported(path: Path, raw: dict[str, Any]) -> None:
    refused = {
        "attention_bias": "attention biases",
        "mlp_bias": "MLP biases",
        "quantization_config": "quantized weights",
    }
    found = [text for key, text in refused.items() if raw.get(key)]
    if raw.get("hidden_act", "silu") != "silu":
        found.append(f"the activation {raw['hidden_act']!r}")
    for key in ("rope_scaling", "rope_parameters"):
        rope = raw.get(key)
        if not isinstance(rope, dict):
            continue
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in ("default", LLAMA3):
            found.append(f"{kind!r} RoPE scaling")
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            found.append("partial RoPE")
    found += [
        f"{key} {value!r}"
        for key, value in raw.items()
        if _CHANGES.search(key) and not _without_effect(key, value, raw)
    ]
    if found:
        raise BadInput(
            f"{path} asks for {' and '.join(found)}, which this project does not compute; give a "
            f"plain LLaMA checkpoint."
        )


def _without_effect(key: str, value: Any, raw: Mapping[str, Any]) -> bool:
    """Whether a setting that could change a decoder leaves this one as it is."""
    if value in (None, False, "none", [], {}) or (value == 1 and value is not True):
        return True
    if "sliding_window" in key and key != "use_sliding_window":
        context = raw.get("max_position_embeddings", 2048)  # LlamaConfig's default
        unused = raw.get("use_sliding_window") is False
        return unused or (type(value) is int and type(context) is int and value >= context)
    if key == "layer_types":
        return isinstance(value, list) and {*value} == {"full_attention"}
    return False


def _check_sizes(config: LlamaConfig) -> None:
    """Raises ValueError on sizes that no decoder has."""
    for key in _SIZES:
        if getattr(config, key) < 1:
            raise ValueError(f"{key} is {getattr(config, key)}")
    if config.num_hidden_layers > _MOST_LAYERS:
        raise ValueError(f"num_hidden_layers is {config.num_hidden_layers}")
    if config.num_attention_heads % config.num_key_value_heads:
        raise ValueError("num_attention_heads is not a multiple of num_key_value_heads")
    rope: dict[str, Any] = dict(config.rope_parameters or {})
    theta = rope["rope_theta"]
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta < math.inf:
        raise ValueError(f"rope_theta is {theta!r}")
    if rope.get("rope_type") == LLAMA3:
        _check_scaling(rope)


def _check_scaling(rope: Mapping[str, Any]) -> None:
    context = "original_max_position_embeddings"
    for key in ("factor", "low_freq_factor", "high_freq_factor", context):
        value = rope.get(key)
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{key} of the RoPE scaling is {value!r}")
    if rope["low_freq_factor"] >= rope["high_freq_factor"]:
        raise ValueError("low_freq_factor is not below high_freq_factor")
