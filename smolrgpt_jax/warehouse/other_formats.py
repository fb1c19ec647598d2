"""The same warehouse in the formats of other data sets, so that every reader has something to read.

    bench/SpatialRGPT-Bench_v1.json    questions about the test split, with images/N.png and depths/N.png
    osd/result_10_depth_convs.json     conversations of several turns about the train split, and
    osd/val_convs.json                 about the val split, with images/N.jpg and depths/N.png
    llava/chat.json, val_chat.json     captions of the train and val split, with images/N.png
    parquet/                           the sets that the SmolRGPT release reads, made of the warehouse's own questions
                                       and of the formats above, where they are: NAME/data/{split}-*.parquet and pictures

Depth pictures are those of the warehouse, near dark and far bright, in all of them. Pictures that
need no other encoding are hard links where the file system has them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco

from smolrgpt_jax.data.records import IMAGE, MASK
from smolrgpt_jax.files import link, write_list
from smolrgpt_jax.warehouse.make_scene import MadeScene
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.picture.view import Region

BENCH_FILE = "SpatialRGPT-Bench_v1.json"
OSD_FILES = {"train": "result_10_depth_convs.json", "val": "val_convs.json"}
LLAVA_FILES = {"train": "chat.json", "val": "val_chat.json"}
MASK_TOKENS = "<mask_rgb><mask_depth>"  # of a parquet text
ROWS = 1024  # of a parquet file, written at a time


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
        counts["llava"] = {
            f"{split}_captions": sum(len(scene.scene_captions) for scene in made[split]) for split in LLAVA_FILES
        }
    if "parquet" in config.formats:
        counts["parquet"] = {
            parquet.name: parquet.write(root) for parquet in PARQUET_SETS if (root / parquet.source).exists()
        }
    return counts


def _link_all(source: Path, target: Path, without: str = "") -> None:
    """Makes all pictures of a folder appear in another, `without` cut off the end of their names."""
    target.mkdir(parents=True, exist_ok=True)
    for picture in sorted(source.iterdir()):
        link(picture, target / f"{picture.stem.removesuffix(without)}{picture.suffix}")


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
    return [{"from": who, "value": text} for pair in pairs for who, text in zip(("human", "gpt"), pair)]


def _regions(regions: Sequence[Region], config: WarehouseConfig) -> dict[str, list]:
    """Boxes (left, top, right, bottom in pixels) and masks of regions."""
    rles = [{"size": [config.height, config.width], "counts": region.counts} for region in regions]
    boxes = [coco.toBbox({**rle, "counts": rle["counts"].encode()}).tolist() for rle in rles]
    return {"bbox": [[x, y, x + wide, y + high] for x, y, wide, high in boxes], "rle": rles}


@dataclasses.dataclass(frozen=True)
class ParquetSet:
    """A set of the SmolRGPT release."""

    name: str
    source: str  # folder of the records and pictures it is made of, in the warehouse's
    files: dict[str, str]  # split -> records
    folders: tuple[str, ...]  # of pictures
    row: Callable[[dict], dict[str, Any]]  # what the columns hold that differ from set to set
    several_turns: bool = False  # of a conversation

    def schema(self) -> pa.Schema:
        """The columns; `texts` is a list of turns where conversations have several."""
        texts = pa.struct({"user": pa.string(), "assistant": pa.string()})
        region = pa.struct({"size": pa.list_(pa.int32()), "counts": pa.string()})
        columns = {name: pa.string() for name in ("id", "rgb_image", "depth_image")}
        columns |= {"rle": pa.list_(region), "texts": pa.list_(texts) if self.several_turns else texts}
        columns |= {name: pa.string() for name in ("category", "normalized_answer", "dataset_name")}
        return pa.schema({"id_db": pa.int64(), **columns})

    def write(self, root: Path) -> int:
        """Writes the set of a warehouse and returns the number of its rows."""
        folder, total = root / "parquet" / self.name, 0
        (folder / "data").mkdir(parents=True)
        for split, file in self.files.items():
            records = json.loads((root / self.source / file).read_text(encoding="utf-8"))
            rows = [
                {
                    "id_db": number,
                    **self.row(record),
                    "rle": record.get("rle"),
                    "texts": self._texts(record),
                    "dataset_name": self.name,
                }
                for number, record in enumerate(records)
            ]
            with pq.ParquetWriter(folder / "data" / f"{split}-00000-of-00001.parquet", self.schema()) as writer:
                for start in range(0, len(rows), ROWS):
                    writer.write_table(pa.Table.from_pylist(rows[start : start + ROWS], self.schema()))
            total += len(rows)
        for name in self.folders:
            _link_all(root / self.source / name, folder / name)
        return total

    def _texts(self, record: dict) -> Any:
        values = [turn["value"] for turn in record["conversations"]]
        turns = [
            {"user": re.sub(rf"{MASK}( <depth>)?", MASK_TOKENS, prompt), "assistant": answer}
            for prompt, answer in zip(values[::2], values[1::2])
        ]
        return turns if self.several_turns else turns[0]


def _warehouse_row(record: dict) -> dict[str, Any]:
    return {
        "id": record["id"],
        "rgb_image": record["image"],
        "depth_image": f"{Path(record['image']).stem}_depth.png",
        "category": record["category"],
        "normalized_answer": str(record["normalized_answer"]),
    }


def _osd_row(record: dict) -> dict[str, Any]:
    name = record["filename"]
    return {"id": name, "rgb_image": f"{name}.jpg", "depth_image": f"{name}.png"}


def _llava_row(record: dict) -> dict[str, Any]:
    return {"id": record["id"], "rgb_image": record["image"]}


def _bench_row(record: dict) -> dict[str, Any]:
    picture = record["image_info"]["file_path"]
    return {"id": record["id"], "rgb_image": picture, "depth_image": picture, "category": record["qa_info"]["category"]}


PARQUET_SETS = (
    ParquetSet(
        "warehouse-rgbd-smolRGPT",
        ".",
        {"train": "train.json", "val": "val.json"},
        ("train/images", "train/depths", "val/images", "val/depths"),
        _warehouse_row,
    ),
    ParquetSet("osd-110k-smolRGPT", "osd", OSD_FILES, ("images", "depths"), _osd_row, several_turns=True),
    ParquetSet("llava-cc3m-smolRGPT", "llava", LLAVA_FILES, ("images",), _llava_row),
    ParquetSet("spacial-rgpt-bench-smolRGPT", "bench", {"test": BENCH_FILE}, ("images", "depths"), _bench_row),
)
