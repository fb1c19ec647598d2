"""Scenes that several tests ask about."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from smolrgpt_jax.warehouse.make_scene import draw_scene, make_questions
from smolrgpt_jax.warehouse.parameters import FORMATS, WarehouseConfig
from smolrgpt_jax.warehouse.picture.view import Region
from smolrgpt_jax.warehouse.scene.layout import Scene
from smolrgpt_jax.warehouse.words.questions import Asked
from smolrgpt_jax.warehouse.write import make_warehouse

CONFIG = WarehouseConfig(width=96, height=54, seed=3)
WRITTEN = WarehouseConfig(
    scenes=12, val_scenes=3, test_scenes=4, seed=4, width=160, height=90, max_pallets=6, formats=FORMATS
)


@dataclasses.dataclass(frozen=True)
class Sample:
    scene: Scene
    regions: list[Region]
    questions: list[Asked]


@pytest.fixture(scope="session")
def config() -> WarehouseConfig:
    """Of the samples."""
    return CONFIG


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    made = []
    for index in range(320):
        scene, _, regions, rng = draw_scene(CONFIG, "train", index)
        made.append(Sample(scene, regions, make_questions(CONFIG, "train", scene, regions, rng)))
    return made


@pytest.fixture(scope="session")
def written() -> WarehouseConfig:
    """Of `warehouse`."""
    return WRITTEN


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory) -> Path:
    """The folder of a small warehouse in all formats; tests only read it."""
    folder = tmp_path_factory.mktemp("sim") / "warehouse"
    make_warehouse(folder, WRITTEN, workers=1)
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
