"""Where a score comes from: by question template, by true distance, and how answers are calibrated.

All functions take questions as in predictions.json: mappings with category, question, normalized_answer (None where
unreadable) and truth.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from eval.reading.doubt import readability
from eval.scoring.blind import template
from eval.scoring.intervals import category_intervals, describe_bootstrap
from eval.scoring.official import is_right
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES

# Metres; an object inside the buffer has distance 0 and a bin of its own.
DISTANCE_EDGES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)
_ERRORS = ("mean_error", "mean_absolute_error", "median_absolute_error", "mean_relative_error")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def describe_details(items: Sequence[Mapping]) -> dict:
    """What metrics.json holds beside the scores: intervals {S1 and category: [low, high] in percent or None}, bootstrap
    (how they were made), templates, distance_errors, calibration and readability, see the functions of these names.

    Items with "image" are grouped by it, those without "question" get no templates, those without "answer" no readability.
    """
    by_picture = all(item.get("image") is not None for item in items)
    clusters = [item["image"] if by_picture else item["id"] for item in items]
    rights = list(map(is_right, items))
    intervals = category_intervals(clusters, [item["category"] for item in items], rights, WAREHOUSE_CATEGORIES)
    made = describe_bootstrap(clusters, "picture" if by_picture else "question")
    details = {"intervals": {"S1": intervals.pop("mean")} | intervals, "bootstrap": made}
    if all(item.get("question") for item in items):
        details["templates"] = template_scores(items)
        if all("answer" in item for item in items):
            details["readability"] = readability(items)
    return details | {"distance_errors": distance_errors(items), "calibration": calibration(items)}


def abstracted(question: str) -> str:
    """A question's template: runs of "<mask>" as one, numbers as "#"."""
    return _NUMBER.sub("#", template(question))


def template_scores(items: Sequence[Mapping]) -> list[dict]:
    """Dicts of category, template, questions, correct and accuracy (percent), by category, the most frequent first."""
    rights: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for item, right in zip(items, map(is_right, items)):
        rights[item["category"], abstracted(item["question"])].append(right)
    rows = []
    for (category, words), found in rights.items():
        row = {"category": category, "template": words, "questions": len(found), "correct": sum(found)}
        rows.append(row | {"accuracy": 100 * sum(found) / len(found)})
    return sorted(rows, key=lambda r: (WAREHOUSE_CATEGORIES.index(r["category"]), -r["questions"], r["template"]))


def distance_errors(items: Sequence[Mapping]) -> list[dict]:
    """Errors of the distance questions by true distance; bins without questions are left out.

    Returns:
      Dicts of low and high (metres; low < truth <= high, the first bin only 0), questions, readable, accuracy (percent,
      unreadable answers are wrong) and, over the readable answers, None without one: mean_error (answer - truth),
      mean_absolute_error and median_absolute_error in metres, mean_relative_error in percent (None for the bin of 0).
    """
    rows = []
    for (low, high), found in _by_distance(items):
        answers, truths = _readable(found)
        error = answers - truths
        absolute = np.abs(error)
        accuracy = 100 * sum(map(is_right, found)) / len(found)
        row = {"low": low, "high": high, "questions": len(found), "readable": len(error), "accuracy": accuracy}
        statistics = (None,) * len(_ERRORS)
        if error.size:
            relative = 100 * float((absolute / truths).mean()) if high > 0 else None
            statistics = float(error.mean()), float(absolute.mean()), float(np.median(absolute)), relative
        rows.append(row | dict(zip(_ERRORS, statistics)))
    return rows


def calibration(items: Sequence[Mapping]) -> dict[str, dict | None]:
    """Answers against the truth, for distance by bins of the true distance and for count by the true count.

    Returns {"distance" or "count": None without a readable answer, else slope and intercept of the least-squares line
    answer = intercept + slope * truth (None where all truths are equal) and groups: dicts of truth (mean), answer
    (mean), lower and upper (quartiles of the answers), n}.
    """
    distances = [found for _, found in _by_distance(items)]
    counts: dict[int, list[Mapping]] = defaultdict(list)
    for item in items:
        if item["category"] == "count":
            counts[item["truth"]].append(item)
    return {"distance": _calibration(distances), "count": _calibration([found for _, found in sorted(counts.items())])}


def _calibration(groups: Sequence[Sequence[Mapping]]) -> dict | None:
    pairs = [pair for pair in map(_readable, groups) if pair[0].size]
    if not pairs:
        return None
    answers, truths = (np.concatenate(parts) for parts in zip(*pairs))
    spread = truths - truths.mean()
    slope = float(spread @ answers / (spread @ spread)) if spread.any() else None
    intercept = None if slope is None else float(answers.mean() - slope * truths.mean())
    groups = []
    for answer, truth in pairs:
        quartiles = dict(zip(("lower", "upper"), np.percentile(answer, (25, 75)).tolist()))
        groups.append({"truth": float(truth.mean()), "answer": float(answer.mean()), **quartiles, "n": answer.size})
    return {"slope": slope, "intercept": intercept, "groups": groups}


def _by_distance(items: Sequence[Mapping]) -> list[tuple[tuple[float, float], list[Mapping]]]:
    """The distance questions in bins (low, high] of the truth; the last bin reaches as far as it must."""
    found = [item for item in items if item["category"] == "distance"]
    top = max([DISTANCE_EDGES[-1], *(item["truth"] for item in found)])
    edges = [*DISTANCE_EDGES, *([top] if top > DISTANCE_EDGES[-1] else [])]
    bins = [((0.0, 0.0), [item for item in found if item["truth"] == 0])]
    for low, high in itertools.pairwise(edges):
        bins.append(((low, high), [item for item in found if low < item["truth"] <= high]))
    return [(edge, held) for edge, held in bins if held]


def _readable(items: Sequence[Mapping]) -> tuple[np.ndarray, np.ndarray]:
    """Answers and truths, float64[n] each, of the questions whose answer could be read."""
    pairs = [(item["normalized_answer"], item["truth"]) for item in items if item["normalized_answer"] is not None]
    answers, truths = np.array(pairs, np.float64).reshape(-1, 2).T
    return answers, truths
