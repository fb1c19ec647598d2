"""The data formats, one reader each, and which files a run's configuration asks for; docs/data.md has the records of each.

root is a data set's folder; annotations, images and depths are its JSON file and folders of pictures, relative to it. What is returned and
raised, and on_bad_record: see `collect_pictures`. Masks are in the order of the "<mask>" of the whole conversation; osd and bench take
boxes [x1, y1, x2, y2] where there are none.
"""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smolrgpt_jax.data.prepared.reader import read_prepared
from smolrgpt_jax.data.records import (
    CAPTION_CATEGORIES,
    SPATIAL_CATEGORY,
    WAREHOUSE_CATEGORIES,
    BadRecords,
    Picture,
    record_id,
)
from smolrgpt_jax.data.sources.collect import Entry, Located, chat_texts, collect_pictures, json_records, split_turns
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import JSON_KINDS, as_path, stand_in

COLUMNS = ("id", "rgb_image", "depth_image", "rle", "texts", "category", "normalized_answer")
ROWS = 1024  # read at a time


def read_warehouse(
    root: str | Path,
    split: str,
    annotations: str | None = None,
    categories: Sequence[str] = WAREHOUSE_CATEGORIES,
    on_bad_record: BadRecords = BadRecords(),
) -> list[Picture]:
    """Reads one split of the warehouse, by default from "{split}.json".

    Records without category and answer are accepted in a file whose records all lack an answer (the test split).
    """
    records = list(json_records(root, annotations or f"{split}.json"))
    answered = any(_has_answer(record) for _, _, record in records)
    allowed: dict[str, Any] = {"categories": categories, "need_answer": answered}
    return collect_pictures(records, chat_entry, Path(root, split), **allowed, on_bad_record=on_bad_record)


def chat_entry(record: object, default_category: str = "") -> Entry:
    """A record with an image and a conversation; raises ValueError for another."""
    if not isinstance(record, dict):
        raise ValueError(f"is {JSON_KINDS[type(record)]}, expected {JSON_KINDS[dict]}")
    own_id, image = record_id(record.get("id")), record.get("image")
    if not isinstance(image, str):
        raise ValueError("names no image")
    path = PurePosixPath(image)
    depth = str(path.with_name(f"{path.stem}_depth.png")) if path.name else None
    category, texts = str(record.get("category") or default_category), chat_texts(record.get("conversations"))
    return Entry(own_id, image, depth, category, texts, record.get("normalized_answer"), record.get("rle"))


def _has_answer(record: object) -> bool:
    """Whether a record is whole and answered: a broken one must not make a test split one with answers."""
    try:
        return isinstance(record, dict) and bool(split_turns(chat_texts(record.get("conversations")))[-1])
    except ValueError:
        return False


def read_captions(
    root: str | Path, annotations: str = "chat.json", images: str = "images", on_bad_record: BadRecords = BadRecords()
) -> list[Picture]:
    """Reads captions as questions of the category "caption"."""
    records, parse = json_records(root, annotations), functools.partial(chat_entry, default_category="caption")
    places = (Path(root), images, None)
    return collect_pictures(records, parse, *places, categories=("caption",), on_bad_record=on_bad_record)


def read_osd(
    root: str | Path,
    annotations: str = "result_10_depth_convs.json",
    images: str = "images",
    depths: str = "depths",
    on_bad_record: BadRecords = BadRecords(),
) -> list[Picture]:
    """Reads the Open Spatial Dataset: one question per record, of category "spatial".

    Ids are "<filename>" or, where a picture has several records, "<filename>#2" and so on.
    """
    times: Counter[str] = Counter()

    def parse(record: Any) -> Entry:
        name = record.get("filename") if isinstance(record, dict) else None
        if not isinstance(name, str) or not name:
            raise ValueError("names no picture")
        times[name] += 1
        own_id = name if times[name] == 1 else f"{name}#{times[name]}"
        return _spatial_entry(record, own_id, f"{name}.jpg", f"{name}.png", SPATIAL_CATEGORY)

    records, places = json_records(root, annotations), (Path(root), images, depths)
    return collect_pictures(records, parse, *places, categories=(SPATIAL_CATEGORY,), on_bad_record=on_bad_record)


def read_bench(
    root: str | Path,
    annotations: str = "SpatialRGPT-Bench_v1.json",
    images: str = "images",
    depths: str | None = "depths",
    on_bad_record: BadRecords = BadRecords(),
) -> list[Picture]:
    """Reads SpatialRGPT-Bench with its own categories ("left_predicate", "width_data", ...); depths None reads none."""

    def parse(record: Any) -> Entry:
        own_id = record_id(record.get("id") if isinstance(record, dict) else None)
        info, qa = record.get("image_info"), record.get("qa_info")
        path = info.get("file_path") if isinstance(info, dict) else None
        category = qa.get("category") if isinstance(qa, dict) else None
        if not isinstance(path, str) or not isinstance(category, str):
            raise ValueError("names no picture or no category")
        depth = str(PurePosixPath(path).with_suffix(".png")) if PurePosixPath(path).name else None
        return _spatial_entry(record, own_id, path, depth, category)

    records = json_records(root, annotations)
    return collect_pictures(records, parse, Path(root), images, depths, on_bad_record=on_bad_record)


