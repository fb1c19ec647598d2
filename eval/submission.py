"""The benchmark's submission: a JSON list of {"id", "normalized_answer"}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def make_submission(predictions: Sequence[Mapping], ids: Sequence[str] | None = None) -> list[dict]:
    """Returns the submission: text "left" or "right", whole numbers (count, mcq), metres with a decimal point.

    The format has no place for "unreadable"; the empty string is wrong everywhere.

    Args:
      predictions: with id and normalized_answer.
      ids: all that the submission must hold, in its order; None for those of the predictions.
    """
    values = {item["id"]: item["normalized_answer"] for item in predictions}
    return [
        {"id": name, "normalized_answer": "" if values.get(name) is None else values[name]}
        for name in (values if ids is None else ids)
    ]


def record_ids(records: Sequence[object]) -> list[str]:
    """The ids of an annotation file's records in its order, each once; records without one are passed over."""
    named = [
        str(record["id"])
        for record in records
        if isinstance(record, dict) and isinstance(record.get("id"), (str, int)) and record["id"] != ""
    ]
    return list(dict.fromkeys(named))
