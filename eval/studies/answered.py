"""Studies of a checkpoint: the same questions once more with something taken away or moved. Nothing is trained."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from eval.assist.estimated_depth import DepthModel
from eval.assist.tightened import opencv
from eval.scoring.blind import BlindBaseline
from eval.side_questions import GREY, region_kinds
from eval.studies.boxes import boxed, tightened
from eval.studies.depth_quality import STEPS, DepthChange, estimated, grey_depth
from eval.studies.findings import Found, Limits, of_one_run, paired_differences, score, write_study
from eval.studies.other_words import reworded
from smolrgpt_jax.data.images import picture_size
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

Records = list[dict]
ON_ANOTHER_PICTURE = "on another picture"
OTHER_SIDE = {"left": "right", "right": "left"}


def reordered(records: Records, rng: np.random.Generator, *_: Path) -> Records:
    """The masks of each kind in another random order that leaves none in its place; what the right answer names or compares moves
    along."""
    return [_reordered(record, rng) for record in records]


def _reordered(record: dict, rng: np.random.Generator) -> dict:
    kinds = region_kinds(record["conversations"][0]["value"])
    order = np.arange(len(kinds))
    for kind in sorted(set(kinds)):
        places = np.flatnonzero([k == kind for k in kinds])
        order[places] = places[_derangement(len(places), rng)]
    value = record["normalized_answer"]
    if record["category"] == "mcq":
        value = str(order.tolist().index(int(value)))
    elif record["category"] == "left_right" and order[0] != 0:
        value = OTHER_SIDE[value]
    return {**record, "rle": [record["rle"][i] for i in order], "normalized_answer": value}


def _derangement(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random order of n things in which none keeps its place, as far as there is one."""
    order = np.arange(n)
    while n > 1 and (order == np.arange(n)).any():
        order = rng.permutation(n)
    return order


def elsewhere(records: Records, rng: np.random.Generator, *_: Path) -> Records:
    """Every record's masks and question on the picture of another scene; pictures are exchanged among the records."""
    names = sorted({record["image"] for record in records})
    shift = int(rng.integers(1, len(names)))
    other = {name: names[(i + shift) % len(names)] for i, name in enumerate(names)}
    return [{**record, "image": other[record["image"]]} for record in records]


def grey_picture(picture: Path, *_: Any) -> Image.Image:
    return Image.new("RGB", picture_size(picture)[::-1], (GREY,) * 3)


# Name of a variant -> what becomes of the pictures in the folders `images` and `depths`, or of the records, whose pictures lie in a folder.
Variant = Mapping[str, DepthChange] | Callable[[Records, np.random.Generator, Path], Records]
UNCHANGED: Variant = {}
ESTIMATED = "estimated"
STUDIES: dict[str, dict[str, Variant]] = {
    "inputs": {
        "everything": UNCHANGED,
        "no depth": {"depths": grey_depth},
        "no RGB": {"images": grey_picture},
        "masks alone": {"images": grey_picture, "depths": grey_depth},
    },
    "masks": {"as they are": UNCHANGED, "in another order": reordered, ON_ANOTHER_PICTURE: elsewhere},
    "boxes": {"masks": UNCHANGED, "boxes": boxed, "tightened boxes": tightened},
    "depth_quality": {"exact depth": UNCHANGED} | {name: {"depths": change} for name, change in STEPS.items()},
    "words": {"as trained": UNCHANGED, "in other words": reworded},
}


def check_records(name: str, records: Records, source: Path) -> None:
    """Raises DataError, naming the annotation file, for records that a study cannot ask, ImportError without what it needs: before
    they are answered, not after."""
    for index, record in enumerate(records):
        if record.get("normalized_answer") is None:
            answers = source.with_name(f"{source.stem}_answers.json")
            hint = f"; {answers.name} lies beside it, ask --annotations={answers.name}" if answers.exists() else ""
            raise DataError(f"{source}: record {index} has no answer to score against{hint}")
    if tightened in STUDIES[name].values():
        opencv()
    if ON_ANOTHER_PICTURE in STUDIES[name] and len({record["image"] for record in records}) < 2:
        raise DataError(f"{source}: masks cannot be laid on another picture, there is only one")


def write_variant(variant: Variant, records: Records, pictures: Path, out: Path, rng: np.random.Generator) -> None:
    """Writes a folder in the published layout, split "val", with the variant of the records and their pictures."""
    changed, others = (variant(records, rng, pictures), UNCHANGED) if callable(variant) else (records, variant)
    for kind in ("images", "depths"):
        (out / "val" / kind).mkdir(parents=True)
    for name in sorted({Path(record["image"]).stem for record in changed}):
        files = {"images": f"{name}.png", "depths": f"{name}_depth.png"}
        sources = {kind: pictures / kind / file for kind, file in files.items()}
        for kind, file in files.items():
            target = out / "val" / kind / file
            if kind in others:
                others[kind](sources["images"], sources["depths"], rng).save(target)
            else:
                shutil.copyfile(sources[kind], target)
    (out / "val.json").write_text(json.dumps(changed), encoding="utf-8")


def run_study(
    name: str,
    model: "Model",
    records: Records,
    pictures: Path,
    out: Path,
    limits: Limits,
    seed: int,
    checkpoint: Path,
    blind: BlindBaseline | None = None,
    estimator: DepthModel | None = None,
) -> tuple[Found, Found]:
    """Answers all variants of a study; writes OUT/VARIANT (what eval.warehouse writes) and the study's files.

    blind: what answering without looking gives, for the reports. estimator: of a further variant, whose depth it estimates.
    Returns the scores of each variant with 95 % intervals over pictures, and what the others score more than the first. Raises
    DataError for records or pictures that cannot be used.
    """
    variants = STUDIES[name] | ({ESTIMATED: {"depths": estimated(estimator)}} if estimator else {})
    folders = {variant: out / variant.replace(" ", "_") for variant in variants}
    for variant, results in folders.items():
        print(f"{name}: {variant}", flush=True)
        details = {"study": name, "variant": variant, "checkpoint": checkpoint, "data": pictures}
        with tempfile.TemporaryDirectory(prefix="smolrgpt_study_") as folder:
            write_variant(variants[variant], records, pictures, Path(folder), np.random.default_rng(seed))
            score(model, read_warehouse(folder, "val"), results, limits, blind=blind, **details)
    found = {variant: of_one_run(results) for variant, results in folders.items()}
    (_, first), *others = folders.items()
    differences = {variant: paired_differences(first, results) for variant, results in others}
    write_study(out, found, differences, study=name, seed=seed)
    return found, differences
