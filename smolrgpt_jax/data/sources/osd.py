"""Readers of the Open Spatial Dataset and of SpatialRGPT-Bench, whose records name regions by masks or boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from smolrgpt_jax.data.masks import box_mask, encode
from smolrgpt_jax.data.records import RLE, SPATIAL_CATEGORY, BadRecords, Picture, Question, record_id
from smolrgpt_jax.data.sources.collect import Entry, PictureFiles, Regions, collect_pictures, located
from smolrgpt_jax.data.sources.conversation import chat_texts, split_turns
from smolrgpt_jax.files import read_json


def read_osd(
    root: str | Path,
    annotations: str = "result_10_depth_convs.json",
    images: str = "images",
    depths: str = "depths",
    on_bad_record: BadRecords | None = None,
) -> list[Picture]:
    """Reads a JSON list of {filename, conversations, rle, bbox}.

    The picture is ``<images>/<filename>.jpg``, its depth ``<depths>/<filename>.png``. Masks are in the order of the "<mask>" of
    the whole conversation; a record without them takes its boxes.

    Args:
      root: the data set's folder.
      annotations: the JSON file, relative to ``root``.
      images, depths: folders of the pictures, relative to ``root``.
      on_bad_record: policy and collector of reasons; None stops at the first bad record.

    Returns:
      Pictures with one question per record, of category "spatial"; ids are "<filename>" or, where a picture has several
      records, "<filename>#2" and so on.

    Raises:
      DataError: the file is missing or unreadable, or, under "error", a record is bad.
    """
    root = Path(root)
    file = root / annotations
    files = PictureFiles(root / images, root / depths)
    times: dict[str, int] = {}

    def parse(record: object) -> Entry:
        name = record.get("filename") if isinstance(record, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError("names no picture")
        times[name] = times.get(name, 0) + 1
        own_id = name if times[name] == 1 else f"{name}#{times[name]}"
        earlier, prompt, answer = split_turns(chat_texts(record.get("conversations")))

        def questions(regions: Regions) -> Sequence[Question]:
            masks = _masks_or_boxes(record, regions, files.size(f"{name}.jpg", f"{name}.png"))
            return [Question(own_id, SPATIAL_CATEGORY, prompt, answer, None, masks, earlier)]

        return Entry(f"{name}.jpg", f"{name}.png", questions)

    return collect_pictures(
        located(file, read_json(file, list)),
        parse,
        files,
        picture_field="filename",
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
    """Reads SpatialRGPT-Bench: a list of {id, image_info, text_q, qa_info, conversations, bbox, rle}.

    ``image_info.file_path`` is relative to ``images``; the depth picture has the same path under ``depths`` with the suffix
    ".png". A record whose masks are missing takes its boxes.

    Args:
      root: the benchmark's folder.
      annotations: the JSON file, relative to ``root``.
      images, depths: folders of the pictures, relative to ``root``; depths None reads none.
      on_bad_record: policy and collector of reasons; None stops at the first bad record.

    Returns:
      Pictures whose questions have the benchmark's categories ("left_predicate", "width_data", ...).

    Raises:
      DataError: the file is missing or unreadable, or, under "error", a record is bad.
    """
    root = Path(root)
    file = root / annotations
    files = PictureFiles(root / images, None if depths is None else root / depths)

    def parse(record: object) -> Entry:
        own_id = record_id(record.get("id") if isinstance(record, dict) else None)
        info, qa = record.get("image_info"), record.get("qa_info")
        path = info.get("file_path") if isinstance(info, dict) else None
        category = qa.get("category") if isinstance(qa, dict) else None
        if not isinstance(path, str) or not isinstance(category, str):
            raise ValueError("names no picture or no category")
        depth = None if depths is None else str(PurePosixPath(path).with_suffix(".png"))
        earlier, prompt, answer = split_turns(chat_texts(record.get("conversations")))

        def questions(regions: Regions) -> Sequence[Question]:
            masks = _masks_or_boxes(record, regions, files.size(path, depth))
            return [Question(own_id, category, prompt, answer, None, masks, earlier)]

        return Entry(path, depth, questions)

    return collect_pictures(
        located(file, read_json(file, list)),
        parse,
        files,
        picture_field="image_info.file_path",
        categories=None,
        on_bad_record=on_bad_record,
    )


def _masks_or_boxes(record: dict, regions: Regions, size: tuple[int, int]) -> tuple[RLE, ...]:
    if record.get("rle"):
        return regions.read(record["rle"])
    boxes = record.get("bbox") or []
    if not isinstance(boxes, list):
        raise ValueError("bbox is not a list")
    masks = []
    for index, box in enumerate(boxes):
        try:
            if not isinstance(box, list):
                raise TypeError("expected [x1, y1, x2, y2]")
            masks.append(encode(box_mask(box, *size)))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"box {index} is unusable: {error}") from error
    return tuple(masks)
