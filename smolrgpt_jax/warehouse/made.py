"""A made scene: what its records are made of."""

from __future__ import annotations

import dataclasses

from smolrgpt_jax.warehouse.scene.geometry import Camera
from smolrgpt_jax.warehouse.words.captions import Caption
from smolrgpt_jax.warehouse.words.questions import Asked
from smolrgpt_jax.warehouse.words.spatial_questions import SpatialQuestion


@dataclasses.dataclass(frozen=True)
class MadeScene:
    """The picture's name, the camera, and all that is asked and said.

    ``questions`` are more than a split takes; ``spatial`` are the benchmark's (test split) or the
    turns of a conversation (train and val).
    """

    name: str
    camera: Camera
    questions: tuple[Asked, ...]
    region_captions: tuple[Caption, ...]
    scene_captions: tuple[Caption, ...]
    spatial: tuple[SpatialQuestion, ...] = ()
