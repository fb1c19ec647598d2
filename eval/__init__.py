"""Benchmarks: answers turned into values, official scores, the blind baseline, reports."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from smolrgpt_jax.data.records import DataError

DTYPES = ("float32", "bfloat16")  # that a model may compute in


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


@contextlib.contextmanager
def results_folder(out: str | Path) -> Iterator[Path]:
    """Gives an empty folder to write results into; once all are complete they are moved to ``out``.

    Files of the same names in ``out`` are replaced, others stay. After an error ``out`` is as before.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        yield Path(folder)
        out.mkdir(exist_ok=True)
        for file in Path(folder).iterdir():
            file.replace(out / file.name)


def positive(text: str) -> int:
    """Reads a command line's positive whole number; raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def check_unique(source: object, ids: Iterable[str]) -> None:
    """Raises a DataError that lists all ids that occur more than once, if there are any."""
    twice = [name for name, number in Counter(ids).items() if number > 1]
    if twice:
        raise DataError(f"{source}: ids that occur more than once: {', '.join(map(repr, twice))}")
