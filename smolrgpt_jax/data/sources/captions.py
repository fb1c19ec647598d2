"""Reader of picture captions in LLaVA-CC3M's chat format: pictures without depth and regions."""

from __future__ import annotations

from pathlib import Path

from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.data.sources.chat_json import read_chat_json


def read_captions(
    root: str | Path, annotations: str = "chat.json", images: str = "images", on_bad_record: BadRecords | None = None
) -> list[Picture]:
    """Reads {id, image, conversations} records whose human turn starts or ends with "<image>".

    Args:
      root: the data set's folder.
      annotations: the JSON file, relative to ``root`` (procedural warehouse:
        "train_captions.json").
      images: folder of the pictures, relative to ``root`` (procedural warehouse: "train/images").
      on_bad_record: policy and collector of reasons; None stops at the first bad record.

    Returns:
      Pictures with depth None and questions of category "caption".

    Raises:
      DataError: the file is missing or unreadable, or, under "error", a record is bad.
    """
    return read_chat_json(
        Path(root),
        annotations,
        images=images,
        depths=None,
        categories=("caption",),
        default_category="caption",
        on_bad_record=on_bad_record,
    )
