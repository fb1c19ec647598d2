"""From a run's configuration to pictures: which files of which format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smolrgpt_jax.data.records import (
    CAPTION_CATEGORIES,
    WAREHOUSE_CATEGORIES,
    BadRecords,
    Picture,
    merge_pictures,
)
from smolrgpt_jax.data.sources.captions import read_captions
from smolrgpt_jax.data.sources.warehouse import read_warehouse

FORMATS = ("warehouse", "captions")


def read_source(source: Mapping[str, Any], on_bad_record: BadRecords | None = None) -> list[Picture]:
    """Reads one source of a run's configuration.

    source: format ("warehouse" or "captions"), root, annotations (file name; optional for the warehouse), and for the warehouse
    split, for captions images (folder of the pictures). Raises DataError for a bad record or file, ValueError for an unknown
    format.
    """
    if source["format"] == "warehouse":
        return read_warehouse(
            source["root"],
            source["split"],
            annotations=source.get("annotations"),
            categories=WAREHOUSE_CATEGORIES + CAPTION_CATEGORIES,
            on_bad_record=on_bad_record,
        )
    if source["format"] == "captions":
        return read_captions(
            source["root"], source["annotations"], source["images"], on_bad_record=on_bad_record
        )
    raise ValueError(f"data format {source['format']!r} is not one of {', '.join(FORMATS)}")


def read_sources(
    sources: Sequence[Mapping[str, Any]], on_bad_record: BadRecords | None = None
) -> list[Picture]:
    """Reads several sources; the questions that they ask about one picture file come together."""
    return merge_pictures([read_source(source, on_bad_record) for source in sources])
