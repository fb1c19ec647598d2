"""One scene of a warehouse: its two pictures on disk, and what is asked and said about it."""

import dataclasses
import math
from pathlib import Path

import numpy as np
from PIL import Image

from smolrgpt_jax.data.images import depth_to_grey
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.warehouse.parameters import SPLITS, WarehouseConfig
from smolrgpt_jax.warehouse.picture.view import Region, Rendering, render, visible_regions
from smolrgpt_jax.warehouse.scene.geometry import Camera
from smolrgpt_jax.warehouse.scene.layout import Scene, make_scene
from smolrgpt_jax.warehouse.scene.objects import Rng
from smolrgpt_jax.warehouse.words.captioning import Caption, Captioner, scene_captions
from smolrgpt_jax.warehouse.words.questions import Asked, Asker
from smolrgpt_jax.warehouse.words.spatial_questions import SpatialQuestion, benchmark_questions, conversation, solids

DRAWS = 50  # of a scene, of which nearly always the first will do
JPEG_QUALITY = 92


@dataclasses.dataclass(frozen=True)
class MadeScene:
    """A scene whose pictures are written, with all that is asked and said about it."""

    name: str  # of its pictures, without suffix
    camera: Camera
    questions: list[Asked]  # more than a split takes
    region_captions: list[Caption]
    scene_captions: list[Caption]
    regions: list[Region]  # all that is seen
    spatial: list[SpatialQuestion]  # the benchmark's (test split) or the turns of a conversation (train and val)


def draw_scene(config: WarehouseConfig, split: str, index: int) -> tuple[Scene, Rendering, list[Region], Rng]:
    """Draws and renders a scene of a split; the generator is for what is asked about it.

    The seed is (configuration's seed, split, index), so splits share no scene and a split does not
    change with the size of another. Raises ValueError if hardly anything is ever seen.
    """
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, SPLITS.index(split), index]))
    # A view that shows hardly anything teaches nothing, and whether a pallet on a line counts as
    # inside nobody can tell; the generator's next scene replaces such a one.
    for _ in range(DRAWS):
        scene = make_scene(rng, config)
        if scene.half_inside(config.clear_lines):
            continue
        rendering = render(scene, config.width, config.height)
        regions = visible_regions(scene, rendering, config.min_area)
        kinds = [region.kind for region in regions]
        if kinds.count("pallet") >= 3 and "buffer" in kinds:
            return scene, rendering, regions, rng
    wanted = f"three pallets and a buffer of at least {config.min_area:.2%} of the picture each"
    none = f"none of {DRAWS} draws shows {wanted}, with no pallet on a line"
    raise ValueError(f"scene {index} of {split}: {none}")


def make_questions(config: WarehouseConfig, split: str, scene: Scene, regions: list[Region], rng: Rng) -> list[Asked]:
    """Questions of every category, one or two more of each than the split takes on average."""
    seen, buffer = {region.thing.number for region in regions}, scene.things[scene.counted - 1]
    hidden = any(pallet.number not in seen for pallet in scene.of_kind("pallet") if buffer.holds(pallet.position))
    further = config.further_wordings if split == "train" else 0.0
    asker = Asker(regions, 0 if hidden else scene.counted, rng, config.answers, further)
    wanted = [math.ceil(config.questions_per_picture * share) + 1 for share in config.shares(split)]
    return [question for name, most in zip(WAREHOUSE_CATEGORIES, wanted) for question in asker.ask(name, most)]


def make_spatial(
    config: WarehouseConfig, split: str, scene: Scene, regions: list[Region], rng: Rng
) -> list[SpatialQuestion]:
    """Questions for the formats that have spatial ones, drawn with a child of the scene's generator."""
    if ("bench" if split == "test" else "osd") not in config.formats:
        return []
    draw = benchmark_questions if split == "test" else conversation
    return draw(solids(scene, regions, config.width, config.height), rng.spawn(1)[0])


def make(root: Path, config: WarehouseConfig, split: str, index: int, number: int) -> MadeScene:
    """Makes scene `index` of a split and writes its pictures, which go by `number`, also in the Open Spatial Dataset's format."""
    name = f"{number:06d}"
    scene, rendering, regions, rng = draw_scene(config, split, index)
    rgb, grey = Image.fromarray(rendering.rgb), Image.fromarray(depth_to_grey(rendering.depth))
    rgb.save(root / split / "images" / f"{name}.png", compress_level=1)
    grey.save(root / split / "depths" / f"{name}_depth.png", compress_level=1)
    questions, captions, overviews = make_questions(config, split, scene, regions, rng), [], []
    if split != "test":
        captions = Captioner(regions, config.max_caption_regions, rng, config.answers).captions(config.captions)
        overviews = scene_captions(regions, config.scene_captions, rng)
        if "osd" in config.formats:
            rgb.save(root / "osd/images" / f"{name}.jpg", quality=JPEG_QUALITY)
            # Three equal channels, as that set has them.
            grey.convert("RGB").save(root / "osd/depths" / f"{name}.png", compress_level=1)
    if split == "train" and "coco" in config.formats:
        millimetres = np.round(1000 * rendering.depth).clip(1, 65534).astype(np.uint16)
        Image.fromarray(millimetres).save(root / "coco/depths" / f"{name}.png", compress_level=1)
    spatial = make_spatial(config, split, scene, regions, rng)
    return MadeScene(name, scene.camera, questions, captions, overviews, regions, spatial)
