"""The same warehouse in the formats of other data sets, so that every reader has something to read.

    bench/SpatialRGPT-Bench_v1.json    questions about the test split, with images/N.png and depths/N.png
    osd/result_10_depth_convs.json     conversations of several turns about the train split, and
    osd/val_convs.json                 about the val split, with images/N.jpg and depths/N.png
    llava/chat.json, val_chat.json     captions of the train and val split, with images/N.png
    parquet/                           all of these, and the warehouse's own questions; see parquet.py

Depth pictures are those of the warehouse, near dark and far bright, in all of them. Pictures that
need no other encoding are hard links where the file system has them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from smolrgpt_jax.data.records import IMAGE, MASK
from smolrgpt_jax.warehouse.files import dump, link
from smolrgpt_jax.warehouse.made import MadeScene
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.parquet import write_parquet_sets
from smolrgpt_jax.warehouse.picture.view import Region

BENCH_FILE = "SpatialRGPT-Bench_v1.json"
OSD_FILES = {"train": "result_10_depth_convs.json", "val": "val_convs.json"}
LLAVA_FILES = {"train": "chat.json", "val": "val_chat.json"}
JPEG_QUALITY = 92
FOLDERS = {
    "bench": ("bench/images", "bench/depths"),
    "osd": ("osd/images", "osd/depths"),
    "llava": ("llava/images",),
    "parquet": (),
}


def make_folders(root: Path, formats: Sequence[str]) -> None:
    """Makes the folders for the pictures of some formats."""
    for name in formats:
        for folder in FOLDERS[name]:
            (root / folder).mkdir(parents=True)


def write_osd_pictures(root: Path, name: str, rgb: np.ndarray, grey: np.ndarray) -> None:
    """Writes a scene's pictures as the Open Spatial Dataset has them.

    Args:
      root: the warehouse's folder.
      name: of the picture, without suffix.
      rgb: uint8[H, W, 3]; grey: uint8[H, W], written as three equal channels.
    """
    Image.fromarray(rgb).save(root / "osd/images" / f"{name}.jpg", quality=JPEG_QUALITY)
    depth = np.repeat(grey[..., None], 3, axis=2)
    Image.fromarray(depth).save(root / "osd/depths" / f"{name}.png", compress_level=1)


def write_formats(root: Path, config: WarehouseConfig, made: dict[str, list[MadeScene]]) -> dict[str, dict[str, int]]:
    """Writes the formats that the configuration names.

    Args:
      root: the warehouse's folder, whose own records are written.
      config: of the warehouse.
      made: the scenes of each split.

    Returns:
      For each format how many records or questions there are of what.
    """
    counts: dict[str, dict[str, int]] = {}
    if "bench" in config.formats:
        records = [record for scene in made["test"] for record in _bench_records(scene, config)]
        dump(root / "bench" / BENCH_FILE, records)
        for scene in made["test"]:
            link(root / "test/images" / f"{scene.name}.png", root / "bench/images" / f"{scene.name}.png")
            link(root / "test/depths" / f"{scene.name}_depth.png", root / "bench/depths" / f"{scene.name}.png")
        counts["bench"] = dict(sorted(Counter(record["qa_info"]["category"] for record in records).items()))
    if "osd" in config.formats:
        for split, file in OSD_FILES.items():
            dump(root / "osd" / file, (_osd_record(s, config) for s in made[split] if s.spatial))
        turns = {split: sum(len(scene.spatial) for scene in made[split]) for split in OSD_FILES}
        counts["osd"] = {f"{split}_turns": number for split, number in turns.items()}
    if "llava" in config.formats:
        for split, file in LLAVA_FILES.items():
            shutil.copyfile(root / f"{split}_captions.json", root / "llava" / file)
            for scene in made[split]:
                link(root / split / "images" / f"{scene.name}.png", root / "llava/images" / f"{scene.name}.png")
        counts["llava"] = {
            f"{split}_captions": sum(len(scene.scene_captions) for scene in made[split]) for split in LLAVA_FILES
        }
    if "parquet" in config.formats:
        counts["parquet"] = write_parquet_sets(root)
    return counts


def _bench_records(scene: MadeScene, config: WarehouseConfig) -> list[dict[str, Any]]:
    records = []
    for number, question in enumerate(scene.spatial):
        named, answer = question.texts(("Region [0]", "Region [1]"))
        prompt, _ = question.texts((MASK, MASK))
        content = json.dumps([config.seed, scene.name, number, named, answer])
        digest = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
        records.append(
            {
                "id": f"{question.type}_{digest[:12]}",
                "image_info": {"file_path": f"{scene.name}.png", "height": config.height, "width": config.width},
                "text_q": named,
                "qa_info": {"type": question.type, "category": question.category},
                "conversations": _turns([(prompt, answer)]),
                **_regions(question.regions, config),
            }
        )
    return records


def _osd_record(scene: MadeScene, config: WarehouseConfig) -> dict[str, Any]:
    """All questions about a scene as one conversation; regions are numbered through it."""
    pairs: list[tuple[str, str]] = []
    regions: list[Region] = []
    for question in scene.spatial:
        pairs.append(question.texts((f"{MASK} <depth>",) * 2, first=len(regions)))
        regions += question.regions
    pairs[0] = f"{IMAGE}\n{pairs[0][0]}", pairs[0][1]
    return {"filename": scene.name, "conversations": _turns(pairs), **_regions(regions, config)}


def _turns(pairs: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        {"from": who, "value": text} for prompt, answer in pairs for who, text in (("human", prompt), ("gpt", answer))
    ]


def _regions(regions: Sequence[Region], config: WarehouseConfig) -> dict[str, list]:
    """Boxes (left, top, right, bottom in pixels) and masks of regions."""
    rles = [{"size": [config.height, config.width], "counts": region.counts} for region in regions]
    boxes = []
    for rle in rles:
        x, y, wide, high = coco.toBbox({"size": rle["size"], "counts": rle["counts"].encode()}).tolist()
        boxes.append([x, y, x + wide, y + high])
    return {"bbox": boxes, "rle": rles}
