"""What a run's predictions come to: metrics, the files of a run, tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from eval.reading.methods import RULES
from eval.scoring.agreement import agreement, describe_agreement
from eval.scoring.blind import BlindBaseline
from eval.scoring.breakdown import describe_details
from eval.scoring.intervals import describe_interval
from eval.scoring.official import score
from eval.scoring.submission import make_submission
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Question
from smolrgpt_jax.files import write_json

RESULT_FILES = ("predictions.json", "submission.json", "metrics.json", "agreement.json")


def compute_metrics(
    predictions: Sequence[Mapping], blind: BlindBaseline | None = None, methods: Iterable[str] = RULES
) -> dict:
    """Scores predictions and, with it, the blind baseline; what metrics.json holds.

    Args:
      predictions: as in predictions.json: dicts of id, image, category, question, answer,
        normalized_answer, truth, and values: {method: value} where several methods read the answers.
      blind: the baseline to score beside them.
      methods: names of those that read the answers; the first one's values are scored.

    Returns:
      S1, left_right, count, mcq, distance in percent (None for a category without questions),
      questions, unreadable, left_out (those of them that could not be asked), cut_off (answers that the longest
      length cut), read_by (the methods), blind_S1 and blind {category: percent} unless ``blind`` is None,
      official {official name: number}, the parts of ``eval.scoring.breakdown.describe_details``, and with several
      methods agreement, see ``eval.scoring.agreement.agreement``.
    """
    questions = [Question(item["id"], item["category"], item["question"], None, item["truth"]) for item in predictions]
    scored = score(questions, {item["id"]: item["normalized_answer"] for item in predictions})
    metrics = {name: scored[name] for name in ("S1", *WAREHOUSE_CATEGORIES, "questions", "unreadable")}
    metrics["left_out"] = sum(item.get("left_out", False) for item in predictions)
    metrics["cut_off"] = count_cut_off(predictions)
    metrics["read_by"] = list(methods)
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


def count_cut_off(predictions: Sequence[Mapping]) -> int:
    """Number of answers that the longest length cut."""
    return sum(item.get("cut_off", False) for item in predictions)


def describe_results(predictions: Sequence[Mapping], metrics: Mapping | None) -> str:
    """Returns ``describe_metrics``, or what can be said of predictions without published answers."""
    if metrics is not None:
        return describe_metrics(metrics)
    unreadable = sum(item["normalized_answer"] is None for item in predictions)
    lines = [f"{len(predictions)} questions without published answers, {unreadable} answers unreadable"]
    lines += _cut_off_lines(count_cut_off(predictions))
    if "values" in predictions[0]:
        lines += ["", describe_agreement(agreement(predictions))]
    return "\n".join(lines)


def describe_metrics(metrics: Mapping) -> str:
    """Returns a small table for people: accuracy, its interval and blind accuracy per category."""
    blind = {"S1": metrics.get("blind_S1")} | (metrics.get("blind") or {})
    intervals = metrics.get("intervals") or {}
    lines = [f"{'':<12}{'accuracy':>9}{'95 % interval':>17}{'blind':>9}"]
    for name in ("S1", *WAREHOUSE_CATEGORIES):
        interval = describe_interval(intervals.get(name))
        lines.append(f"{name:<12}{_cell(metrics[name]):>9}{interval:>17}{_cell(blind.get(name)):>9}")
    ambiguous = sum(row["ambiguous"] for row in metrics.get("readability", {}).values())
    lines.append(f"{metrics['questions']} questions, {metrics['unreadable']} answers unreadable, {ambiguous} ambiguous")
    if metrics.get("left_out"):
        lines.append(f"{metrics['left_out']} of the questions could not be asked and count as wrong")
    lines += _cut_off_lines(metrics.get("cut_off", 0))
    if "agreement" in metrics:
        lines += ["", describe_agreement(metrics["agreement"])]
    return "\n".join(lines)


def _cut_off_lines(number: int) -> list[str]:
    return [f"{number} answers were cut off at the longest length (--max_new_tokens)"] if number else []


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
