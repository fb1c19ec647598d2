"""Writes a procedural warehouse in the published folder format, whose files docs/warehouse.md lists.

Where the configuration names them, it writes the formats of other_formats.py too. Pictures are numbered through all splits.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import multiprocessing
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from smolrgpt_jax.data.records import IMAGE, WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import check_empty, new_folder, read_json, write_json, write_list
from smolrgpt_jax.warehouse.make_scene import MadeScene, make
from smolrgpt_jax.warehouse.other_formats import digest, rles, turns, write_formats
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.picture.view import Region
from smolrgpt_jax.warehouse.words.questions import Asked

VERSION = 3
SCENES = 8  # that a process makes at a time; for fewer, starting it takes as long as it saves
T = TypeVar("T")


def make_warehouse(
    out: str | Path, config: WarehouseConfig | None = None, workers: int | None = None, **parameters: Any
) -> dict[str, Any]:
    """Makes a warehouse in a new folder, which appears whole or not at all, and returns its metadata.

    The files depend on the parameters alone, not on the number of workers, by default one process per core, fewer for few scenes.
    parameters: fields of the configuration to change.

    Raises:
      DataError: `out` exists and is not an empty folder.
      CheckpointError: `out` could not be written.
      ValueError: impossible parameters.
    """
    out = Path(out)
    config = dataclasses.replace(config or WarehouseConfig(), **parameters)
    check_empty(out)
    if out.exists():
        out.rmdir()
    with new_folder(out) as aside:
        return _write_records(aside, config, _make_all(aside, config, workers))


def ensure_warehouse(out: Path, config: WarehouseConfig) -> None:
    """Makes the warehouse unless it is there already.

    Raises:
      DataError: `out` holds a warehouse made with other parameters, whose names are told, or something else.
      CheckpointError: `out` could not be written.
    """
    file = out / "metadata.json"
    if not file.exists():
        make_warehouse(out, config)
        return
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    try:
        metadata = read_json(file, dict)
        version, parameters = metadata["version"], dict(metadata["parameters"])
    except (ValueError, KeyError, TypeError):
        version, parameters = None, {}
    if version != VERSION:
        raise DataError(f"{file} is not that of a warehouse of version {VERSION}; give another folder")
    other = sorted(name for name in {*wanted, *parameters} if wanted.get(name, ...) != parameters.get(name, ...))
    if other:
        raise DataError(f"{out} holds a warehouse with other {', '.join(other)}; give another folder")


def _make_all(folder: Path, config: WarehouseConfig, workers: int | None) -> dict[str, list[MadeScene]]:
    sizes = config.split_sizes()
    for name in (*sizes, *(name for name in ("osd", "coco") if name in config.formats)):
        for kind in ("images", "depths"):
            (folder / name / kind).mkdir(parents=True)
    splits, indices = zip(*[(split, i) for split, size in sizes.items() for i in range(size)])
    work, total = functools.partial(make, folder, config), len(splits)
    made: dict[str, list[MadeScene]] = {split: [] for split in sizes}
    workers = workers or min(os.cpu_count() or 1, total // SCENES)
    with contextlib.ExitStack() as stack:
        each: Callable[..., Iterable[MadeScene]] = map
        if workers > 1:
            pool = ProcessPoolExecutor(min(workers, total), mp_context=multiprocessing.get_context("spawn"))
            stack.callback(pool.shutdown, cancel_futures=True)  # who stops it does not wait for all scenes
            each = functools.partial(pool.map, chunksize=SCENES)
        scenes = each(work, splits, indices, range(total))
        for split, scene in zip(splits, tqdm(scenes, total=total, desc="scenes", unit="scene")):
            made[split].append(scene)
    return made


def interleaved(items: Sequence[T], classes: Sequence[object]) -> list[T]:
    """Orders items so that classes take turns; within a class the order stays.

    Any beginning of the result holds about as many items of each class as there are:

        items a1 a2 a3 b1, classes A A A B  ->  a1 b1 a2 a3
    """
    seen: dict[object, Iterator[int]] = defaultdict(itertools.count)
    turns = [next(seen[label]) for label in classes]
    return [items[place] for place in sorted(range(len(items)), key=turns.__getitem__)]


def choose(scenes: Sequence[Sequence[Asked]], shares: dict[str, float], most: int) -> list[list[Asked]]:
    """Chooses questions of each scene, in their order, so that categories have their shares and answers are balanced.

    Sides and counts take turns, so that no constant answer does well; questions are taken from as many scenes as possible.

    Args:
      scenes: the questions of each scene, in random order within a category.
      shares: of each category, adding up to 1.
      most: the number of questions wanted; fewer are chosen where a category runs out.
    """
    pools: dict[str, list[tuple[int, int]]] = {}  # category -> (scene, question)
    for category in shares:
        every = [(scene, i) for scene, own in enumerate(scenes) for i, q in enumerate(own) if q.category == category]
        pool = interleaved(every, [scene for scene, _ in every])
        if category in ("left_right", "count"):
            pool = interleaved(pool, [scenes[scene][i].normalized_answer for scene, i in pool])
        pools[category] = pool
    total = min([most, *(len(pools[category]) / share for category, share in shares.items() if share)])
    taken = {place for category, share in shares.items() for place in pools[category][: int(total * share + 1e-6)]}
    return [[q for i, q in enumerate(own) if (scene, i) in taken] for scene, own in enumerate(scenes)]


def _write_records(folder: Path, config: WarehouseConfig, made: dict[str, list[MadeScene]]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"version": VERSION, "parameters": dataclasses.asdict(config), "splits": {}}
    for split, scenes in made.items():
        shares = dict(zip(WAREHOUSE_CATEGORIES, config.shares(split)))
        most = round(config.questions_per_picture * len(scenes))
        chosen = choose([scene.questions for scene in scenes], shares, most)
        records = [_question(scene, q, config) for scene, questions in zip(scenes, chosen) for q in questions]
        if split == "test":
            write_list(folder / "test_answers.json", records)
            shown = [{name: record[name] for name in ("id", "image", "conversations", "rle")} for record in records]
            write_list(folder / "test.json", (r | {"conversations": r["conversations"][:1]} for r in shown))
        else:
            write_list(folder / f"{split}.json", records)
            named = [(scene.name, c) for scene in scenes for c in scene.region_captions]
            kind = {"category": "region_caption"}
            regions = (_record(name, c.prompt, c.text, c.regions, config, **kind) for name, c in named)
            write_list(folder / f"{split}_regions.json", regions)
            whole = [(scene.name, i, c) for scene in scenes for i, c in enumerate(scene.scene_captions)]
            captions = ({"id": f"{n}-{i}", **_chat(n, f"{IMAGE}\n{c.prompt}", c.text)} for n, i, c in whole)
            write_list(folder / f"{split}_captions.json", captions)
        metadata["splits"][split] = _statistics(scenes, [question for questions in chosen for question in questions])
    metadata["formats"] = write_formats(folder, config, made)
    write_json(folder / "metadata.json", metadata)
    return metadata


def _chat(name: str, prompt: str, answer: str) -> dict[str, Any]:
    return {"image": f"{name}.png", "conversations": turns([(prompt, answer)])}


def _record(
    name: str, prompt: str, answer: str, regions: Sequence[Region], config: WarehouseConfig, **more: Any
) -> dict[str, Any]:
    """A record of the published format; its id is a hash of what it says about which picture."""
    own_id = digest([config.seed, name, prompt, answer, [region.counts for region in regions]])
    return {"id": own_id, **_chat(name, prompt, answer), "rle": rles(regions, config), **more}


def _question(scene: MadeScene, asked: Asked, config: WarehouseConfig) -> dict[str, Any]:
    more = {"category": asked.category, "normalized_answer": asked.normalized_answer, "freeform_answer": asked.answer}
    return _record(scene.name, asked.prompt, asked.answer, asked.regions, config, **more)


def _statistics(scenes: Sequence[MadeScene], questions: Sequence[Asked]) -> dict[str, Any]:
    """What a reader of metadata.json wants to know about a split."""
    answers = {name: [q.normalized_answer for q in questions if q.category == name] for name in WAREHOUSE_CATEGORIES}
    result: dict[str, Any] = {
        "scenes": len(scenes),
        "questions": {category: len(values) for category, values in answers.items()},
        "region_captions": sum(len(scene.region_captions) for scene in scenes),
        "scene_captions": sum(len(scene.scene_captions) for scene in scenes),
    }
    for category in ("left_right", "count", "mcq"):
        counts = Counter(answers[category])
        # Numbers by their value, words by the alphabet.
        result[f"{category}_answers"] = {str(k): counts[k] for k in sorted(counts, key=lambda k: (len(str(k)), str(k)))}
    if answers["distance"]:
        metres = np.array(answers["distance"])
        result["distance_metres"] = {
            "mean": round(float(metres.mean()), 2),
            "zeros": int((metres == 0).sum()),
            "quartiles": [round(q, 2) for q in np.quantile(metres, (0.25, 0.5, 0.75)).tolist()],
            "largest": round(float(metres.max()), 2),
        }
    cameras = [(s.camera.position[2], math.degrees(s.camera.pitch), s.camera.focal) for s in scenes]
    for label, values in zip(("height_metres", "pitch_degrees", "focal_widths"), zip(*cameras)):
        result[f"camera_{label}"] = [round(min(values), 2), round(max(values), 2)]
    return result
