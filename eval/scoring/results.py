"""Lists of records with ids, read and compared, and what predictions come to: metrics, the files of a run, tables."""

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.reading.methods import RULES
from eval.reading.rules import Answer
from eval.scoring.agreement import agreement, describe_agreement
from eval.scoring.blind import BlindBaseline
from eval.scoring.breakdown import describe_details
from eval.scoring.confidence import ALL, reliabilities
from eval.scoring.intervals import cell, describe_interval
from eval.scoring.official import score
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Question, normalize_answer, record_id
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import JSON_KINDS, read_json, write_json

RUN_FILE = "run.json"  # what was run, when and how fast
RESULT_FILES = ("predictions.json", "submission.json", "metrics.json", "agreement.json", "report.html", "answers.json")
RESULT_FILES += (RUN_FILE,)
Run = Mapping[str, dict]  # predictions by id
NO_VALUE = -99  # in a submission: wrong in every category, and a number, without which the published scorer ends
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
            raise DataError(f"{where} is {JSON_KINDS[type(record)]}, expected {JSON_KINDS[dict]}")
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


def read_run(path: str | Path) -> dict[str, dict]:
    """Predictions by id of a folder with predictions.json, or of such a file.

    Raises DataError where it is unreadable or empty, a record lacks a field or has no truth, or ids occur twice.
    """
    file = predictions_file(path)
    run: dict[str, dict] = {}
    for item in read_records(file, ("image", "category", "normalized_answer", "truth")):
        if item["truth"] is None:
            asked = "evaluate on a split, or with --annotations, that has the answers"
            raise DataError(f"{file}: record {item['id']!r} has no published answer to compare with; {asked}")
        values = {field: read_value(file, item, field) for field in ("truth", "normalized_answer")}
        run[item["id"]] = {**item, "image": str(item["image"]), **values}
    return run


def predictions_file(path: str | Path) -> Path:
    """The predictions.json of a run's folder, or the file itself."""
    return Path(path, "predictions.json") if Path(path).is_dir() else Path(path)


def asked_item(question: Question, image: str | None) -> dict[str, Any]:
    """What the items of predictions.json say of the question; image: the picture's name."""
    return {"id": question.id, "image": image, "category": question.category, "question": question.prompt}


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

    The format has no place for "unreadable", which is NO_VALUE. ids: all that the submission must hold, in its order;
    None for those of the predictions.
    """
    known = _submitted(predictions)
    return [{"id": name, "normalized_answer": known.get(name, NO_VALUE)} for name in (known if ids is None else ids)]


def _submitted(predictions: Sequence[Mapping]) -> dict[str, object]:
    values = {item["id"]: item["normalized_answer"] for item in predictions}
    return {name: NO_VALUE if value is None else value for name, value in values.items()}


def record_ids(records: Sequence[object]) -> list[str]:
    """The ids of an annotation file's records in its order, each once; records without one are passed over."""
    named = [record["id"] for record in records if isinstance(record, dict) and "id" in record]
    return list(dict.fromkeys(str(name) for name in named if isinstance(name, (str, int)) and name != ""))


def _first(names: Sequence[str], most: int = MOST_NAMED) -> str:
    return ", ".join(map(repr, names[:most])) + (", ..." if len(names) > most else "")


def compute_metrics(
    predictions: Sequence[Mapping], blind: BlindBaseline | None = None, methods: Iterable[str] = RULES
) -> dict | None:
    """What metrics.json holds, None without published answers.

    Args:
      predictions: as in predictions.json, with values: {method: value} where several methods read the answers.
      blind: the baseline to score beside them.
      methods: names of those that read the answers; the first one's values are scored.

    Returns:
      S1, left_right, count, mcq, distance in percent (None for a category without questions), questions, unreadable,
      left_out (those of them that could not be asked), cut_off (answers that the longest length cut), read_by (the
      methods), blind_S1 and blind {category: percent}, official {official name: number}, the parts of
      `describe_details`, with several methods agreement, see `eval.scoring.agreement.agreement`, of predictions with
      confidences confidence, see `eval.scoring.confidence.reliabilities`, and tokens, see `token_sums`, where a server told
      them.
    """
    if all(item["truth"] is None for item in predictions):
        return None
    questions = [Question(item["id"], item["category"], item["question"], None, item["truth"]) for item in predictions]
    scored = score(questions, _submitted(predictions))
    metrics = {name: scored[name] for name in ("S1", *WAREHOUSE_CATEGORIES, "questions", "unreadable")}
    metrics |= {name: _count(predictions, name) for name in ("left_out", "cut_off")} | {"read_by": list(methods)}
    if blind is not None:
        guessed = score(questions, {question.id: blind.predict(question) for question in questions})
        metrics["blind_S1"] = guessed["S1"]
        metrics["blind"] = {category: guessed[category] for category in WAREHOUSE_CATEGORIES}
    metrics |= {"official": scored["official"]} | describe_details(predictions)
    if "values" in predictions[0]:
        metrics["agreement"] = agreement(predictions)
    if all("confidence" in item for item in predictions):
        metrics["confidence"] = reliabilities(predictions)
    return metrics | token_sums(predictions)


