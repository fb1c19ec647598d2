"""Benchmarks: answers turned into values, official scores, the blind baseline, reports."""

from __future__ import annotations

import os
from pathlib import Path


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
