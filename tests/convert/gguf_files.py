"""Tiny Llama models in GGUF files, written by the package gguf itself, and the same numbers as transformers names them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

TOKENIZER = Path(__file__).parents[1] / "data_files" / "text" / "tokenizer"
WIDTH, MLP, HEADS, KV_HEADS, LAYERS, TOKENS = 64, 96, 4, 2, 2, 782
# GGUF's names of a block's weights, transformers' and their shapes.
BLOCK = {
    "attn_norm": ("input_layernorm", (WIDTH,)),
    "attn_q": ("self_attn.q_proj", (WIDTH, WIDTH)),
    "attn_k": ("self_attn.k_proj", (WIDTH // 2, WIDTH)),
    "attn_v": ("self_attn.v_proj", (WIDTH // 2, WIDTH)),
    "attn_output": ("self_attn.o_proj", (WIDTH, WIDTH)),
    "ffn_norm": ("post_attention_layernorm", (WIDTH,)),
    "ffn_gate": ("mlp.gate_proj", (MLP, WIDTH)),
    "ffn_up": ("mlp.up_proj", (MLP, WIDTH)),
    "ffn_down": ("mlp.down_proj", (WIDTH, MLP)),
}


def tokenizer_metadata() -> dict[str, Any]:
    """The golden tokenizer, as llama.cpp's converter writes one."""
    values = json.loads((TOKENIZER / "tokenizer.json").read_text())
    vocabulary, special = values["model"]["vocab"], [token["id"] for token in values["added_tokens"]]
    tokens = {id: token for token, id in vocabulary.items()}
    tokens |= {token["id"]: token["content"] for token in values["added_tokens"]}
    kinds = [gguf.TokenType.CONTROL if id in special else gguf.TokenType.NORMAL for id in range(TOKENS)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [tokens[id] for id in range(TOKENS)],
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in values["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    }


MODEL = {
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": MLP,
    "llama.block_count": LAYERS,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 50000.0,
    "llama.rope.dimension_count": WIDTH // HEADS,
    "llama.context_length": 512,
    "llama.vocab_size": TOKENS,
}


def as_llama_cpp_turns(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys of each head: first of the first half, first of the second half, second of the first, ..."""
    order = [head * (WIDTH // HEADS) + half * (WIDTH // HEADS // 2) + i for head, i, half in np.ndindex(heads, 8, 2)]
    return rows[order]


def packed(array: np.ndarray, kind: Kind) -> np.ndarray:
    """What a file holds of float32 numbers; norms stay float32, as in all files of llama.cpp's."""
    return array if array.ndim == 1 else gguf.quants.quantize(array, kind)


def write_gguf(
    path: Path,
    kind: str = "F32",
    tied: bool = True,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
    arch: str = "llama",
) -> dict[str, np.ndarray]:
    """Writes a model of random weights; returns the numbers that its blocks stand for by transformers' names.

    metadata, tensors: what is put in place of ours, or beside it; None leaves it out.
    """
    rng, number = np.random.default_rng(0), Kind[kind]
    whole = {"token_embd": ("embed_tokens", (TOKENS, WIDTH)), "output_norm": ("norm", (WIDTH,))}
    named = {f"{part}.weight": (f"model.{name}.weight", shape) for part, (name, shape) in whole.items()}
    named |= {} if tied else {"output.weight": ("lm_head.weight", (TOKENS, WIDTH))}
    for i in range(LAYERS):
        named |= {f"blk.{i}.{p}.weight": (f"model.layers.{i}.{n}.weight", s) for p, (n, s) in BLOCK.items()}
    held, stands_for = {}, {}
    for part, (name, shape) in named.items():
        array = rng.normal(1.0 if len(shape) == 1 else 0.0, 0.1, shape).astype(np.float32)
        stands_for[name] = array if array.ndim == 1 else gguf.quants.dequantize(packed(array, number), number)
        heads = HEADS if ".attn_q." in part else KV_HEADS if ".attn_k." in part else None
        held[part] = packed(array if heads is None else as_llama_cpp_turns(array, heads), number)
    writer = gguf.GGUFWriter(path, arch)
    for key, value in (MODEL | tokenizer_metadata() | dict(metadata or {})).items():
        if value is not None:
            add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, list: writer.add_array}
            add.get(type(value), writer.add_float32)(key, value)
    for part, array in (held | dict(tensors or {})).items():
        if array is not None:
            raw = number if part in held and array is held[part] and array.ndim > 1 else None
            writer.add_tensor(part, np.ascontiguousarray(array), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stands_for
