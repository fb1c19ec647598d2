"""Reader of the warehouse data set's published folder format.

nvidia/PhysicalAI-Spatial-Intelligence-Warehouse: ``{split}.json`` beside ``{split}/images/N.png``
and ``{split}/depths/N_depth.png``. The procedural warehouse writes the same files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, BadRecords, Picture
from smolrgpt_jax.data.sources.chat_json import read_chat_json


def read_warehouse(
    root: str | Path,
    split: str,
    annotations: str | None = None,
    categories: Sequence[str] = WAREHOUSE_CATEGORIES,
    on_bad_record: BadRecords | None = None,
) -> list[Picture]:
    """Reads one split, grouped by picture, in the order of the file.

    Args:
      root: the data set's folder.
      split: "train", "val" or "test"; also the name of the folder with the pictures.
      annotations: file name under ``root``, by default "{split}.json". Records without category
        and answer are accepted in a file whose records all lack an answer (the test split).
      categories: the categories that may occur.
      on_bad_record: policy and collector of reasons; None stops at the first bad record.

    Returns:
      Pictures whose image and depth files exist; whether they can be decoded shows on decoding.

    Raises:
      DataError: the file is missing or unreadable, or, under "error", a record is bad.
    """
    root = Path(root)
    return read_chat_json(
        root,
        annotations or f"{split}.json",
        images=f"{split}/images",
        depths=f"{split}/depths",
        categories=categories,
        on_bad_record=on_bad_record,
    )
