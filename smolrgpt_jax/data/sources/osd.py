"""Open Spatial Dataset and SpatialRGPT-Bench, JSON lists whose records name regions by masks or boxes.

    {"filename", "conversations", "rle", "bbox"}                                      <images>/<filename>.jpg, <depths>/<filename>.png
    {"id", "image_info": {"file_path"}, "qa_info": {"category"}, "conversations", "rle", "bbox"}    <images>/<file_path>, depth a .png

Masks are in the order of the "<mask>" of the whole conversation; a record without them takes its boxes [x1, y1, x2, y2].
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from smolrgpt_jax.data.records import SPATIAL_CATEGORY, BadRecords, Picture, record_id
from smolrgpt_jax.data.sources.collect import Entry, collect_pictures, json_records
from smolrgpt_jax.data.sources.conversation import chat_texts


def read_osd(
    root: str | Path,
    annotations: str = "result_10_depth_convs.json",
    images: str = "images",
    depths: str = "depths",
    on_bad_record: BadRecords | None = None,
) -> list[Picture]:
    """Reads the Open Spatial Dataset: one question per record, of category "spatial".

    Ids are "<filename>" or, where a picture has several records, "<filename>#2" and so on.

    Args:
      root: the data set's folder.
      annotations, images, depths: the JSON file and the folders of the pictures, relative to `root`.
      on_bad_record: see `collect_pictures`, as what is returned and raised.
    """
    times: Counter[str] = Counter()

    def parse(record: object) -> Entry:
        name = record.get("filename") if isinstance(record, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError("names no picture")
        times[name] += 1
        own_id = name if times[name] == 1 else f"{name}#{times[name]}"
        texts = chat_texts(record.get("conversations"))
        boxes = record.get("bbox") or []
        return Entry(own_id, f"{name}.jpg", f"{name}.png", SPATIAL_CATEGORY, texts, None, record.get("rle"), boxes)

    return collect_pictures(
        json_records(Path(root) / annotations),
        parse,
        Path(root) / images,
        Path(root) / depths,
        categories=(SPATIAL_CATEGORY,),
        on_bad_record=on_bad_record,
    )


def read_bench(
    root: str | Path,
    annotations: str = "SpatialRGPT-Bench_v1.json",
    images: str = "images",
    depths: str | None = "depths",
    on_bad_record: BadRecords | None = None,
) -> list[Picture]:
    """Reads SpatialRGPT-Bench; categories are the benchmark's ("left_predicate", "width_data", ...).

    Args:
      root: the benchmark's folder.
      annotations, images, depths: the JSON file and the folders of the pictures, relative to `root`; depths None reads none.
      on_bad_record: see `collect_pictures`, as what is returned and raised.
    """

    def parse(record: object) -> Entry:
        own_id = record_id(record.get("id") if isinstance(record, dict) else None)
        info, qa = record.get("image_info"), record.get("qa_info")
        path = info.get("file_path") if isinstance(info, dict) else None
        category = qa.get("category") if isinstance(qa, dict) else None
        if not isinstance(path, str) or not isinstance(category, str):
            raise ValueError("names no picture or no category")
        depth, texts = str(PurePosixPath(path).with_suffix(".png")), chat_texts(record.get("conversations"))
        return Entry(own_id, path, depth, category, texts, None, record.get("rle"), record.get("bbox") or [])

    return collect_pictures(
        json_records(Path(root) / annotations),
        parse,
        Path(root) / images,
        None if depths is None else Path(root) / depths,
        categories=None,
        on_bad_record=on_bad_record,
    )
