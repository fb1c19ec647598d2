"""Scenes that several tests ask about."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from smolrgpt_jax.warehouse.make_scene import draw_scene, make_questions
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.picture.view import Region
from smolrgpt_jax.warehouse.scene.layout import Scene
from smolrgpt_jax.warehouse.words.questions import Asked

CONFIG = WarehouseConfig(width=96, height=54, seed=3)


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
    for index in range(500):
        scene, _, regions, rng = draw_scene(CONFIG, "train", index)
        made.append(Sample(scene, regions, make_questions(CONFIG, "train", scene, regions, rng)))
    return made


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
