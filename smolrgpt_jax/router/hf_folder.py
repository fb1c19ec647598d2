"""Longformer classifiers as Hugging Face folders: config.json and model.safetensors, both directions over one table.

Reading is strict: every missing, unexpected or wrongly shaped tensor is reported in one error. A float32 folder that
transformers saved is written back byte for byte.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from smolrgpt_jax.checkpoint import safetensors_folder as stored
from smolrgpt_jax.checkpoint.mapping import Entry, entries_of, params_from_tensors, read_rules, tensors_from_params
from smolrgpt_jax.config import misfit
from smolrgpt_jax.errors import CheckpointError, ConfigError
from smolrgpt_jax.router.longformer import LongformerConfig, abstract_params

RULES = read_rules("longformer")
# A buffer of consecutive numbers, which old versions of transformers saved.
_POSITION_BUFFER = "longformer.embeddings.position_ids"
MOST_LABELS = 1000
_HEADS = ("classifier.", "lm_head.", "longformer.pooler.")

_FIELDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def entries(config: LongformerConfig) -> list[Entry]:
    """Every tensor of a classifier of this configuration, in table order."""
    shapes = {name: tuple(param.shape) for name, param in abstract_params(config).items()}
    return entries_of(RULES, shapes, config.vocab_size)


def _config(path: Path, values: Mapping[str, Any]) -> LongformerConfig:
    """The configuration of a Longformer that config.json describes; raises CheckpointError."""
    if values.get("model_type") != "longformer":
        raise CheckpointError(f"{path}: model type {values.get('model_type')!r} is no Longformer")
    if values.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"{path}: hidden_act is {values['hidden_act']!r}, only gelu is computed")
    fields = {ours: values.get(name, default) for name, (ours, default) in _FIELDS.items()}
    windows = values.get("attention_window", 512)
    windows = windows if isinstance(windows, list) else [windows]
    if any(window != windows[0] for window in windows):
        raise CheckpointError(f"{path}: attention_window differs between layers, only one window for all is computed")
    fields["window"] = windows[0] if windows else None
    try:
        return LongformerConfig(labels=_labels(values), **fields)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _labels(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels in the order of the logits; raises ConfigError."""
    # Without id2label transformers numbers them itself.
    count = values.get("num_labels", 2)
    if misfit(count, 2) or count > MOST_LABELS:
        raise ConfigError(f"num_labels is {count!r}, expected a number of at most {MOST_LABELS}")
    names = values.get("id2label") or {str(i): f"LABEL_{i}" for i in range(count)}
    if not isinstance(names, dict) or set(names) != set(map(str, range(len(names)))):
        raise ConfigError(f"id2label is no object from 0, 1, ... to names: {names!r}")
    return tuple(str(names[str(i)]) for i in range(len(names)))


def read_longformer(
    folder: Path, *, encoder_only: bool = False
) -> tuple[LongformerConfig, dict[str, np.ndarray], dict[str, Any]]:
    """Reads a classifier, or the encoder of any Longformer, without its heads (`head_*` of the parameters).

    Returns the configuration, the parameters (float32, layers stacked) and config.json as it stands. Raises CheckpointError, which
    lists all missing, unexpected, wrongly shaped and not finite tensors.
    """
    values = stored.read_config_json(folder)
    config = _config(folder / stored.CONFIG_FILE, values)
    table = entries(config)
    tensors, _ = stored.open_tensors(folder, {entry.torch for entry in table})
    tensors.pop(_POSITION_BUFFER, None)
    if encoder_only:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEADS)}
        table = [entry for entry in table if not entry.torch.startswith(_HEADS)]
    expected = {entry.torch: entry.torch_shape for entry in table}
    stored.check_fit(folder, tensors, expected)
    problems = []

    def read(name: str) -> np.ndarray:
        array = tensors[name].read().astype(np.float32, copy=False)
        if not stored.is_finite(array):
            problems.append(f"{name} holds NaN or infinite values")
        return array

    params = dict(params_from_tensors(table, lambda name: np.dtype(np.float32), read))
    stored.check_fit(folder, tensors, expected, problems=problems)
    return config, params, values


def longformer_config_values(config: LongformerConfig) -> dict[str, Any]:
    """The fields of config.json that describe a classifier, for transformers to read."""
    return {
        "architectures": ["LongformerForSequenceClassification"],
        "attention_window": [config.window] * config.layers,
        "dtype": "float32",
        "hidden_act": "gelu",
        "id2label": {str(i): label for i, label in enumerate(config.labels)},
        "label2id": {label: i for i, label in enumerate(config.labels)},
        "model_type": "longformer",
        **{name: getattr(config, ours) for name, (ours, _) in _FIELDS.items()},
    }


def write_longformer(
    folder: Path,
    config: LongformerConfig,
    params: Mapping[str, jax.Array | np.ndarray],
    values: Mapping[str, Any],
    files: Mapping[str, str],
) -> None:
    """Writes a classifier as float32, tensors in the order of their names, as safetensors has them.

    values: content of config.json; files: {name: text} of the tokenizer. The folder appears whole or not at all. Raises
    CheckpointError if it exists or cannot be written.
    """
    table = entries(config)
    shapes = {entry.torch: entry.torch_shape for entry in table}
    tensors = {stored.SINGLE_FILE: [[name, "F32"] for name in sorted(shapes)]}
    layout = stored.TorchLayout(dict(values), tensors, {stored.SINGLE_FILE: {"format": "pt"}})
    texts = {stored.CONFIG_FILE: json.dumps(values, indent=2) + "\n", **files}
    stored.write_tensors(folder, layout, shapes, tensors_from_params(table, params), texts)
