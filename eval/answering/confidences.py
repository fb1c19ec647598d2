"""How sure a checkpoint is of an answer, by the file that `smolrgpt confidence` wrote about it."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from eval.reading.rules import question_category
from eval.scoring.confidence import Fit, confidence
from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model


@dataclass(frozen=True)
class Confidences:
    """The functions of a file, by category; called with a category and the logarithm of an answer's probability."""

    file: Path
    fingerprint: str  # of the checkpoint that they are of
    fits: Mapping[str, Fit]

    @classmethod
    def read(cls, file: str | Path) -> Self:
        """Raises DataError for a file that `smolrgpt confidence` did not write."""
        told = read_json(file, dict)
        fingerprint, fits = told.get("checkpoint_fingerprint"), told.get("fits")
        if not (isinstance(fingerprint, str) and isinstance(fits, dict) and all(map(_is_fit, fits.values()))):
            raise DataError(f"{file}: is no file of `smolrgpt confidence`, which has a checkpoint_fingerprint and fits")
        return cls(Path(file), fingerprint, fits)

    def of(self, model: "Model") -> Self:
        """Itself; raises DataError where it is another model's."""
        from smolrgpt_jax.checkpoint.fingerprint import params_fingerprint

        if (found := params_fingerprint(model.params)) != self.fingerprint:
            raise DataError(f"{self.file}: is of a model with the fingerprint {self.fingerprint}, this one has {found}")
        return self

    def __call__(self, category: str | None, likelihood: float) -> float | None:
        """The probability that an answer is right, None for a question of no category that the file knows."""
        return confidence(likelihood, self.fits[category]) if category in self.fits else None

    def added(
        self, model: "Model", pictures: Sequence[Picture], items: Sequence[Mapping], bad: BadRecords
    ) -> list[dict]:
        """Predictions with "confidence", None where there is no value that could be right; pictures: those they are about."""
        from smolrgpt_jax.generation.likelihood import log_likelihoods

        read = {item["id"]: item["answer"] for item in items if item["normalized_answer"] is not None}
        likely = log_likelihoods(model, pictures, read, on_bad_record=bad)

        def sure(item: Mapping) -> float | None:
            category = item["category"] or question_category(item["question"])
            return self(category, likely[item["id"]]) if item["id"] in likely else None

        return [{**item, "confidence": sure(item)} for item in items]


def _is_fit(value: object) -> bool:
    """Whether it is a `Fit`, in JSON."""
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(part, list) and part for part in value):
        return False
    if not all(type(x) in (int, float) and math.isfinite(x) for part in value for x in part):
        return False
    likelihoods, sure = value
    rising = all(a < b for a, b in itertools.pairwise(likelihoods))
    return len(likelihoods) == len(sure) and rising and all(0 <= x <= 1 for x in sure)
