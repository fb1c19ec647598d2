"""Questions that could not be asked because their records or pictures are unusable: they count as wrong.

A submission has to hold their ids, and the official scorer counts them; a score that passed over them would be another number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Picture, normalize_answer
from smolrgpt_jax.data.sources.conversation import first_text, user_text


def left_out_answers(records: Sequence[object], pictures: Sequence[Picture]) -> list[dict]:
    """Items as in predictions.json, with an empty answer and "left_out", for records with a published answer that are not asked.

    Args:
      records: of an annotation file.
      pictures: with the questions that are asked.

    Returns:
      One item per id, in the records' order. Records that state no usable answer are not among them: there is nothing to score.
    """
    known = {question.id for picture in pictures for question in picture.questions}
    items = []
    for record in records:
        item = _item(record)
        if item is not None and item["id"] not in known:
            known.add(item["id"])
            items.append(item)
    return items


def _item(record: object) -> dict | None:
    if not isinstance(record, Mapping) or not isinstance(record.get("id"), (str, int)):
        return None
    category = record.get("category")
    if category not in WAREHOUSE_CATEGORIES:
        return None
    try:
        truth = normalize_answer(category, record.get("normalized_answer"))
    except ValueError:
        return None
    if truth is None:
        return None
    try:
        question = user_text(first_text(record))
    except ValueError:
        question = first_text(record)
    return {
        "id": str(record["id"]),
        "image": PurePosixPath(str(record.get("image", ""))).name,
        "category": category,
        "question": question,
        "answer": "",
        "truth": truth,
        "left_out": True,
    }
