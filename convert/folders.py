"""Whole-folder conversion between the PyTorch release's checkpoints and ours, and from the backbones as Hugging Face publishes them.

The backbones, a SigLIP vision tower and a Llama decoder, make a stage-0 checkpoint. Hugging Face's tensors are given the release's
names (q, k and v stacked by rows) and then go through the one table that every conversion uses. What the backbones do not bring,
connectors, refiners and the rows of the three extra tokens, is drawn as for a model trained from scratch.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.checkpoint import safetensors_folder as stored
from smolrgpt_jax.checkpoint.load import BETWEEN, draw, read_checkpoint, tokenizer_files
from smolrgpt_jax.checkpoint.mapping import TIED_NAMES, entries, params_from_tensors
from smolrgpt_jax.checkpoint.torch import default_layout, read_folder, with_dtype, with_shards, write_folder
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.files import model_folder

EXTRA_TOKENS = 3
BACKBONES = tomllib.loads(Path(__file__).with_name("backbones.toml").read_text(encoding="utf-8"))


def fitting_tokenizer(name: str, config: SmolRGPTConfig, model: str) -> dict[str, str]:
    """The files of a tokenizer (folder or hub id), {name: text}; raises CheckpointError if its size is not the model's."""
    loaded = ChatTokenizer.load(name)
    if loaded.vocab_size != config.decoder.vocab_size:
        raise CheckpointError(f"tokenizer {name} has {loaded.vocab_size} tokens, {model} {config.decoder.vocab_size}")
    return tokenizer_files(loaded)


def torch_to_jax(
    source: Path, destination: Path, *, tokenizer: str | None = None, allow_nan: bool = False
) -> dict[str, int]:
    """Converts a PyTorch folder into one of our checkpoints, tensor by tensor; returns {"tensors", "parameters"}.

    The tokenizer comes along if the folder holds one or `tokenizer` names one (folder or hub id). Raises CheckpointError, with
    the destination untouched.
    """
    config, params, layout = read_folder(source, allow_nan=allow_nan)
    if tokenizer is None and (source / "tokenizer.json").is_file():
        tokenizer = str(source)
    files = None if tokenizer is None else fitting_tokenizer(tokenizer, config, str(source))
    checkpoints.save(destination, params, checkpoints.Meta(config, files, layout))
    parameters = sum(info.size for info in params.infos.values())
    return {"tensors": sum(map(len, layout.files.values())), "parameters": parameters}


def jax_to_torch(
    source: Path,
    destination: Path,
    *,
    dtype: str | None = None,
    max_shard_bytes: int | None = None,
    allow_nan: bool = False,
) -> dict[str, int]:
    """Converts one of our checkpoints into a PyTorch folder, tensor by tensor; returns {"tensors", "files"}.

    An imported checkpoint gets back its own tensor order, dtypes, files and metadata, unless `dtype` ("F32", "F16", "BF16") or
    `max_shard_bytes` asks for others. The chat format of a trained one says how long its answers are. Raises CheckpointError,
    with the destination untouched.
    """
    # Before anything is taken for a PyTorch folder.
    read = read_checkpoint(checkpoints.find_checkpoint(source))
    layout = default_layout(read.config) if read.layout is None else read.layout
    if dtype is not None:
        layout = with_dtype(layout, dtype)
    if max_shard_bytes is not None:
        layout = with_shards(layout, read.config, max_shard_bytes)
    tokenizer = None if read.tokenizer is None else tokenizer_files(read.tokenizer)
    write_folder(destination, read.config, read.params, layout, tokenizer=tokenizer, allow_nan=allow_nan)
    return {"tensors": sum(map(len, layout.files.values())), "files": len(layout.files)}


def vision_config(folder: Path) -> VisionConfig:
    """Our configuration of a SigLIP folder's config.json, of the whole model or of its vision tower.

    Raises CheckpointError for what this encoder does not have.
    """
    path, values = folder / stored.CONFIG_FILE, stored.read_config_json(folder)
    values = values.get("vision_config", values)
    kind = values.get("model_type", "siglip_vision_model")
    if kind != "siglip_vision_model" or "num_patches" in values:
        read = "only SigLIP with patches of a fixed picture size"
        raise CheckpointError(f"{path}: model type {kind!r} is not read, {read}")
    return VisionConfig(**_fields("siglip", path, values))


