"""Writes a procedural warehouse in the published folder format.

    {train,val,test}.json                       records of the published format; test without answers
    {train,val,test}/images/NNNNNN.png          RGB
    {train,val,test}/depths/NNNNNN_depth.png    8-bit depth, near dark, far bright, scaled within the picture
    test_answers.json                           the test records with their answers
    {train,val}_captions.json                   LLaVA-CC3M chat format
    {train,val}_regions.json                    region captions as records of category "region_caption"
    metadata.json                               arguments and counts
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from smolrgpt_jax.data.records import DataError, WAREHOUSE_CATEGORIES
from smolrgpt_jax.data.warehouse_sim.captions import Captioner, scene_caption
from smolrgpt_jax.data.warehouse_sim.questions import Asked, Asker
from smolrgpt_jax.data.warehouse_sim.render import depth_to_grey, render
from smolrgpt_jax.data.warehouse_sim.scene import SceneLimits, make_scene
from smolrgpt_jax.data.warehouse_sim.view import Region, visible_regions

SPLITS = ("train", "val", "test")
VERSION = 1


@dataclasses.dataclass(frozen=True)
class WarehouseConfig:
    """What to make. scenes per split; picture size in pixels; questions of each category and region captions of each kind per
    picture, where the scene allows."""

    scenes: int = 1000
    val_scenes: int = 100
    test_scenes: int = 100
    seed: int = 0
    width: int = 1920
    height: int = 1080
    max_pallets: int = 10
    questions: tuple[int, int, int, int] = (2, 1, 2, 2)  # left_right, count, mcq, distance
    captions: tuple[int, ...] = (2, 1, 1, 1, 1, 1, 1, 1)  # in the order of Captioner.KINDS

    def __post_init__(self) -> None:
        if min(self.scenes, self.val_scenes, self.test_scenes) < 0 or self.scenes + self.val_scenes + self.test_scenes == 0:
            raise ValueError("the numbers of scenes must be positive")
        if not (32 <= self.width <= 1920 and 32 <= self.height <= 1080):
            raise ValueError(f"pictures of {self.width}x{self.height} pixels are outside 32x32 to 1920x1080")
        if not 4 <= self.max_pallets <= 10:
            raise ValueError(f"max_pallets is {self.max_pallets}, must be 4 to 10")

    def split_sizes(self) -> dict[str, int]:
        return dict(zip(SPLITS, (self.scenes, self.val_scenes, self.test_scenes)))


def make_warehouse(out: str | Path, config: WarehouseConfig, workers: int | None = None) -> dict[str, Any]:
    """Makes a warehouse in the new folder `out` and returns its metadata.

    The result depends on the configuration alone, not on the number of workers. Raises DataError if `out` exists and is not
    empty; it appears whole or not at all.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} exists already and is not empty; nothing was written")
    aside = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        jobs, first = [], 0
        for split, size in config.split_sizes().items():
            (aside / split / "images").mkdir(parents=True)
            (aside / split / "depths").mkdir()
            jobs += [(aside / split, first + i, config) for i in range(size)]
            first += size
        workers = os.cpu_count() or 1 if workers is None else workers
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            made = list(tqdm(pool.map(_make_scene_files, jobs, chunksize=8), total=len(jobs), desc="scenes", unit="scene"))
        metadata = _write_records(aside, config, made)
        if out.exists():
            out.rmdir()
        aside.rename(out)
        return metadata
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _make_scene_files(job: tuple[Path, int, WarehouseConfig]) -> dict[str, list[dict]]:
    """Renders one scene, writes its pictures, and returns its records."""
    folder, number, config = job
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, number]))
    limits = SceneLimits(max_pallets=config.max_pallets)
    # A view in which hardly anything is visible teaches nothing; the next draw of the same generator replaces it.
    while True:
        scene = make_scene(rng, limits)
        rendering = render(scene, config.width, config.height)
        regions = visible_regions(scene, rendering)
        if sum(r.kind == "pallet" for r in regions) >= 3 and any(r.kind == "buffer" for r in regions):
            break
    name = f"{number:06d}"
    Image.fromarray(rendering.rgb).save(folder / "images" / f"{name}.png", compress_level=1)
    Image.fromarray(depth_to_grey(rendering.depth)).save(folder / "depths" / f"{name}_depth.png", compress_level=1)
    hidden = {p.number for p in scene.of_kind("pallet") if p.inside == scene.target_buffer} - {r.thing.number for r in regions}
    target = 0 if hidden else scene.target_buffer
    questions = []
    for category, wanted in zip(WAREHOUSE_CATEGORIES, config.questions):
        asked: list[Asked] = []
        for _ in range(4 * wanted):
            question = Asker(regions, target, rng).of_category(category) if len(asked) < wanted else None
            if question is not None and question.question not in {a.question for a in asked}:
                asked.append(question)
        questions += [_record(name, a.question, a.answer, a.regions, a.category, a.normalized_answer, rng) for a in asked]
    captioner = Captioner(regions, rng)
    region_captions = []
    for kind, wanted in zip(Captioner.KINDS, config.captions):
        for caption in filter(None, (captioner.make(kind) for _ in range(wanted))):
            region_captions.append(_record(name, caption.prompt, caption.text, caption.regions, "region_caption", None, rng))
    scene_text = scene_caption(regions, rng)
    chat = [{"from": "human", "value": f"<image>\n{scene_text.prompt}"}, {"from": "gpt", "value": scene_text.text}]
    return {"questions": questions, "regions": region_captions, "captions": [{"id": name, "image": f"{name}.png", "conversations": chat}]}


