"""From a run's configuration to pictures: the data formats and which files of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smolrgpt_jax.data.prepared.reader import read_prepared
from smolrgpt_jax.data.records import CAPTION_CATEGORIES, WAREHOUSE_CATEGORIES, BadRecords, Picture, merge_pictures
from smolrgpt_jax.data.sources.captions import read_captions
from smolrgpt_jax.data.sources.osd import read_bench, read_osd
from smolrgpt_jax.data.sources.smolrgpt_parquet import read_smolrgpt
from smolrgpt_jax.data.sources.warehouse import read_warehouse

# format -> its reader; what it takes beside root and on_bad_record are the fields of a source of that format.
READERS: dict[str, Callable[..., list[Picture]]] = {
    "warehouse": functools.partial(read_warehouse, categories=WAREHOUSE_CATEGORIES + CAPTION_CATEGORIES),
    "captions": read_captions,
    "osd": read_osd,
    "smolrgpt": read_smolrgpt,
    "prepared": read_prepared,
    "bench": read_bench,
}


def read_source(source: Mapping[str, Any], on_bad_record: BadRecords | None = None) -> list[Picture]:
    """Reads one source of a run's configuration.

    source: format (one of READERS), root, and what the reader of that format takes: split, annotations, images, depths. Raises
    DataError for a bad record or file, ValueError for an unknown format or field.
    """
    name = source.get("format")
    if name not in READERS:
        raise ValueError(f"data format {name!r} is not one of {', '.join(READERS)}")
    parameters = inspect.signature(READERS[name]).parameters
    fields = parameters.keys() - {"root", "categories", "on_bad_record"}
    given = {key: value for key, value in source.items() if key not in ("format", "root") and value is not None}
    unknown = sorted(given.keys() - fields)
    missing = [
        key for key in parameters if key in fields - given.keys() and parameters[key].default is inspect.Parameter.empty
    ]
    if unknown or missing:
        what = f"has no field {unknown[0]!r}" if unknown else f"needs {missing[0]!r}"
        raise ValueError(f"a source of format {name!r} {what}")
    return READERS[name](source["root"], **given, on_bad_record=on_bad_record)


def read_sources(sources: Sequence[Mapping[str, Any]], on_bad_record: BadRecords | None = None) -> list[Picture]:
    """Reads several sources; the questions that they ask about one picture file come together."""
    return merge_pictures([read_source(source, on_bad_record) for source in sources], on_bad_record)
