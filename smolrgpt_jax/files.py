"""Folders that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smolrgpt_jax.checkpoint.safetensors_file import CheckpointError


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to write into, renamed to it at the end.

    On any failure it is removed, with the parent folders made for it. What a killed process left of the same destination is
    removed too. Raises CheckpointError if `folder` exists, or for an OSError while writing.
    """
    folder = Path(os.path.abspath(folder))
    if os.path.lexists(folder):
        raise CheckpointError(f"{folder} exists already; nothing was written")
    made = [parent for parent in folder.parents if not parent.exists()]
    start = f".{folder.name}.partial-{socket.gethostname()}-"
    aside = folder.with_name(f"{start}{os.getpid()}")
    done = False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f"{glob.escape(start)}*"):
            if not _alive(left.name.removeprefix(start)):
                shutil.rmtree(left, ignore_errors=True)
        aside.mkdir()
        yield aside
        aside.rename(folder)
        done = True
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f"{folder} could not be written, nothing was left behind: {reason}") from error
    finally:
        if not done:
            shutil.rmtree(aside, ignore_errors=True)
            for parent in made:
                if parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()


def _alive(process: str) -> bool:
    """Whether this machine runs a process of that number; anything that is no number counts as alive."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        return True
    return True
