"""What the comparisons with live PyTorch share: tolerances, one comparison as a line of a table, greedy tokens in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.shared import markdown
from smolrgpt_jax.errors import RunError

# Real questions and answers with their notices.
DATA_FILES = Path(__file__).parents[1] / "tests" / "data_files"
MODULE_TOLERANCE = 1e-5
TOLERANCE = 1e-4  # of logits, losses and gradients
NEW_TOKENS = 64


@dataclass(frozen=True)
class Line:
    """One comparison: largest absolute difference, that over the largest value, and what it may be at most."""

    name: str
    difference: float
    relative: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return bool(self.relative <= self.tolerance)


def compare(name: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float = MODULE_TOLERANCE) -> Line:
    if ours.shape != theirs.shape:
        raise RunError(f"{name} has shape {ours.shape} here and {theirs.shape} in PyTorch")
    difference = float(np.abs(np.subtract(ours, theirs, dtype=np.float32)).max())
    return Line(name, difference, difference / float(np.abs(theirs).max()), tolerance)


def describe_greedy(theirs: np.ndarray, ours: np.ndarray, leads: np.ndarray, largest_difference: float) -> str:
    """What the greedy tokens show.

    theirs, ours: int32[B, T]; leads: float32[B, T'], distance of PyTorch's two best logits at every step taken;
    largest_difference: of any logit.
    """
    same, (rows, steps) = int((theirs == ours).sum()), theirs.shape
    lines = [
        f"Greedy tokens: {same} of {rows} x {steps} identical ({len(np.unique(theirs))} different tokens, "
        f"{len(np.unique(theirs, axis=0))} different answers). Smallest lead of a token over the second best: "
        f"{leads.min():.3g}, median {np.median(leads):.3g}; largest difference of any logit: {largest_difference:.3g}."
    ]
    for row in range(rows):
        different = np.flatnonzero(theirs[row] != ours[row])
        if len(different):
            lead = leads[row, different[0]]
            lines.append(f"Question {row} first differs at token {different[0]}, where the lead is {lead:.3g}.")
    return "\n".join(lines)


def table(lines: Sequence[Line]) -> str:
    rows = (
        f"{line.name} | {line.difference:.2e} | {line.relative:.2e} | {line.tolerance:.0e} "
        f"| {'pass' if line.passed else '**FAIL**'}"
        for line in lines
    )
    return markdown(r"| max \|difference\| | relative to max \|output\| | tolerance |", rows)
