"""The PyTorch release's checkpoint folder, config.json included, read and written.

Its numbers become our parameters, read when asked for; its layout, the rotary buffer's exact bits among it, is kept, so that writing
gives back the same bytes.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from smolrgpt_jax.checkpoint import mapping
from smolrgpt_jax.checkpoint import safetensors_folder as stored
from smolrgpt_jax.checkpoint.mapping import INV_FREQ, TIED_NAMES, StreamedParams, entries
from smolrgpt_jax.checkpoint.safetensors_folder import CONFIG_FILE, SINGLE_FILE, StoredTensor, TorchLayout, check_fit
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, SpecialTokens, VisionConfig
from smolrgpt_jax.errors import CheckpointError, ConfigError

# config.json of the published model in the release's order, and the fields of our configuration that some of its fields are.
_FIELDS = json.loads(Path(__file__).with_name("release_config.json").read_text(encoding="utf-8"))
RELEASE, OURS, TOKENS = _FIELDS["release"], _FIELDS["ours"], _FIELDS["extra_tokens"]
FIXED = ("vit_cls_flag", "vit_dropout", "lm_dropout")  # other values would be another model


def config_from_torch(values: Mapping[str, Any]) -> SmolRGPTConfig:
    """Reads the PyTorch release's config.json (its parsed content).

    Missing fields, as in older checkpoints, take the published model's values, which a logged line says. Raises ConfigError for a field
    whose value asks for another architecture, or when `mp_image_token_length` contradicts the sizes.
    """
    for name in FIXED:
        if values.get(name, RELEASE[name]) != RELEASE[name]:
            raise ConfigError(f"config.json: {name}={values[name]!r} is not supported, only {RELEASE[name]!r}")
    parts: dict[str, dict[str, Any]] = {"": {}, "vision": {}, "decoder": {}}
    for name in OURS.keys() & values.keys():
        part, _, field = OURS[name].rpartition(".")
        parts[part][field] = values[name]
    if missing := [name for name in OURS if name not in values]:
        logging.getLogger(__name__).warning("config.json: %s not given, taken as published", ", ".join(missing))
    if "vlm_extra_tokens" in values:
        tokens = {ours: values["vlm_extra_tokens"][name] for name, ours in TOKENS.items()}
        parts[""]["special_tokens"] = SpecialTokens(**tokens)
    vision, decoder = VisionConfig(**parts["vision"]), DecoderConfig(**parts["decoder"])
    config = SmolRGPTConfig(vision=vision, decoder=decoder, **parts[""])
    stated = values.get("mp_image_token_length", config.image_tokens)
    if stated != config.image_tokens:
        given = f"the sizes give {config.image_tokens} image tokens"
        raise ConfigError(f"config.json: mp_image_token_length is {stated} but {given}")
    return config


def config_to_torch(config: SmolRGPTConfig, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Writes config.json for the PyTorch release: `base` (the imported file) updated by our values, or the release's own fields.

    Raises ConfigError for a model with parts other than that release's.
    """
    if type(config) is not SmolRGPTConfig:
        raise ConfigError(f"the PyTorch release has no model of {type(config).__name__}")
    result = dict(RELEASE if base is None else base)
    for name, ours in OURS.items():
        published, value = (attrgetter(ours)(c) for c in (SmolRGPTConfig(), config))
        if name in result or value != published:
            result[name] = value
    if base is None:
        result["lm_base_vocab_size"] = config.decoder.vocab_size - len(TOKENS)
        result["mp_image_token_length"] = config.image_tokens
        result["vlm_extra_tokens"] = {name: getattr(config.special_tokens, ours) for name, ours in TOKENS.items()}
    return result


def read_config(folder: Path) -> SmolRGPTConfig:
    """The configuration that a folder's config.json asks for; raises CheckpointError."""
    values, path = stored.read_config_json(folder), folder / CONFIG_FILE
    try:
        config = config_from_torch(values)
        entries(config)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (TypeError, LookupError, ValueError, ArithmeticError, AttributeError, MemoryError) as error:
        raise CheckpointError(f"{path} holds a value of the wrong kind: {error!r}") from error
    return config


