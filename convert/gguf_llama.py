"""Llama models in GGUF files to folders as Hugging Face has them: config.json, model.safetensors and the tokenizer.

Weights are written as the values that the file's blocks stand for. llama.cpp turns dimensions 2 i and 2 i + 1 of a head by one rotary
angle, Hugging Face's code i and i + D / 2, so the rows of queries and keys are put into the latter's order:

    llama.cpp    0a 0b 1a 1b 2a 2b      (D = 6, a and b are turned together)
    folder       0a 1a 2a 0b 1b 2b
"""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from convert.folders import BACKBONES, require
from convert.gguf_header import GGUFTensor, read_gguf
from convert.gguf_tokenizer import NAMES, listed, special_ids, tokenizer_texts
from smolrgpt_jax.checkpoint import safetensors_folder as stored
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig
from smolrgpt_jax.errors import CheckpointError, ConfigError
from smolrgpt_jax.files import as_path

HEAD = "output.weight"


def gguf_to_llama(source: Path, destination: Path, dtype: str = "F32") -> dict[str, int]:
    """Writes the folder of a GGUF file's model, whole or not at all; returns {"tensors", "parameters", "tokens"}.

    dtype: of the weights, "F32", "F16" or "BF16". Raises CheckpointError for a file that is damaged or holds another kind of model,
    listing all tensors that do not fit its metadata, and if `destination` exists.
    """
    header = read_gguf(source)
    metadata = header.metadata
    require(source, metadata, NAMES["required"])
    config = _decoder(source, metadata, tied=HEAD not in header.tensors)
    parts = _parts(config)
    stored.check_fit(source, header.tensors, {part: shape for part, (_, shape) in parts.items()}, "metadata")
    texts = tokenizer_texts(source, metadata, config.max_positions)
    values = {name: getattr(config, ours) for name, (ours, _) in BACKBONES["llama"]["fields"].items()}
    values |= BACKBONES["llama"]["required"] | {"architectures": ["LlamaForCausalLM"]}
    values |= {"num_key_value_heads": config.kv_heads, "head_dim": config.head_dim}
    # transformers 4 reads the former.
    values |= {"rope_theta": config.rope_base}
    values |= {"rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base}}
    ids = special_ids(source, metadata, config.vocab_size)
    values |= {f"{role}_token_id": ids.get(role) for role in ("bos", "eos", "pad")}
    texts[stored.CONFIG_FILE] = json.dumps(values, indent=2) + "\n"
    shapes = dict(parts.values())
    layout = stored.TorchLayout(
        values, {stored.SINGLE_FILE: [[name, dtype] for name in shapes]}, {stored.SINGLE_FILE: {"format": "pt"}}
    )
    arrays = ((name, _in_halves(header.tensors[part], config)) for part, (name, _) in parts.items())
    stored.write_tensors(destination, layout, shapes, arrays, texts)
    parameters = sum(math.prod(shape) for shape in shapes.values())
    return {"tensors": len(shapes), "parameters": parameters, "tokens": config.vocab_size}


@contextmanager
def as_folder(name: str) -> Iterator[str]:
    """A language model's folder or hub id as it is, a GGUF file as a folder that goes at the end."""
    path = as_path(name)
    if not path.is_file():
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="gguf-") as scratch:
        folder = Path(scratch) / path.stem
        gguf_to_llama(path, folder)
        yield str(folder)


def _decoder(path: Path, metadata: Mapping[str, Any], tied: bool) -> DecoderConfig:
    """The configuration that the metadata tell; raises CheckpointError for what this decoder does not have."""
    keys = NAMES["fields"]
    fields = {"kv_heads": metadata.get(keys["heads"]), "rope_base": 10000.0}
    fields |= {ours: metadata[key] for ours, key in keys.items() if key in metadata}
    if missing := [key for ours, key in keys.items() if ours not in fields]:
        raise CheckpointError(f"{path}: the metadata lack {', '.join(missing)}")
    tokens = listed(path, metadata, "tokenizer.ggml.tokens", str)
    try:
        config = DecoderConfig(**fields, vocab_size=len(tokens), tied_head=tied)
        SmolRGPTConfig(decoder=config)  # checks the sizes
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    sizes = ("rope.dimension_count", "attention.key_length", "attention.value_length")
    require(path, metadata, {f"llama.{size}": config.head_dim for size in sizes})
    return config


def _parts(config: DecoderConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """GGUF's tensors: the folder's name and the shape of each."""
    sizes = {"width": config.width, "mlp": config.mlp_width, "vocabulary": config.vocab_size}
    sizes["kv_width"] = config.kv_heads * config.head_dim
    places = {part: ("", *place) for part, place in NAMES["whole"].items()}
    for layer in range(config.layers):
        places |= {f"blk.{layer}.{p}": (f"model.layers.{layer}.", *place) for p, place in NAMES["blocks"].items()}
    found = {
        f"{part}.weight": (f"{start}{name}.weight", tuple(sizes[size] for size in shape))
        for part, (start, name, *shape) in places.items()
    }
    if config.tied_head:
        del found[HEAD]
    return found


def _in_halves(tensor: GGUFTensor, config: DecoderConfig) -> np.ndarray:
    """The numbers of a tensor, the rows of queries and keys in the folder's order."""
    array = tensor.read()
    if not stored.is_finite(array):
        raise CheckpointError(f"{tensor.file}: {tensor.name} holds NaN or infinite values")
    heads = {"attn_q": config.heads, "attn_k": config.kv_heads}.get(tensor.name.split(".")[-2])
    if heads is None:
        return array
    return array.reshape(heads, config.head_dim // 2, 2, -1).swapaxes(1, 2).reshape(array.shape)
