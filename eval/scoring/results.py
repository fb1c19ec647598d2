"""What a run's predictions come to: metrics, the files of a run, tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from eval.reading.methods import RULES
from eval.scoring.agreement import agreement, describe_agreement
from eval.scoring.blind import BlindBaseline
from eval.scoring.breakdown import describe_details
from eval.scoring.intervals import cell, describe_interval
from eval.scoring.official import score
from eval.scoring.records import make_submission
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Question
from smolrgpt_jax.files import read_json, write_json

RESULT_FILES = ("predictions.json", "submission.json", "metrics.json", "agreement.json", "report.html", "answers.json")


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
      `describe_details`, and with several methods agreement, see `eval.scoring.agreement.agreement`.
    """
    if all(item["truth"] is None for item in predictions):
        return None
    questions = [Question(item["id"], item["category"], item["question"], None, item["truth"]) for item in predictions]
    scored = score(questions, {item["id"]: item["normalized_answer"] for item in predictions})
    metrics = {name: scored[name] for name in ("S1", *WAREHOUSE_CATEGORIES, "questions", "unreadable")}
    metrics |= {name: _count(predictions, name) for name in ("left_out", "cut_off")} | {"read_by": list(methods)}
    if blind is not None:
        guessed = score(questions, {question.id: blind.predict(question) for question in questions})
        metrics["blind_S1"] = guessed["S1"]
        metrics["blind"] = {category: guessed[category] for category in WAREHOUSE_CATEGORIES}
    metrics |= {"official": scored["official"]} | describe_details(predictions)
    if "values" in predictions[0]:
        metrics["agreement"] = agreement(predictions)
    return metrics


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
    empty = sum(item["normalized_answer"] == "" for item in submission)
    return "\n".join(lines + ([f"{empty} of the submission's {len(submission)} entries are empty"] if empty else []))


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
    if "agreement" in metrics:
        lines += ["", describe_agreement(metrics["agreement"])]
    return "\n".join(lines)


def _count(predictions: Sequence[Mapping], flag: str) -> int:
    return sum(item.get(flag, False) for item in predictions)


def _cut_off_lines(number: int) -> list[str]:
    return [f"{number} answers were cut off at the longest length (--max_new_tokens)"] if number else []
