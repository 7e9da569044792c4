"""A LLaMA of a real size with random weights as a GGUF file, for llama.cpp to run beside a bundle.

Contract: the same shapes as `bench.random_weights`, tensor by tensor, so that memory stays at one
tensor; matrices in Q4_0 or Q8_0, the output head in Q8_0 always (llama.cpp's own Q4_0 files keep it
at 6 bits, which the gguf package cannot write; int4 bundles keep it at 8). The vocabulary is made
up: the file is for measuring speed. A finished file appears whole or not at all.

Example: python -m bench.gguf_llama --shape 9b --type Q4_0 -o llama-7b-q4_0.gguf
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from transformers import LlamaConfig

from bench.random_weights import RandomTensors, random_weights
from bench.shapes import SHAPES, config_of
from lite.cli import run, say
from lite.errors import BadInput
from lite.files import replacing

TYPES = ("Q4_0", "Q8_0")
# llama.cpp's names of a layer's matrices, and ours.
LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
# llama_token_type of llama.h.
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def write_gguf(shape: str, kind: str, path: Path) -> None:
    """Write the LLaMA of one of `bench.shapes.SHAPES`.

    Raises:
        BadInput: the gguf package is not installed.
    """
    try:
        import gguf
        from gguf.quants import quantize
    except ImportError:
        raise BadInput("Writing GGUF files needs the gguf package; pip install gguf.") from None
    weights, config = random_weights(shape), config_of(shape).llama
    assert isinstance(weights.base, RandomTensors)
    types = gguf.GGMLQuantizationType
    plan = [
        (name, ours, _type(name, weights.base.shape(ours), kind)) for name, ours in _names(config)
    ]
    with replacing(path) as partial:
        writer = gguf.GGUFWriter(partial, "llama")
        _describe(writer, config, shape)
        rows = {"token_embd.weight": config.vocab_size}  # without those of OpenFlamingo
        for name, ours, wanted in plan:
            size = weights.base.shape(ours)
            size = (rows.get(name, size[0]), *size[1:])
            block, width = gguf.GGML_QUANT_SIZES[types[wanted]]
            count = int(np.prod(size)) // block * width
            writer.add_tensor_info(name, size, np.dtype(np.float32), count, types[wanted])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, ours, wanted in plan:
            array = weights.base[ours].float().numpy()[: rows.get(name)]
            writer.write_tensor_data(quantize(array, types[wanted]))
        writer.close()


def _names(config: LlamaConfig) -> Iterator[tuple[str, str]]:
    yield "token_embd.weight", "lang_encoder.model.embed_tokens.weight"
    for i in range(config.num_hidden_layers):
        for theirs, ours in LAYER.items():
            name = f"lang_encoder.model.layers.{i}.decoder_layer.{ours}.weight"
            yield f"blk.{i}.{theirs}.weight", name
    yield "output_norm.weight", "lang_encoder.model.norm.weight"
    yield "output.weight", "lang_encoder.lm_head.weight"


def _type(name: str, shape: tuple[int, ...], kind: str) -> str:
    if len(shape) == 1:
        return "F32"
    return "Q8_0" if name == "output.weight" else kind


def _describe(writer: object, config: LlamaConfig, name: str) -> None:
    from gguf import GGUFWriter

    assert isinstance(writer, GGUFWriter)
    writer.add_name(f"random {name}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    special = ["<unk>", "<s>", "</s>"]
    octets = [f"<0x{i:02X}>" for i in range(256)]
    words = config.vocab_size - len(special) - len(octets)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*special, *octets, *(f"▁word{i}" for i in range(words))])
    writer.add_token_scores([0.0] * len(special + octets) + [-float(i) for i in range(words)])
    kinds = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * len(octets) + [NORMAL] * words
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


@click.command(name="gguf_llama")
@click.option("--shape", type=click.Choice(SHAPES), default="9b", show_default=True)
@click.option("--type", "kind", type=click.Choice(TYPES), default="Q4_0", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File.")
def command(shape: str, kind: str, output: Path) -> None:
    """Write a random LLaMA as GGUF."""
    write_gguf(shape, kind, output)
    say(f"{output}: {output.stat().st_size / 1e9:.2f} GB.")


if __name__ == "__main__":
    run(command)