def read_folder(folder: Path, *, allow_nan: bool = False) -> tuple[SmolRGPTConfig, StreamedParams, TorchLayout]:
    """Opens a PyTorch checkpoint folder from its headers: configuration, parameters and layout.

    The parameters (stacked over layers, in the files' dtypes; float32 where layers differ) are read when asked for. Raises
    CheckpointError for an unreadable file, for missing, unexpected or wrongly shaped tensors (all listed at once) and for a rotary
    buffer that contradicts the configuration. Reading a parameter raises it for two different heads in a tied model, and for NaN or
    infinite weights unless `allow_nan`; that error too lists all such tensors.
    """
    config = read_config(folder)
    tensors, layout = stored.open_tensors(folder, torch_shapes(config))
    table = entries(config)
    expected = {entry.torch: entry.torch_shape for entry in table}
    heads = [name for name in TIED_NAMES if name in tensors] if config.decoder.tied_head else []
    if config.decoder.tied_head:
        shape = expected.pop(TIED_NAMES[1])
        expected |= dict.fromkeys(heads or [" or ".join(TIED_NAMES)], shape)
    buffer = mapping.rotary_buffer(config)
    expected |= {INV_FREQ: buffer.shape} if INV_FREQ in tensors else {}
    check_fit(folder, tensors, expected)
    if INV_FREQ in tensors:
        held = tensors[INV_FREQ].read()
        layout.buffers[INV_FREQ] = held.astype(np.float64).tolist()
        if not np.allclose(held.astype(np.float32), buffer, rtol=1e-5 if held.dtype == np.float32 else 1e-2):
            raise CheckpointError(f"{folder}: {INV_FREQ} contradicts lm_re_base and the head size of {CONFIG_FILE}")

    def tensor_of(name: str) -> StoredTensor:
        """A tied head may stand under either name."""
        return tensors[name if name in tensors else TIED_NAMES[0]]

    def read(name: str) -> np.ndarray:
        array = tensor_of(name).read()
        if not allow_nan and not stored.is_finite(array) or name in heads and stored.untied(tensors, heads):
            bad = [] if allow_nan else [name for name, tensor in tensors.items() if not stored.is_finite(tensor.read())]
            problems = [f"{name} holds NaN or infinite values" for name in bad]
            check_fit(folder, tensors, expected, problems=[*problems, *stored.untied(tensors, heads)])
        return array

    return config, mapping.params_from_tensors(table, lambda name: stored.DTYPES[tensor_of(name).dtype], read), layout


def default_layout(config: SmolRGPTConfig) -> TorchLayout:
    """The layout the PyTorch release itself would write: float32, names in order, the tied head once."""
    names, metadata = set(torch_shapes(config)), {"format": "pt"}
    if config.decoder.tied_head:
        names.remove(TIED_NAMES[1])
        metadata = {TIED_NAMES[1]: TIED_NAMES[0]}
    files = {SINGLE_FILE: [[name, "F32"] for name in sorted(names)]}
    return TorchLayout(config_to_torch(config), files, {SINGLE_FILE: metadata})


def with_dtype(layout: TorchLayout, dtype: str) -> TorchLayout:
    """The layout with every parameter in one dtype ("F32", "F16" or "BF16"); the rotary buffer stays float32."""
    files = {f: [[n, d if n == INV_FREQ else dtype] for n, d in tensors] for f, tensors in layout.files.items()}
    index_metadata = layout.index_metadata
    if index_metadata is not None and "total_size" in index_metadata:
        index_metadata = {**index_metadata, "total_size": None}  # counted anew
    return replace(layout, files=files, index_metadata=index_metadata)


def with_shards(layout: TorchLayout, config: SmolRGPTConfig, max_bytes: int) -> TorchLayout:
    """The layout cut into files of at most `max_bytes` of tensors each, in order; one file if they all fit.

    A tensor that is larger alone has a file of its own. The metadata of the first file goes into all.
    """
    shapes = torch_shapes(config)
    shards: list[list[list[str]]] = []
    room = 0
    for name, dtype in (t for tensors in layout.files.values() for t in tensors):
        size = stored.tensor_bytes(shapes[name], dtype)
        if not shards or size > room:
            shards.append([])
            room = max_bytes
        shards[-1].append([name, dtype])
        room -= size
    names = [SINGLE_FILE]
    if len(shards) > 1:
        names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    metadata = next(iter(layout.metadata.values()), None)
    files = dict(zip(names, shards, strict=True))
    return replace(layout, files=files, metadata=dict.fromkeys(names, metadata), index_metadata=None)


def torch_shapes(config: SmolRGPTConfig) -> dict[str, tuple[int, ...]]:
    """{tensor name: shape} of a PyTorch checkpoint, the rotary buffer and both names of a tied head included."""
    shapes = {e.torch: e.torch_shape for e in entries(config)}
    if config.decoder.tied_head:
        shapes[TIED_NAMES[0]] = shapes[TIED_NAMES[1]]
    return shapes | {INV_FREQ: mapping.rotary_buffer(config).shape}


def write_folder(
    folder: Path,
    config: SmolRGPTConfig,
    params: Mapping[str, Any],
    layout: TorchLayout | None = None,
    tokenizer: Mapping[str, str] | None = None,
    *,
    allow_nan: bool = True,
) -> None:
    """Writes a PyTorch checkpoint folder; `layout` from `read_folder` gives back the same bytes.

    params: read piece by piece where they are streamed; tokenizer: {file name: text} to put beside the weights. Raises
    CheckpointError as `write_tensors` does.
    """
    layout = default_layout(config) if layout is None else layout
    texts = {CONFIG_FILE: json.dumps(config_to_torch(config, layout.config), indent=4), **(tokenizer or {})}
    buffer = np.asarray(layout.buffers.get(INV_FREQ, mapping.rotary_buffer(config)))
    tensors = chain([(INV_FREQ, buffer)], mapping.tensors_from_params(entries(config), params))
    twins = dict([TIED_NAMES]) if config.decoder.tied_head else {}
    stored.write_tensors(folder, layout, torch_shapes(config), tensors, texts, twins, allow_nan=allow_nan)