def _spatial_entry(record: Mapping[str, Any], own_id: str, image: str, depth: str | None, category: str) -> Entry:
    texts, boxes = chat_texts(record.get("conversations")), record.get("bbox") or []
    return Entry(own_id, image, depth, category, texts, None, record.get("rle"), boxes)


def read_smolrgpt(
    root: str | Path, split: str | None = None, on_bad_record: BadRecords = BadRecords()
) -> list[Picture]:
    """Reads one of the parquet sets; split None takes all files, else those whose name begins with it.

    A question without category is a "caption" if it has no regions, else "spatial". Raises DataError also for no files, a broken
    file or missing columns.
    """
    data = Path(root) / "data"
    files = sorted(file for file in data.glob("*.parquet") if file.name.startswith(split or ""))
    if not files:
        raise DataError(f"{data} holds no file {split or ''}*.parquet")
    folder = Path(root, split or "")
    folder = folder if (folder / "images").is_dir() else Path(root)
    return collect_pictures(_rows(files), _parse, folder, on_bad_record=on_bad_record)


def _rows(files: list[Path]) -> Iterator[Located]:
    for file in files:
        place = 0
        try:
            with pq.ParquetFile(file) as parquet:
                names = parquet.schema_arrow.names
                missing = [name for name in COLUMNS[:5] if name not in names]
                if missing:
                    raise DataError(f"{file}: has no column {', '.join(missing)}")
                for batch in parquet.iter_batches(ROWS, columns=[name for name in COLUMNS if name in names]):
                    for row in batch.to_pylist():
                        yield file, place, row
                        place += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = stand_in(file) or " ".join(str(error).split())
            raise DataError(f"{file}: is not a readable parquet file ({reason})") from error


def _parse(row: Mapping[str, Any]) -> Entry:
    own_id = record_id(row["id"])
    if not isinstance(row["rgb_image"], str) or not isinstance(row["depth_image"], str | None):
        raise ValueError("names no picture or a depth picture that is no text")
    texts = row["texts"] if isinstance(row["texts"], list) else [row["texts"]]
    if not all(isinstance(turn, dict) for turn in texts):
        raise ValueError("has no texts")
    texts = [turn.get(who) for turn in texts for who in ("user", "assistant")]
    category = row.get("category") or (SPATIAL_CATEGORY if row["rle"] else "caption")
    if not isinstance(category, str):
        raise ValueError(f"category {category!r} is no text")
    answer = row.get("normalized_answer")
    answer = None if answer == "" else answer
    return Entry(own_id, row["rgb_image"], row["depth_image"] or None, category, texts, answer, row["rle"])


# format -> its reader; what it takes beside root and on_bad_record are the fields of a source of that format.
READERS: dict[str, Callable[..., Any]] = {
    "warehouse": functools.partial(read_warehouse, categories=WAREHOUSE_CATEGORIES + CAPTION_CATEGORIES),
    "captions": read_captions,
    "osd": read_osd,
    "smolrgpt": read_smolrgpt,
    "prepared": read_prepared,
    "bench": read_bench,
}


def read_source(source: Mapping[str, Any], on_bad_record: BadRecords = BadRecords()) -> list[Picture]:
    """Reads one source of a run's configuration.

    source: format (one of READERS), root, and what the reader of that format takes: split, annotations, images, depths.
    Raises DataError for a bad record or file, ValueError for an unknown format or field.
    """
    if not isinstance(source, Mapping) or not all(isinstance(text, str | Path | None) for text in source.values()):
        raise ValueError(f"the source {source!r} is no section of texts")
    name = source.get("format")
    if name not in READERS:
        raise ValueError(f"data format {name!r} is not one of {', '.join(READERS)}")
    parameters = inspect.signature(READERS[name]).parameters
    fields = parameters.keys() - {"root", "categories", "on_bad_record"}
    given = {key: value for key, value in source.items() if key not in ("format", "root") and value is not None}
    unknown = sorted(given.keys() - fields)
    needed = [key for key in parameters if parameters[key].default is inspect.Parameter.empty]
    missing = [key for key in needed if key not in given and not source.get(key)]
    if unknown or missing:
        what = f"has no field {unknown[0]!r}" if unknown else f"needs {missing[0]!r}"
        raise ValueError(f"a source of format {name!r} {what}")
    return READERS[name](as_path(source["root"]), **given, on_bad_record=on_bad_record)
