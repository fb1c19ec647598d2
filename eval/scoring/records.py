"""Lists of records with ids: read, checked and compared with each other; the benchmark's submission is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from eval.reading.rules import Answer
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, normalize_answer, record_id
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json, write_json

MOST_LISTED = 100  # ids in one sentence
MOST_NAMED = 3  # of those that are more


def read_records(path: str | Path, fields: Sequence[str] = ()) -> list[dict]:
    """The objects of a JSON list, their ids as text.

    Raises DataError where the file is unreadable or empty, a record lacks one of the fields, or ids occur twice.
    """
    records = []
    for index, record in enumerate(read_json(path, list)):
        where = f"{path}: record {index}"
        if not isinstance(record, dict):
            raise DataError(f"{where} is a {type(record).__name__}, expected an object")
        for field in ("id", *fields):
            if field not in record:
                raise DataError(f"{where} has no {field!r}")
        try:
            records.append({**record, "id": record_id(record["id"])})
        except ValueError as error:
            raise DataError(f"{where} has the id {record['id']!r}, expected text or a whole number") from error
    if not records:
        raise DataError(f"{path}: holds no question")
    check_unique(path, (record["id"] for record in records))
    return records


def read_value(
    path: str | Path, record: Mapping, field: str, categories: Sequence[str] = WAREHOUSE_CATEGORIES
) -> Answer:
    """A record's normalised value; raises DataError, naming the record, where it or the category is none."""
    where = f"{path}: record {record['id']!r}"
    if record["category"] not in categories:
        raise DataError(f"{where}: unknown category {record['category']!r}, expected one of {list(categories)}")
    try:
        return normalize_answer(record["category"], record[field])
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def check_unique(source: object, ids: Iterable[str]) -> None:
    """Raises a DataError that lists all ids that occur more than once, if there are any."""
    twice = [name for name, number in Counter(ids).items() if number > 1]
    if twice:
        raise DataError(f"{source}: ids that occur more than once: {', '.join(map(repr, twice))}")


def check_known(names: Sequence[str], known: Iterable[str], source: object) -> None:
    """Raises a DataError that counts the ids which are not among those of `source`, and names the first ones."""
    known = set(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(f"{len(unknown)} of {len(names)} predictions are of no record of {source}: {_first(unknown)}")


def check_same(
    first: Iterable[str], second: Iterable[str], names: tuple[str, str], beside: Path | None = None, what: str = ""
) -> None:
    """Raises a DataError, which begins with `what`, that lists all ids which only one of two files, `names`, has.

    More than MOST_LISTED are listed in a file next to `beside`, {name: [id, ...]}, and the sentence has the first ones;
    None keeps them in the sentence however many they are.
    """
    first, second = dict.fromkeys(first), dict.fromkeys(second)
    pairs = ((names[0], first, second), (names[1], second, first))
    differing = {name: [item for item in own if item not in other] for name, own, other in pairs}
    too_many = beside is not None and sum(map(len, differing.values())) > MOST_LISTED
    parts = [
        f"only {name} has {len(differing[name])} of its {len(own)} ids "
        f"({_first(differing[name], MOST_NAMED if too_many else len(own))})"
        for name, own, _ in pairs
        if differing[name]
    ]
    if too_many:
        listing = beside.with_name(f"{beside.stem}_differing_ids.json")
        write_json(listing, differing)
        parts[-1] += f"; all are listed in {listing}"
    if parts:
        raise DataError(what + " and ".join(parts))


def make_submission(predictions: Sequence[Mapping], ids: Sequence[str] | None = None) -> list[dict]:
    """[{"id", "normalized_answer"}]: "left" or "right", whole numbers (count, mcq), metres with a decimal point.

    The format has no place for "unreadable"; the empty string is wrong everywhere. ids: all that the submission must
    hold, in its order; None for those of the predictions.
    """
    values = {item["id"]: item["normalized_answer"] for item in predictions}
    known = {name: "" if value is None else value for name, value in values.items()}
    return [{"id": name, "normalized_answer": known.get(name, "")} for name in (known if ids is None else ids)]


def record_ids(records: Sequence[object]) -> list[str]:
    """The ids of an annotation file's records in its order, each once; records without one are passed over."""
    named = [record["id"] for record in records if isinstance(record, dict) and "id" in record]
    return list(dict.fromkeys(str(name) for name in named if isinstance(name, (str, int)) and name != ""))


def _first(names: Sequence[str], most: int = MOST_NAMED) -> str:
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")
