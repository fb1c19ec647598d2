"""Success rates and errors of SpatialRGPT-Bench, in the layout of the paper's two tables.

Thresholds are those of the benchmark's public evaluation script (AnjieCheng/SpatialRGPT,
scripts/srgpt/eval/evaluate_spatial_with_gpt4.py): a length succeeds from 75 % to 125 % of the truth, both included; a
clock direction succeeds within one hour, counted around the dial. The error of a length is |answer - truth| / (truth +
1e-4), that of a direction the hours between them, given in degrees (30 per hour) as in the paper. An answer that cannot
be read is a failure and has no error. What differs is the judge: there GPT-4 compares qualitative answers and extracts
numbers, here the rules of `eval.reading.bench_rules` do.
"""

from collections.abc import Mapping, Sequence

from eval.reading.bench_rules import CATEGORIES, QUALITATIVE, QUANTITATIVE, BenchAnswer
from eval.scoring.intervals import category_intervals, cell, describe_bootstrap, describe_interval
from eval.scoring.results import check_unique, describe_tokens, token_sums
from smolrgpt_jax.errors import DataError

JUDGE = "rules (the original evaluation asks GPT-4, so that its numbers are not quite comparable)"
AVERAGE = "average"
_EPSILON = 1e-4
_DEGREES_PER_HOUR = 30.0


def group_of(category: str) -> str:
    """The column of the paper's tables that a category belongs to."""
    name = category.rsplit("_", 1)[0]
    columns = {column: (category,) for column, own in QUANTITATIVE.items() if own == category} | QUALITATIVE
    return next(column for column, names in columns.items() if category in names or name in names)


def is_success(category: str, answer: BenchAnswer, truth: BenchAnswer) -> bool:
    """Whether an answer counts; values as of `bench_answer`, None never does."""
    if answer is None or truth is None:
        return False
    if category == "direction":
        return clock_hours(answer, truth) <= 1
    if category in QUANTITATIVE.values():
        return 0.75 * truth <= answer <= 1.25 * truth
    return answer == truth


def answer_error(category: str, answer: BenchAnswer, truth: BenchAnswer) -> float | None:
    """The relative error of a length, the degrees of a direction, None for others and without a value."""
    if answer is None or truth is None or category not in QUANTITATIVE.values():
        return None
    if category == "direction":
        return _DEGREES_PER_HOUR * clock_hours(answer, truth)
    return abs(answer - truth) / (truth + _EPSILON)


def clock_hours(first: int, second: int) -> int:
    """Hours between two hours of the dial, the short way round: 0 to 6."""
    difference = abs(first - second) % 12
    return min(difference, 12 - difference)


def score_bench(items: Sequence[Mapping]) -> dict:
    """Scores answers: items with id, image, category, value and truth_value (as of `bench_answer`).

    Returns:
      judge; qualitative: {column: percent, "average": of all qualitative questions}; quantitative: {column: {success:
      percent, error: mean relative error, or degrees}}, None without questions or without readable answers; intervals
      of the same percentages and bootstrap, how they were made; columns and categories: {name: {questions, correct,
      unreadable, success}}; questions, unreadable; cut_off: answers that the longest length cut; unreadable_truths: ids
      whose published answer the rules cannot read, which count as failures; tokens, see `token_sums`, where told.

    Raises:
      DataError: there is no question, or ids occur twice.
    """
    if not items:
        raise DataError("there is no question to score")
    check_unique("the questions", (item["id"] for item in items))
    names = [group_of(item["category"]) for item in items]
    rights = [is_success(item["category"], item["value"], item["truth_value"]) for item in items]
    averaged = [AVERAGE if name in QUALITATIVE else "" for name in names]

    def count(labels: Sequence[str], label: str) -> dict:
        found = [i for i, own in enumerate(labels) if own == label]
        correct = sum(rights[i] for i in found)
        unreadable = sum(items[i]["value"] is None for i in found)
        success = 100 * correct / len(found) if found else None
        return {"questions": len(found), "correct": correct, "unreadable": unreadable, "success": success}

    images = [item["image"] for item in items]
    columns = {name: count(names, name) for name in (*QUALITATIVE, *QUANTITATIVE)}
    intervals = category_intervals(images, names, rights, tuple(columns))
    intervals |= category_intervals(images, averaged, rights, (AVERAGE,))
    qualitative = {name: columns[name]["success"] for name in QUALITATIVE}
    errors = {name: _mean_error(items, category) for name, category in QUANTITATIVE.items()}
    return {
        "judge": JUDGE,
        "qualitative": qualitative | {AVERAGE: count(averaged, AVERAGE)["success"]},
        "quantitative": {n: {"success": columns[n]["success"], "error": error} for n, error in errors.items()},
        "intervals": {name: intervals[name] for name in (*QUALITATIVE, AVERAGE, *QUANTITATIVE)},
        "bootstrap": describe_bootstrap(images),
        "columns": columns,
        "categories": {name: count([item["category"] for item in items], name) for name in CATEGORIES},
        "questions": len(items),
        "unreadable": sum(item["value"] is None for item in items),
        "cut_off": sum(item.get("cut_off", False) for item in items),
        "unreadable_truths": [item["id"] for item in items if item["truth_value"] is None],
    } | token_sums(items)


def describe_bench(metrics: Mapping) -> str:
    """Both tables for people, with 95 % intervals of the success rates."""
    counts = {name: column["questions"] for name, column in metrics["columns"].items()}
    counts[AVERAGE] = sum(counts[name] for name in QUALITATIVE)

    def row(name: str, success: float | None) -> str:
        return f"{name:<22}{cell(success):>11}{describe_interval(metrics['intervals'][name]):>17}{counts[name]:>6}"

    lines = [f"{'qualitative':<22}{'success, %':>11}{'95 % interval':>17}{'n':>6}"]
    lines += [row(name, success) for name, success in metrics["qualitative"].items()]
    lines += ["", f"{'quantitative':<22}{'success, %':>11}{'95 % interval':>17}{'n':>6}{'error':>12}"]
    for name, found in metrics["quantitative"].items():
        error = cell(found["error"], ".1f" if name == "direction" else ".2f")
        error += " deg" if name == "direction" and found["error"] is not None else ""
        lines.append(f"{row(name, found['success'])}{error:>12}")
    made = metrics["bootstrap"]
    counted = f"{metrics['questions']} questions, {metrics['unreadable']} answers unreadable"
    lines += ["", f"{counted}; judged by {metrics['judge']}"]
    lines.append(f"intervals: {made['method']} ({made['clusters']} pictures); {made['limits']}")
    if metrics["cut_off"]:
        lines.append(f"{metrics['cut_off']} answers were cut off at the longest length (--max_new_tokens)")
    lines += describe_tokens(metrics)
    if unread := metrics["unreadable_truths"]:
        listed = ", ".join(map(repr, unread))
        lines.append(f"{len(unread)} published answers are unreadable and count as failures: {listed}")
    return "\n".join(lines)


def _mean_error(items: Sequence[Mapping], category: str) -> float | None:
    members = [item for item in items if item["category"] == category]
    errors = [answer_error(category, item["value"], item["truth_value"]) for item in members]
    readable = [error for error in errors if error is not None]
    return sum(readable) / len(readable) if readable else None