def decoder_config(folder: Path) -> DecoderConfig:
    """Our configuration of a Llama folder's config.json, the vocabulary longer by the three extra tokens.

    Raises CheckpointError for what this decoder does not have.
    """
    path, values = folder / stored.CONFIG_FILE, stored.read_config_json(folder)
    fields = _fields("llama", path, values)
    # transformers 5 writes rope_parameters, earlier ones rope_theta and rope_scaling.
    rope = values.get("rope_parameters") or {}
    require(path, rope, {"rope_type": "default", "partial_rotary_factor": 1.0})
    require(path, values, {"rope_scaling": None})
    require(path, values, {"head_dim": fields["width"] // fields["heads"]}, allow_none=True)
    fields["vocab_size"] += EXTRA_TOKENS
    kv_heads = values.get("num_key_value_heads")
    return DecoderConfig(
        **fields,
        kv_heads=fields["heads"] if kv_heads is None else kv_heads,
        rope_base=float(rope.get("rope_theta", values.get("rope_theta", 10000.0))),
    )


def _fields(backbone: str, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Our fields of a backbone's config.json; raises CheckpointError for another architecture."""
    require(path, values, BACKBONES[backbone]["required"])
    return {ours: values.get(name, default) for name, (ours, default) in BACKBONES[backbone]["fields"].items()}


def require(path: Path, values: Mapping[str, Any], wanted: Mapping[str, Any], allow_none: bool = False) -> None:
    for name, value in wanted.items():
        found = values.get(name, value)
        if found != value and not (allow_none and found is None):
            raise CheckpointError(f"{path}: {name}={found!r} is not supported, only {value!r}")


def encoder_config(folder: Path) -> tuple[str, SmolRGPTConfig]:
    """The kind of folder that holds a vision encoder, a key of BACKBONES, and a configuration with that encoder.

    Of a PyTorch folder of the whole model also the shuffle factor, by which its encoder was looked through. Raises CheckpointError.
    """
    if "vit_hidden_dim" not in stored.read_config_json(folder):
        return "siglip", SmolRGPTConfig(vision=vision_config(folder))
    whole, *_ = read_folder(folder)
    return "smolrgpt", SmolRGPTConfig(vision=whole.vision, shuffle_factor=whole.shuffle_factor)


def build(
    vision: str, language: str, destination: Path, *, tokenizer: str | None = None, seed: int = 0
) -> SmolRGPTConfig:
    """Writes a stage-0 checkpoint of ours, float32, and returns its configuration.

    vision, language: folders or hub ids; `vision` of SigLIP, or of this whole model as PyTorch has it. The tokenizer is that of
    `tokenizer` (folder or hub id), else of the language folder if it holds one. Raises CheckpointError, with the destination
    untouched, and DataError for a tokenizer that cannot be read.
    """
    if destination.exists():
        raise CheckpointError(f"{destination} exists already; nothing was written")
    eyes, tongue = (
        model_folder(name, what, ("*.json", "*.safetensors"))
        for name, what in ((vision, "vision encoder"), (language, "language model"))
    )
    try:
        kind, config = encoder_config(eyes)
        config = config.replace(decoder=decoder_config(tongue))
        table = entries(config)
    except CheckpointError:
        raise
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(f"{eyes} and {tongue} make no model: {error}") from error
    sources = _sources(config, eyes, "vision_encoder.", kind) | _sources(config, tongue, "decoder.", "llama")
    # Of the vocabulary only the last rows are used.
    vocabulary = ["decoder/token_embedding", *([] if config.decoder.tied_head else ["decoder/head"])]
    fresh = draw(config, [*BETWEEN, *vocabulary], seed)
    shapes = {e.torch: e.torch_shape for e in table}
    made = {e.torch: e for e in table if e.jax in fresh}

    def read(name: str) -> np.ndarray:
        if name not in sources:
            return made[name].to_torch(fresh[made[name].jax])
        parts = [part.read().astype(np.float32) for part in sources[name]]
        for part, array in zip(sources[name], parts):
            if not stored.is_finite(array):
                raise CheckpointError(f"{part.file}: {part.name} holds NaN or infinite values")
        if name in made:
            rows = config.decoder.vocab_size
            parts.append(fresh[made[name].jax][rows - EXTRA_TOKENS : rows])
        return np.concatenate(parts).reshape(shapes[name])

    params = params_from_tensors(table, lambda name: np.dtype(np.float32), read)
    files = None
    if tokenizer is None and (tongue / "tokenizer.json").is_file():
        tokenizer = str(tongue)
    if tokenizer is not None:
        files = fitting_tokenizer(tokenizer, config, str(tongue))
    checkpoints.save(destination, params, checkpoints.Meta(config, files))
    return config


def _parts(name: str, backbone: str) -> list[str]:
    """The tensors of a backbone's folder that, stacked by rows, are the release's of this name."""
    if backbone == "smolrgpt":
        return [name]
    for pattern, replacement in BACKBONES[backbone]["names"]:
        name = re.sub(pattern, replacement, name)
    return [name.replace("qkv_proj", f"{part}_proj") for part in "qkv"] if "qkv_proj" in name else [name]


def _sources(config: SmolRGPTConfig, folder: Path, tower: str, backbone: str) -> dict[str, list[stored.StoredTensor]]:
    """{the release's tensor name: the tensors of a backbone's folder that make it}, for tensors of one tower.

    Raises CheckpointError listing all missing, unexpected and wrongly shaped tensors.
    """
    expected, parts_of = {}, {}
    for entry in entries(config):
        if not entry.torch.startswith(tower):
            continue
        parts = parts_of[entry.torch] = _parts(entry.torch, backbone)
        rows, *rest = entry.torch_shape
        if entry.kind == "vocabulary":
            rows -= EXTRA_TOKENS
        elif entry.kind == "positions" and backbone != "smolrgpt":
            rows, *rest = rest
        expected |= dict.fromkeys(parts, (rows // len(parts), *rest))
    tensors, _ = stored.open_tensors(folder, expected)
    there = {name: tensor for name, tensor in tensors.items() if not re.match(BACKBONES[backbone]["ignored"], name)}
    head, embedding = (_parts(name, backbone)[0] for name in TIED_NAMES)
    twice = config.decoder.tied_head and head in there and embedding in expected
    if twice:
        expected[head] = expected[embedding]
    stored.check_fit(folder, there, expected)
    stored.check_fit(folder, there, expected, problems=stored.untied(there, (head, embedding)) if twice else ())
    return {name: [there[part] for part in parts] for name, parts in parts_of.items()}
