"""Benchmarks: answers turned into values, official scores, the blind baseline, reports."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from smolrgpt_jax.data.records import DataError
from smolrgpt_jax.data.sources.collect import read_json_file

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

DTYPES = ("float32", "bfloat16")  # that a model may compute in
FIRST, REORDERED, DRAWN = JOURNAL_PARTS = ("", "reordered", "drawn")  # of a run's answers, a file each
INTERRUPTED = "interrupted; finished answers are kept, the same command goes on from there"


def write_aside(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file under another name, then renames it: whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: str | Path, value: object) -> None:
    """Writes a value as JSON, whole or not at all."""
    write_aside(path, json.dumps(value, indent=1) + "\n")


def read_json(path: str | Path) -> dict:
    """Reads an object that ``write_json`` wrote; raises DataError naming the file if it cannot be read or holds something else."""
    value = read_json_file(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds no JSON object")
    return value


@contextlib.contextmanager
def results_folder(out: str | Path, own: Collection[str] = ()) -> Iterator[Path]:
    """Gives an empty folder to write results into; once all are complete they are moved to ``out``.

    Files of the same names in ``out`` are replaced, and those of ``own``, names that the command gives its results, are
    removed where this run wrote none: they are another run's. Others stay. After an error ``out`` is as before.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        yield Path(folder)
        out.mkdir(exist_ok=True)
        for name in own:
            if not (Path(folder) / name).exists():
                (out / name).unlink(missing_ok=True)
        for file in Path(folder).iterdir():
            file.replace(out / file.name)


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
