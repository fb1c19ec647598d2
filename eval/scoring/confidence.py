"""How sure a model is of its answers, and whether it is right as often as that says.

An answer's confidence is the probability that it is right, by the logarithm of the answer's own probability: the share of right answers
among held-out ones that were about as likely, never falling with the likelihood (isotonic regression: Zadrozny and Elkan, Transforming
Classifier Scores into Accurate Multiclass Probability Estimates, 2002), and straight between those points. A logistic function, two
numbers in place of twenty, is bent for all answers by the few that are very unlikely.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.scoring.official import is_right

LEAST = -30.0  # what less likely answers count as
POINTS, GROUP = 20, 10  # of a fit at most, and answers of each at least
BINS = 10  # of equally many answers
COVERAGES = (0.5, 0.8, 0.9, 1.0)
ALL = "all questions"
WORDS = ((0.9, "sure"), (0.7, "fairly sure"), (0.5, "unsure"), (0.0, "guessing"))

Fit = Sequence[Sequence[float]]  # likelihoods, which increase, and their confidences


def fit_confidence(likelihoods: Sequence[float], rights: Sequence[bool]) -> Fit:
    """The `Fit` of `confidence`, of at least one answer.

    likelihoods: logarithms of the answers' probabilities; rights: whether they are right. Points are of equally many answers, the median
    of their likelihoods and their share of right ones with one more answer, which is as often right as all are: none is quite sure.
    """
    from scipy.optimize import isotonic_regression

    x, right = np.maximum(likelihoods, LEAST), np.asarray(rights, float)
    groups = np.array_split(np.argsort(x, kind="stable"), max(1, min(POINTS, len(x) // GROUP)))
    # Groups of one likelihood are one.
    middle, number = np.unique([np.median(x[group]) for group in groups], return_inverse=True)
    answers = np.bincount(number, [len(group) for group in groups])
    overall = (right.sum() + 0.5) / (len(right) + 1)
    share = (np.bincount(number, [right[group].sum() for group in groups]) + overall) / (answers + 1)
    return middle.tolist(), isotonic_regression(share, weights=answers).x.tolist()


def confidence(likelihood: float, fit: Fit) -> float:
    """The probability that an answer is right, by the logarithm of its own."""
    return float(np.interp(likelihood, *fit))


def in_words(value: float) -> str:
    """A confidence for people."""
    return next(word for least, word in WORDS if value >= least)


def described(value: float) -> str:
    """The number and its word, as "0.93, sure"."""
    return f"{value:.2f}, {in_words(round(value, 2))}"


def reliability(confidences: Sequence[float], rights: Sequence[bool]) -> dict[str, Any]:
    """Whether answers are right as often as they say, of at least one.

    Returns:
      error: the expected calibration error in percent (Guo et al. 2017): the mean over answers of how far their bin's share of right
        answers is from its mean confidence, bins of equally many answers; bins: dicts of confidence (mean) and accuracy in percent, and
        questions; coverage: {share of the answers, the surest ones: their accuracy in percent}.
    """
    order = np.argsort(-np.asarray(confidences, float), kind="stable")
    sure, right = np.asarray(confidences, float)[order], np.asarray(rights, float)[order]
    bins = [
        {"confidence": 100 * float(s.mean()), "accuracy": 100 * float(r.mean()), "questions": len(s)}
        for s, r in zip(np.array_split(sure, BINS), np.array_split(right, BINS))
        if len(s)
    ]
    error = sum(found["questions"] * abs(found["confidence"] - found["accuracy"]) for found in bins) / len(sure)
    coverage = {f"{share:.0%}": 100 * float(right[: max(1, round(share * len(right)))].mean()) for share in COVERAGES}
    return {"error": error, "bins": bins, "coverage": coverage}


def reliabilities(items: Sequence[Mapping]) -> dict[str, dict[str, Any]]:
    """`reliability` of each category of predictions with "confidence", and of all of them.

    None counts as 0: an answer that cannot be read, or was never given, is not right.
    """
    groups: dict[str, list[Mapping]] = defaultdict(list)
    for item in items:
        groups[item["category"]].append(item)
    groups[ALL] = list(items)
    return {
        name: reliability([item["confidence"] or 0.0 for item in found], list(map(is_right, found)))
        for name, found in groups.items()
    }


def table_of(scored: Mapping[str, Mapping[str, Any]]) -> str:
    """`reliability` of every category, as a Markdown table."""
    head = ["category", "questions", "calibration error", *(f"right of the surest {share:.0%}" for share in COVERAGES)]
    lines = [head, ["---"] * len(head)]
    for name, found in scored.items():
        questions = sum(part["questions"] for part in found["bins"])
        cells = [f"{found['coverage'][f'{share:.0%}']:.1f} %" for share in COVERAGES]
        lines.append([name, str(questions), f"{found['error']:.1f} %", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