def _record(name: str, prompt: str, answer: str, regions: tuple[Region, ...], category: str, normalized: Any, rng: np.random.Generator) -> dict:
    """One record of the published format; its id is a hash of its content."""
    rle = [r.rle for r in regions]
    digest = hashlib.md5(json.dumps([name, prompt, answer, rle]).encode(), usedforsecurity=False).hexdigest()
    # As published, some questions carry the picture's mark and some do not.
    value = f"<image>\n{prompt}" if rng.random() < 0.7 else prompt
    record = {
        "id": digest,
        "image": f"{name}.png",
        "conversations": [{"from": "human", "value": value}, {"from": "gpt", "value": answer}],
        "rle": rle,
        "category": category,
    }
    if normalized is not None:
        record |= {"normalized_answer": normalized, "freeform_answer": answer}
    return record


def _write_records(folder: Path, config: WarehouseConfig, made: list[dict[str, list[dict]]]) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    first = 0
    for split, size in config.split_sizes().items():
        scenes = made[first : first + size]
        first += size
        records = {kind: _unique(r for scene in scenes for r in scene[kind]) for kind in ("questions", "regions", "captions")}
        if split == "test":
            _dump(folder / "test_answers.json", records["questions"])
            hidden = ("category", "normalized_answer", "freeform_answer")
            bare = [{**{k: v for k, v in r.items() if k not in hidden}, "conversations": r["conversations"][:1]} for r in records["questions"]]
            _dump(folder / "test.json", bare)
        else:
            _dump(folder / f"{split}.json", records["questions"])
            _dump(folder / f"{split}_regions.json", records["regions"])
            _dump(folder / f"{split}_captions.json", records["captions"])
        by_category = Counter(r["category"] for r in records["questions"])
        counts[split] = {"scenes": size, **{c: by_category[c] for c in WAREHOUSE_CATEGORIES}}
        counts[split]["region_captions"] = 0 if split == "test" else len(records["regions"])
    metadata = {"version": VERSION, "config": dataclasses.asdict(config), "counts": counts}
    _dump(folder / "metadata.json", metadata)
    return metadata


def _unique(records) -> list[dict]:
    return list({record["id"]: record for record in records}.values())


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1 if isinstance(value, dict) else None), encoding="utf-8")