def token_sums(predictions: Sequence[Mapping]) -> dict:
    """{"tokens": what the answers took, as a server counts}, {} where none told.

    tokens: {"questions": those told of, "prompt" and "completion": {"sum", "mean": per question, "most"}}.
    """
    told = [item["tokens"] for item in predictions if isinstance(item.get("tokens"), dict)]
    found: dict[str, Any] = {"questions": len(told)}
    for kind in ("prompt", "completion"):
        numbers = [taken.get(kind) for taken in told]
        if not told or not all(type(number) is int for number in numbers):
            return {}
        found[kind] = {"sum": sum(numbers), "mean": sum(numbers) / len(numbers), "most": max(numbers)}
    return {"tokens": found}


def describe_run(run_info: Mapping[str, Any], questions: int, seconds: float | None) -> dict[str, Any]:
    """What run.json holds: date (UTC), questions, seconds (of all answers, None where unknown), and what the report says of
    the run but its configuration."""
    told = {name: value for name, value in run_info.items() if name != "config"}
    plain = {n: v if isinstance(v, str | int | float | dict | None) else str(v) for n, v in told.items()}
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": date, "questions": questions, "seconds": seconds} | plain


def describe_speed(questions: int, seconds: float | None) -> dict[str, str]:
    """What the report says of a run's speed, {} where it is not known."""
    return (
        {"speed": f"{questions} questions in {seconds:.1f} s, {questions / seconds:.3g} per second"} if seconds else {}
    )


def write_results(
    folder: Path, predictions: Sequence[Mapping], ids: Sequence[str] | None, metrics: Mapping | None
) -> None:
    """Writes predictions.json, submission.json, and metrics.json or, of several methods, agreement.json."""
    write_json(folder / "predictions.json", predictions)
    write_json(folder / "submission.json", make_submission(predictions, ids))
    if metrics is not None:
        write_json(folder / "metrics.json", metrics)
    elif "values" in predictions[0]:
        write_json(folder / "agreement.json", agreement(predictions))


def describe_results(folder: Path, metrics: Mapping | None) -> str:
    """`describe_metrics` of a folder of results, or what can be said of predictions without published answers."""
    if metrics is not None:
        lines = [describe_metrics(metrics)]
    else:
        predictions = read_json(folder / "predictions.json", list)
        unreadable = sum(item["normalized_answer"] is None for item in predictions)
        lines = [f"{len(predictions)} questions without published answers, {unreadable} answers unreadable"]
        lines += _cut_off_lines(_count(predictions, "cut_off"))
        if "values" in predictions[0]:
            lines += ["", describe_agreement(agreement(predictions))]
    submission = read_json(folder / "submission.json", list)
    empty = sum(item["normalized_answer"] == NO_VALUE for item in submission)
    told = f"{empty} of the submission's {len(submission)} entries have no value and stand as {NO_VALUE}"
    return "\n".join(lines + ([told] if empty else []))


def describe_metrics(metrics: Mapping) -> str:
    """A small table for people: accuracy, its interval and blind accuracy per category."""
    blind = {"S1": metrics.get("blind_S1")} | (metrics.get("blind") or {})
    intervals = metrics.get("intervals") or {}
    lines = [f"{'':<12}{'accuracy':>9}{'95 % interval':>17}{'blind':>9}"]
    for name in ("S1", *WAREHOUSE_CATEGORIES):
        interval = describe_interval(intervals.get(name))
        lines.append(f"{name:<12}{cell(metrics[name]):>9}{interval:>17}{cell(blind.get(name)):>9}")
    ambiguous = sum(row["ambiguous"] for row in metrics.get("readability", {}).values())
    lines.append(f"{metrics['questions']} questions, {metrics['unreadable']} answers unreadable, {ambiguous} ambiguous")
    if metrics.get("left_out"):
        lines.append(f"{metrics['left_out']} of the questions could not be asked and count as wrong")
    lines += _cut_off_lines(metrics.get("cut_off", 0))
    lines += describe_tokens(metrics)
    if "confidence" in metrics:
        sure = metrics["confidence"][ALL]
        right = ", ".join(f"of the surest {share} {value:.1f} %" for share, value in sure["coverage"].items())
        lines.append(f"confidence: calibration error {sure['error']:.1f} %; right {right}")
    if "agreement" in metrics:
        lines += ["", describe_agreement(metrics["agreement"])]
    return "\n".join(lines)


def describe_tokens(metrics: Mapping) -> list[str]:
    """A line for people about `token_sums`, none where there are none."""
    if "tokens" not in metrics:
        return []
    told = metrics["tokens"]
    parts = [f"{told[kind]['sum']} {kind} ({told[kind]['mean']:.1f} per question)" for kind in ("prompt", "completion")]
    return [f"tokens of {told['questions']} questions, as the server counts: {', '.join(parts)}"]


def _count(predictions: Sequence[Mapping], flag: str) -> int:
    return sum(item.get(flag, False) for item in predictions)


def _cut_off_lines(number: int) -> list[str]:
    return [f"{number} answers were cut off at the longest length (--max_new_tokens)"] if number else []
