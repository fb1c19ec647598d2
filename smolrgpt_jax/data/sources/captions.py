"""Picture captions in LLaVA-CC3M's chat format: pictures without depth and regions."""

from __future__ import annotations

from pathlib import Path

from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.data.sources.collect import collect_pictures, json_records
from smolrgpt_jax.data.sources.warehouse import chat_entry


def read_captions(
    root: str | Path, annotations: str = "chat.json", images: str = "images", on_bad_record: BadRecords | None = None
) -> list[Picture]:
    """Reads {id, image, conversations} records as questions of the category "caption"; "<image>" starts or ends the human's turn.

    Args:
      root: the data set's folder.
      annotations: the JSON file, relative to `root` (procedural warehouse: "train_captions.json").
      images: folder of the pictures, relative to `root` (procedural warehouse: "train/images").
      on_bad_record: see `collect_pictures`, as what is returned and raised.
    """
    return collect_pictures(
        json_records(Path(root) / annotations),
        lambda record: chat_entry(record, "caption"),
        Path(root) / images,
        None,
        categories=("caption",),
        on_bad_record=on_bad_record,
    )
