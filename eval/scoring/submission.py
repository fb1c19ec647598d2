"""The benchmark's submission: a JSON list of {"id", "normalized_answer"}."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json

MOST_NAMED = 3  # ids in one sentence


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


def check_known(names: Sequence[str], known: Iterable[str], source: object) -> None:
    """Raises a DataError that counts the ids which are not among those of ``source``, and names the first ones."""
    known = set(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        more = ", ..." if len(unknown) > MOST_NAMED else ""
        raise DataError(
            f"{len(unknown)} of {len(names)} predictions are of no record of {source}: "
            f"{', '.join(map(repr, unknown[:MOST_NAMED]))}{more}"
        )


def describe_empty(path: Path) -> str | None:
    """How many entries of a written submission have no value, None if all have one."""
    submission = read_json(path, list)
    empty = sum(item["normalized_answer"] == "" for item in submission)
    return f"{empty} of the submission's {len(submission)} entries are empty" if empty else None
