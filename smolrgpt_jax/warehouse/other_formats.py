"""The same warehouse in the formats of other data sets (docs/warehouse.md), so that every reader has something to read.

Depth pictures are those of the warehouse, near dark and far bright, in all but COCO, which has millimetres. Pictures that need no other encoding are hard links
where the file system has them.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco

from smolrgpt_jax.data.records import IMAGE, MASK
from smolrgpt_jax.files import link, read_json, write_json, write_list
from smolrgpt_jax.warehouse.make_scene import MadeScene
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.picture.view import Region
from smolrgpt_jax.warehouse.scene.objects import KINDS
from smolrgpt_jax.warehouse.words.spatial_questions import SpatialQuestion

BENCH_FILE = "SpatialRGPT-Bench_v1.json"
OSD_FILES = {"train": "result_10_depth_convs.json", "val": "val_convs.json"}
COCO_FILE = "instances.json"
LLAVA_FILES = {"train": "chat.json", "val": "val_chat.json"}
MASK_TOKENS = "<mask_rgb><mask_depth>"  # of a parquet text
ROWS = 1024  # of a parquet file, written at a time


def write_formats(root: Path, config: WarehouseConfig, made: dict[str, list[MadeScene]]) -> dict[str, dict[str, int]]:
    """Writes the formats that the configuration names into the folder of a warehouse whose own records are written.

    made: the scenes of each split. Returns for each format how many records or questions there are of what.
    """
    counts: dict[str, dict[str, int]] = {}
    if "bench" in config.formats:
        records = [_bench_record(s, i, question, config) for s in made["test"] for i, question in enumerate(s.spatial)]
        _link_all(root / "test/images", root / "bench/images")
        _link_all(root / "test/depths", root / "bench/depths", "_depth")
        write_list(root / "bench" / BENCH_FILE, records)
        counts["bench"] = dict(sorted(Counter(record["qa_info"]["category"] for record in records).items()))
    if "osd" in config.formats:
        for split, file in OSD_FILES.items():
            write_list(root / "osd" / file, (_osd_record(s, config) for s in made[split] if s.spatial))
        counts["osd"] = {f"{split}_turns": sum(len(scene.spatial) for scene in made[split]) for split in OSD_FILES}
    if "llava" in config.formats:
        for split, file in LLAVA_FILES.items():
            _link_all(root / split / "images", root / "llava/images")
            shutil.copyfile(root / f"{split}_captions.json", root / "llava" / file)
        captions = {split: sum(len(scene.scene_captions) for scene in made[split]) for split in LLAVA_FILES}
        counts["llava"] = {f"{split}_captions": number for split, number in captions.items()}
    if "coco" in config.formats:
        _link_all(root / "train/images", root / "coco/images")
        annotations = coco_annotations(made["train"], config)
        write_json(root / "coco" / COCO_FILE, annotations)
        counts["coco"] = {part: len(listed) for part, listed in annotations.items()}
    if "parquet" in config.formats:
        present = [parquet for parquet in PARQUET_SETS if (root / parquet.source).exists()]
        counts["parquet"] = {parquet.name: parquet.write(root) for parquet in present}
    return counts


def _link_all(source: Path, target: Path, without: str = "") -> None:
    """Makes all pictures of a folder appear in another, `without` cut off the end of their names."""
    target.mkdir(parents=True, exist_ok=True)
    for picture in sorted(source.iterdir()):
        link(picture, target / f"{picture.stem.removesuffix(without)}{picture.suffix}")


def _bench_record(scene: MadeScene, number: int, question: SpatialQuestion, config: WarehouseConfig) -> dict[str, Any]:
    named, answer = question.texts(("Region [0]", "Region [1]"))
    prompt, _ = question.texts((MASK, MASK))
    return {
        "id": f"{question.type}_{digest([config.seed, scene.name, number, named, answer])[:12]}",
        "image_info": {"file_path": f"{scene.name}.png", "height": config.height, "width": config.width},
        "text_q": named,
        "qa_info": {"type": question.type, "category": question.category},
        "conversations": turns([(prompt, answer)]),
        **_regions(question.regions, config),
    }


def _osd_record(scene: MadeScene, config: WarehouseConfig) -> dict[str, Any]:
    """All questions about a scene as one conversation; regions are numbered through it."""
    pairs: list[tuple[str, str]] = []
    regions: list[Region] = []
    for question in scene.spatial:
        pairs.append(question.texts((f"{MASK} <depth>",) * 2, first=len(regions)))
        regions += question.regions
    pairs[0] = f"{IMAGE}\n{pairs[0][0]}", pairs[0][1]
    return {"filename": scene.name, "conversations": turns(pairs), **_regions(regions, config)}


def coco_annotations(scenes: Sequence[MadeScene], config: WarehouseConfig) -> dict[str, list[dict[str, Any]]]:
    """What an annotation file of COCO holds; its images tell the focal length besides, in pixels."""
    size = {"width": config.width, "height": config.height}
    images = [
        {"id": number, "file_name": f"{s.name}.png", **size, "focal": round(s.camera.focal * config.width, 2)}
        for number, s in enumerate(scenes, 1)
    ]
    kinds = {kind: number for number, kind in enumerate(KINDS, 1)}
    annotations: list[dict[str, Any]] = []
    for image, scene in zip(images, scenes):
        for region, rle in zip(scene.regions, rles(scene.regions, config)):
            encoded = {**rle, "counts": rle["counts"].encode()}
            place = {"bbox": coco.toBbox(encoded).tolist(), "area": int(coco.area(encoded)), "iscrowd": 0}
            about = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": kinds[region.kind]}
            annotations.append({**about, "segmentation": rle, **place})
    categories = [{"id": number, "name": kind} for kind, number in kinds.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def digest(content: list[Any]) -> str:
    """A record's id from what it says."""
    return hashlib.md5(json.dumps(content).encode(), usedforsecurity=False).hexdigest()


