"""The warehouse benchmark's official numbers, and S1.

The official numbers are those that the published scorer prints, to the last digit, its oddities included: it finds the
digits of number words inside other words too ("none" is "n1"), and knows few ways to write a side. S1 and the accuracies
beside them read values as a person would. Three official names need care: "rmse" is the mean absolute error, "err" is a
mean relative error in percent (a count is compared with at least 1), and "absrel" divides by truth + 1e-8, so that one
wrong count of zero pallets makes it huge.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from eval.reading.rules import Answer, parse_normalized
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Question
from smolrgpt_jax.errors import DataError

_EPSILON = 1e-8
_QUALITATIVE = ("left_right", "mcq")
_QUANTITATIVE = ("count", "distance")
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SIDES = {
    way: side for side in ("left", "right") for way in (side[0], side, f"{side} side", f"{side}-hand", f"{side} hand")
}


def is_correct(category: str, predicted: Answer, truth: str | float) -> bool:
    """Whether a parsed answer counts: distance within 10 % (0 only for 0), all others exactly."""
    if predicted is None:
        return False
    if category == "distance":
        return abs(predicted - truth) / (truth + _EPSILON) <= 0.1
    return predicted == truth


def is_right(item: Mapping) -> bool:
    """Whether the answer of an item of predictions.json counts."""
    return is_correct(item["category"], item["normalized_answer"], item["truth"])


def official_value(category: str, value: object) -> str | int | float:
    """Reads a value as the published scorer does; raises ValueError where that ends with a traceback.

    Sides are lower-cased and known by few names, anything else stays as it stands. Of an mcq answer, lower-cased and with
    the words zero to ten replaced in this order wherever they stand, the first run of digits counts, or the whole text
    where there is none. Counts are truncated floats.
    """
    text = str(value).strip().lower()
    if category == "left_right":
        return _SIDES.get(text, text)
    if category == "mcq":
        for number, word in enumerate(_WORDS):
            text = text.replace(word, str(number))
        digits = re.search(r"\d+", text)
        return digits.group() if digits else text
    try:
        number = float(value)
        return int(number) if category == "count" else number
    except (TypeError, ValueError, OverflowError):
        shown = repr(value)
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        raise ValueError(f"the {category} {shown} is no number, on which the published scorer ends") from None


def score(questions: Iterable[Question], predictions: Mapping[str, object]) -> dict:
    """Scores predictions, normalised answers by question id, as `parse_normalized` reads them.

    A question without prediction, or with an unreadable one, is wrong; one without is left out of the error means (err,
    absrel, rmse), which have no number for it.

    Returns:
      S1 and the four category accuracies in percent (S1 is the mean over the categories that occur; a category that
      does not is None); questions, missing, unreadable: numbers of questions; official: {official name: number}, or
      {"error": why there are none} for predictions on which the published scorer ends.

    Raises:
      DataError: there is no question, a question has no answer, its id occurs twice, or a prediction has no question.
    """
    questions = list(questions)
    truths: dict[str, list[float | str]] = {category: [] for category in WAREHOUSE_CATEGORIES}
    parsed: dict[str, list[Answer]] = {category: [] for category in WAREHOUSE_CATEGORIES}
    seen: set[str] = set()
    for question in questions:
        where = f"question {question.id!r}"
        if question.category not in truths:
            raise DataError(f"{where} is of category {question.category!r}, expected one of {list(truths)}")
        if question.normalized_answer is None:
            raise DataError(f"{where} has no normalized answer to score against")
        if question.id in seen:
            raise DataError(f"{where} occurs twice in the ground truth")
        seen.add(question.id)
        truths[question.category].append(question.normalized_answer)
        parsed[question.category].append(parse_normalized(question.category, predictions.get(question.id)))
    if not seen:
        raise DataError("there is no question to score")
    unknown = [name for name in predictions if name not in seen]
    if unknown:
        listed = ", ".join(map(repr, unknown))
        raise DataError(f"{len(unknown)} predictions belong to no question of the ground truth: {listed}")
    accuracy = _accuracies(parsed, truths)[2]
    missing = len(seen) - len(predictions)
    unreadable = sum(answers.count(None) for answers in parsed.values()) - missing
    counts = {"questions": len(seen), "missing": missing, "unreadable": unreadable}
    return {"S1": _mean_score(accuracy), **accuracy, **counts, "official": _official(questions, predictions)}


def _official(questions: Sequence[Question], predictions: Mapping[str, object]) -> dict:
    """The official numbers; a prediction that is missing is wrong and left out of the error means."""
    truths: dict[str, list] = {category: [] for category in WAREHOUSE_CATEGORIES}
    parsed: dict[str, list] = {category: [] for category in WAREHOUSE_CATEGORIES}
    for question in questions:
        name, category = question.id, question.category
        truths[category].append(official_value(category, question.normalized_answer))
        try:
            value = official_value(category, predictions[name]) if name in predictions else None
        except ValueError as error:
            return {"error": f"prediction {name!r}: {error}"}
        parsed[category].append(value)
    correct, total, accuracy = _accuracies(parsed, truths)
    errors = {category: _errors(category, parsed[category], truths[category]) for category in _QUANTITATIVE}
    numbers: dict[str, float | int] = {"Final_weighted_score": _mean_score(accuracy)}
    for kind, categories in (("Quan", _QUANTITATIVE), ("Qual", _QUALITATIVE)):
        for name in categories:
            numbers[f"{kind}_{name}_acc"] = accuracy[name] or 0.0
            numbers[f"{kind}_{name}_count"], numbers[f"{kind}_{name}_correct"] = total[name], correct[name]
    for name, found in errors.items():
        numbers[f"Quan_{name}_err"] = found.pop("err")
        numbers |= {f"Quan_{name}_{error}": round(value, 3) for error, value in found.items()}
    for sums, mean, categories in (
        ("Quan_total", "Quan_overall", _QUANTITATIVE),
        ("Qual_total", "Qual_overall", _QUALITATIVE),
        ("Total", "Overall", WAREHOUSE_CATEGORIES),
    ):
        right, of = (sum(counts[name] for name in categories) for counts in (correct, total))
        numbers |= {f"{sums}_correct": right, f"{sums}_count": of, f"{mean}_acc": _percent(right, of)}
    return numbers


def _accuracies(parsed: Mapping, truths: Mapping) -> tuple[dict[str, int], dict[str, int], dict[str, float | None]]:
    """Right answers, questions, and percent right (None without questions) of each category."""
    correct = {name: sum(is_correct(name, p, t) for p, t in zip(parsed[name], truths[name])) for name in truths}
    total = {name: len(truths[name]) for name in truths}
    return correct, total, {name: _percent(correct[name], total[name]) if total[name] else None for name in truths}


def _errors(category: str, parsed: list[Answer], truths: list[float]) -> dict[str, float]:
    """err, absrel, rmse over the readable answers; a1 (ratio below 1.1) over all of them."""
    pairs = [(answer, truth) for answer, truth in zip(parsed, truths) if answer is not None]
    if not pairs:
        return {"err": 0.0, "absrel": 0.0, "rmse": 0.0, "a1": 0.0}
    answer, truth = np.asarray(pairs, np.float64).T
    difference = np.abs(answer - truth)
    scale = np.maximum(truth, 1) if category == "count" else truth + _EPSILON
    # An answer of exactly -_EPSILON divides by zero; what comes out is no ratio below 1.1.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.maximum(answer / (truth + _EPSILON), truth / (answer + _EPSILON))
    return {
        "err": float((difference / scale).sum() / (len(pairs) + _EPSILON) * 100),
        "absrel": float((difference / (truth + _EPSILON)).mean()),
        "rmse": float(difference.mean()),
        "a1": float((ratio < 1.1).sum() / len(truths)),
    }


def _percent(right: int, all_of: int) -> float:
    return right / all_of * 100 if all_of else 0.0


def _mean_score(accuracy: Mapping[str, float | None]) -> float:
    present = [value for value in accuracy.values() if value is not None]
    return sum(present) / len(present)
