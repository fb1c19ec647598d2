"""How sure a model is of its answers, and whether it is right as often as that says.

An answer's confidence is the probability that it is right: a logistic function of the logarithm of the answer's own probability, fitted
to held-out questions of its category (Platt, Probabilistic Outputs for Support Vector Machines, 1999).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval.scoring.official import is_right

LEAST = -30.0  # what less likely answers count as
BINS = 10  # of equally many answers
COVERAGES = (0.5, 0.8, 0.9, 1.0)
ALL = "all questions"
WORDS = ((0.9, "sure"), (0.7, "fairly sure"), (0.5, "unsure"), (0.0, "guessing"))
_ROUNDS = 50

Fit = tuple[float, float]  # slope and offset


def fit_confidence(likelihoods: Sequence[float], rights: Sequence[bool]) -> Fit:
    """The slope and offset of `confidence`, of at least one answer.

    likelihoods: logarithms of the answers' probabilities; rights: whether they are right. Targets are Platt's, a little away from 0 and
    1, and the slope is never negative: no answer is surer for being less likely.
    """
    x, right = np.maximum(likelihoods, LEAST), np.asarray(rights, bool)
    goal = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    features = np.stack([x, np.ones_like(x)], axis=1)
    found = np.array([0.0, np.log(goal.mean() / (1 - goal.mean()))])
    for _ in range(_ROUNDS):  # Newton's method; the ridge keeps equal likelihoods from having a slope
        p = 1 / (1 + np.exp(-features @ found))
        hessian = (features * (p * (1 - p))[:, None]).T @ features + 1e-3 * np.eye(2)
        step = np.linalg.solve(hessian, features.T @ (goal - p) - 1e-3 * found)
        found = found + step
        if np.abs(step).max() < 1e-9:
            break
    if found[0] < 0:
        return 0.0, float(np.log(goal.mean() / (1 - goal.mean())))
    return float(found[0]), float(found[1])


def confidence(likelihood: float, fit: Fit) -> float:
    """The probability that an answer is right, by the logarithm of its own."""
    return float(1 / (1 + np.exp(-(fit[0] * max(likelihood, LEAST) + fit[1]))))


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
