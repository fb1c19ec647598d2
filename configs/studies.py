"""What the studies of eval.studies train and test: variants of the model, sizes, and the warehouses of the layout shift."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import demo
from smolrgpt_jax.config import PRESETS

_FILE = json.loads(Path(__file__).with_suffix(".json").read_text())
# Study -> variant -> what differs from the demo: fields of SmolRGPTConfig, or, after the name of a section, parameters of the warehouse
# ("warehouse.max_pallets"), settings of the training ("training.batch_rows"), what a study reads itself ("batch.rows"). With another
# resolution the encoder stays as it was trained, on pictures of 128 pixels; its table of positions is resized.
TRAINED: dict[str, dict[str, dict]] = _FILE["trained"]
# Steps of 8 rows, and scenes of the training split.
SIZES: dict[str, dict[str, int]] = _FILE["sizes"]

# The layout shift, version 1: a checkpoint trained on the demo's warehouse (any seed below demo.RESERVED_SEEDS) and tested on these. What is in
# a version stays as it is, so that numbers can be compared; changes make a new one.
SHIFT_VERSION = 1
SHIFT_SEED = 910_001
SIZE_TEST_SEED = 920_000
SHIFT: dict[str, dict] = _FILE["shift"]


def shifted_warehouse(variant: str, scenes: int = 100) -> dict:
    """Parameters of a test warehouse of the layout shift."""
    return {**demo.WAREHOUSE, "scenes": 0, "val_scenes": scenes, "test_scenes": 0, "seed": SHIFT_SEED, **SHIFT[variant]}


def section(changes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a variant changes in a section, by the names within it; "model": what stands without one."""
    named = {field if "." in field else f"model.{field}": value for field, value in changes.items()}
    return {field.removeprefix(f"{name}."): v for field, v in named.items() if field.startswith(f"{name}.")}


def trained_warehouse(size: str, seed: int, changes: Mapping[str, Any]) -> dict:
    """Parameters of the warehouse that a variant of a study of a size, a key of SIZES, trains and tests on."""
    return {**demo.WAREHOUSE, "scenes": SIZES[size]["scenes"], "seed": seed, **section(changes, "warehouse")}


def size_warehouses(size: str, seed: int) -> dict[str, dict]:
    """Parameters of the warehouses, in the layout of SpatialRGPT-Bench, that widths and heights are learned from and asked about."""
    common = {**demo.WAREHOUSE, "scenes": 0, "val_scenes": 0, "formats": ("bench",)}
    return {
        "train": {**common, "test_scenes": SIZES[size]["scenes"], "seed": seed},
        "test": {**common, "test_scenes": demo.WAREHOUSE["test_scenes"], "seed": SIZE_TEST_SEED + seed},
    }


def training(root: str, start: str, size: str, seed: int, image_tokens: int) -> ConfigDict:
    """The one stage that every variant is trained in, from fresh connectors and refiners."""
    config = demo.get_config("stage3", root)
    config.init_from = start
    config.seed = seed
    config.steps = SIZES[size]["steps"]
    # Rows keep their room for text where there are more image tokens.
    config.data.row_tokens += image_tokens - PRESETS["demo"].image_tokens
    return config
