"""The parquet sets that the SmolRGPT release reads, made of the records of a written warehouse.

    parquet/warehouse-rgbd-smolRGPT/        data/{train,val}-*.parquet, {train,val}/{images,depths}
    parquet/osd-110k-smolRGPT/              data/{train,val}-*.parquet, images, depths
    parquet/llava-cc3m-smolRGPT/            data/{train,val}-*.parquet, images
    parquet/spacial-rgpt-bench-smolRGPT/    data/test-*.parquet, images, depths

The last three come of the formats osd, llava and bench and are left out without them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smolrgpt_jax.data.records import MASK
from smolrgpt_jax.warehouse.files import link

TEXTS = pa.struct({"user": pa.string(), "assistant": pa.string()})
MASK_TOKENS = "<mask_rgb><mask_depth>"
ROWS = 1024  # written at a time


def schema(several_turns: bool) -> pa.Schema:
    """The columns of a set; ``texts`` is a list of turns where conversations have several."""
    region = pa.struct({"size": pa.list_(pa.int32()), "counts": pa.string()})
    return pa.schema(
        {
            "id_db": pa.int64(),
            "id": pa.string(),
            "rgb_image": pa.string(),
            "depth_image": pa.string(),
            "rle": pa.list_(region),
            "texts": pa.list_(TEXTS) if several_turns else TEXTS,
            "category": pa.string(),
            "normalized_answer": pa.string(),
            "dataset_name": pa.string(),
        }
    )


def write_parquet_sets(root: Path) -> dict[str, int]:
    """Writes every set whose records are there.

    Args:
      root: the warehouse's folder.

    Returns:
      The number of rows of each set.
    """
    counts = {}
    for name, files, pictures, row, several_turns in (
        (
            "warehouse-rgbd-smolRGPT",
            {"train": "train.json", "val": "val.json"},
            {f"{split}/{kind}": f"{split}/{kind}" for split in ("train", "val") for kind in ("images", "depths")},
            _warehouse_row,
            False,
        ),
        (
            "osd-110k-smolRGPT",
            {"train": "osd/result_10_depth_convs.json", "val": "osd/val_convs.json"},
            {"images": "osd/images", "depths": "osd/depths"},
            _osd_row,
            True,
        ),
        (
            "llava-cc3m-smolRGPT",
            {"train": "llava/chat.json", "val": "llava/val_chat.json"},
            {"images": "llava/images"},
            _llava_row,
            False,
        ),
        (
            "spacial-rgpt-bench-smolRGPT",
            {"test": "bench/SpatialRGPT-Bench_v1.json"},
            {"images": "bench/images", "depths": "bench/depths"},
            _bench_row,
            False,
        ),
    ):
        if (root / next(iter(files.values()))).exists():
            folder = root / "parquet" / name
            counts[name] = sum(
                _write(folder / "data" / f"{split}-00000-of-00001.parquet", root / file, row, name, several_turns)
                for split, file in files.items()
            )
            _link_folders(root, folder, pictures)
    return counts


def _write(file: Path, records: Path, row: Callable[[dict], dict[str, Any]], name: str, several_turns: bool) -> int:
    """Writes the rows of one JSON list and returns their number."""
    columns, number = schema(several_turns), 0
    file.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(file, columns) as writer:
        for rows in _batches(json.loads(records.read_text(encoding="utf-8"))):
            table = [
                {
                    "id_db": number + i,
                    **row(record),
                    "rle": record.get("rle"),
                    "texts": _texts(record, several_turns),
                    "dataset_name": name,
                }
                for i, record in enumerate(rows)
            ]
            writer.write_table(pa.Table.from_pylist(table, columns))
            number += len(rows)
    return number


def _batches(records: list[dict]) -> Iterator[list[dict]]:
    for start in range(0, len(records), ROWS):
        yield records[start : start + ROWS]


def _texts(record: dict, several_turns: bool) -> Any:
    values = [turn["value"] for turn in record["conversations"]]
    turns = [
        {"user": re.sub(rf"{MASK}( <depth>)?", MASK_TOKENS, prompt), "assistant": answer}
        for prompt, answer in zip(values[::2], values[1::2])
    ]
    return turns if several_turns else turns[0]


def _warehouse_row(record: dict) -> dict[str, Any]:
    return {
        "id": record["id"],
        "rgb_image": record["image"],
        "depth_image": f"{PurePosixPath(record['image']).stem}_depth.png",
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


def _link_folders(root: Path, target: Path, folders: dict[str, str]) -> None:
    """Makes the pictures of some folders of the warehouse appear in a set's own."""
    for folder, source in folders.items():
        (target / folder).mkdir(parents=True)
        for picture in sorted((root / source).iterdir()):
            link(picture, target / folder / picture.name)
