"""Benchmarks: answers turned into values, official scores, the blind baseline, reports."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from smolrgpt_jax.errors import DataError

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

DTYPES = ("float32", "bfloat16")  # that a model may compute in
FIRST, REORDERED, DRAWN = JOURNAL_PARTS = ("", "reordered", "drawn")  # of a run's answers, a file each
INTERRUPTED = "interrupted; finished answers are kept, the same command goes on from there"


def journal_path(out: str | Path, part: str = FIRST) -> Path:
    """Where the finished answers of a run that writes to ``out`` are kept until its results are written.

    ``part``: of ``JOURNAL_PARTS``, for answers besides the first ones.
    """
    out = Path(out).resolve()
    return out.with_name(f".{out.name}.journal" + (f".{part}" if part else ""))


def remove_journal(out: str | Path) -> None:
    """Removes the kept answers, after the results have been written."""
    from eval.answering.journal import journal_files

    for part in JOURNAL_PARTS:
        for file in journal_files(journal_path(out, part)):
            file.unlink(missing_ok=True)


def positive(text: str) -> int:
    """Reads a command line's positive whole number; raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def add_answer_length(parser: argparse.ArgumentParser) -> None:
    """Adds --max_new_tokens, which ``answer_length`` reads."""
    parser.add_argument(
        "--max_new_tokens",
        type=positive,
        help="longest answer, in tokens (default: as long as the checkpoint was trained for; 120 for a published one)",
    )


def answer_length(model: Model, stated: int | None = None) -> int:
    """Longest answer, in tokens: what is stated, else what the checkpoint was trained for."""
    return model.answer_tokens if stated is None else stated


def check_unique(source: object, ids: Iterable[str]) -> None:
    """Raises a DataError that lists all ids that occur more than once, if there are any."""
    twice = [name for name, number in Counter(ids).items() if number > 1]
    if twice:
        raise DataError(f"{source}: ids that occur more than once: {', '.join(map(repr, twice))}")
