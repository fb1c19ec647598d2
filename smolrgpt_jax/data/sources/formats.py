"""From a run's configuration to pictures: which files of which format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smolrgpt_jax.data.records import CAPTION_CATEGORIES, WAREHOUSE_CATEGORIES, BadRecords, Picture, merge_pictures
from smolrgpt_jax.data.sources.captions import read_captions
from smolrgpt_jax.data.sources.osd import read_bench, read_osd
from smolrgpt_jax.data.sources.smolrgpt_parquet import read_smolrgpt
from smolrgpt_jax.data.sources.warehouse import read_warehouse


def _read_prepared(root: str, split: str, on_bad_record: BadRecords | None = None) -> list[Picture]:
    # Imported where needed: TensorFlow Datasets takes seconds to import.
    from smolrgpt_jax.data.prepared.reader import read_prepared

    return read_prepared(root, split, on_bad_record)


# format -> its reader and the fields of a source beside "format" and "root"; those with True must be given.
_READERS = {
    "warehouse": (read_warehouse, {"split": True, "annotations": False}),
    "captions": (read_captions, {"annotations": False, "images": False}),
    "osd": (read_osd, {"annotations": False, "images": False, "depths": False}),
    "smolrgpt": (read_smolrgpt, {"split": False}),
    "prepared": (_read_prepared, {"split": True}),
    "bench": (read_bench, {"annotations": False, "images": False, "depths": False}),
}
FORMATS = tuple(_READERS)


def read_source(source: Mapping[str, Any], on_bad_record: BadRecords | None = None) -> list[Picture]:
    """Reads one source of a run's configuration.

    source: format (one of FORMATS), root, and what the reader of that format takes: split, annotations, images, depths. Raises
    DataError for a bad record or file, ValueError for an unknown format or field.
    """
    name = source.get("format")
    if name not in _READERS:
        raise ValueError(f"data format {name!r} is not one of {', '.join(FORMATS)}")
    read, fields = _READERS[name]
    given = {key: value for key, value in source.items() if key not in ("format", "root") and value is not None}
    unknown = sorted(given.keys() - fields.keys())
    missing = [key for key, needed in fields.items() if needed and key not in given]
    if unknown or missing:
        what = f"has no field {unknown[0]!r}" if unknown else f"needs {missing[0]!r}"
        raise ValueError(f"a source of format {name!r} {what}")
    if name == "warehouse":
        given["categories"] = WAREHOUSE_CATEGORIES + CAPTION_CATEGORIES
    return read(source["root"], **given, on_bad_record=on_bad_record)


def read_sources(sources: Sequence[Mapping[str, Any]], on_bad_record: BadRecords | None = None) -> list[Picture]:
    """Reads several sources; the questions that they ask about one picture file come together."""
    return merge_pictures([read_source(source, on_bad_record) for source in sources], on_bad_record)