def turns(pairs: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """A conversation of pairs of question and answer."""
    return [{"from": who, "value": text} for pair in pairs for who, text in zip(("human", "gpt"), pair)]


def _regions(regions: Sequence[Region], config: WarehouseConfig) -> dict[str, list[Any]]:
    """Boxes (left, top, right, bottom in pixels) and masks of regions."""
    masks = rles(regions, config)
    boxes = [coco.toBbox({**rle, "counts": rle["counts"].encode()}).tolist() for rle in masks]
    return {"bbox": [[x, y, x + wide, y + high] for x, y, wide, high in boxes], "rle": masks}


def rles(regions: Sequence[Region], config: WarehouseConfig) -> list[dict[str, Any]]:
    return [{"size": [config.height, config.width], "counts": region.counts} for region in regions]


@dataclasses.dataclass(frozen=True)
class ParquetSet:
    """A set of the SmolRGPT release."""

    name: str
    source: str  # folder of the records and pictures it is made of, in the warehouse's
    files: dict[str, str]  # split -> records
    folders: tuple[str, ...]  # of pictures
    columns: dict[str, str]  # what differs from set to set, with places for a record's fields and its picture's stem
    several_turns: bool = False  # of a conversation

    def schema(self) -> pa.Schema:
        """The columns; `texts` is a list of turns where conversations have several."""
        texts = pa.struct({"user": pa.string(), "assistant": pa.string()})
        region = pa.struct({"size": pa.list_(pa.int32()), "counts": pa.string()})
        columns = dict.fromkeys(("id", "rgb_image", "depth_image"), pa.string())
        columns |= {"rle": pa.list_(region), "texts": pa.list_(texts) if self.several_turns else texts}
        columns |= dict.fromkeys(("category", "normalized_answer", "dataset_name"), pa.string())
        return pa.schema({"id_db": pa.int64(), **columns})

    def write(self, root: Path) -> int:
        """Writes the set of a warehouse and returns the number of its rows."""
        folder, total = root / "parquet" / self.name, 0
        (folder / "data").mkdir(parents=True)
        for split, file in self.files.items():
            rows = [self._row(*numbered) for numbered in enumerate(read_json(root / self.source / file))]
            with pq.ParquetWriter(folder / "data" / f"{split}-00000-of-00001.parquet", self.schema()) as writer:
                for start in range(0, len(rows), ROWS):
                    writer.write_table(pa.Table.from_pylist(rows[start : start + ROWS], self.schema()))
            total += len(rows)
        for name in self.folders:
            _link_all(root / self.source / name, folder / name)
        return total

    def _row(self, number: int, record: dict[str, Any]) -> dict[str, Any]:
        values = [turn["value"] for turn in record["conversations"]]
        prompts = (re.sub(rf"{MASK}( <depth>)?", MASK_TOKENS, prompt) for prompt in values[::2])
        turns = [{"user": prompt, "assistant": answer} for prompt, answer in zip(prompts, values[1::2])]
        texts = turns if self.several_turns else turns[0]
        stem = Path(record.get("image", "")).stem
        row = {name: text.format(**record, stem=stem) for name, text in self.columns.items()}
        return {"id_db": number, **row, "rle": record.get("rle"), "texts": texts, "dataset_name": self.name}


PARQUET_SETS = [ParquetSet(**fields) for fields in read_json(Path(__file__).with_name("parquet_sets.json"))]
