"""Writing JSON lists, and one file at two places."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def dump(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes a JSON list, one record per line, without holding all of it."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("[")
        file.writelines((",\n" if i else "\n") + json.dumps(record) for i, record in enumerate(records))
        file.write("\n]\n")


def link(source: Path, target: Path) -> None:
    """Makes a file appear at a second place, as a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
