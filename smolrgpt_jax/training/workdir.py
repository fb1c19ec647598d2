"""The folder of a run: one run at a time, on a disk that can do what checkpoints need."""

import contextlib
import errno
import fcntl
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from smolrgpt_jax.errors import RunError

LOCK = ".lock"


@contextlib.contextmanager
def work_directory(path: Path, first: bool = True) -> Iterator[Callable[[], None]]:
    """Holds a folder for one run; a lock that a dead run left holds nobody up.

    first: of several processes the first one holds it for all. Gives a function that raises RunError once the folder is removed,
    which is called at the end too. A folder that was made and not written to is removed. Raises RunError where another run has
    the folder, or its file system cannot keep checkpoints.
    """
    if not first:
        yield lambda: None
        return
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / LOCK, "a+", encoding="utf-8")
    except OSError as error:
        reason = "it is a file" if path.is_file() else error.strerror
        raise RunError(f"{path} cannot be a work directory: {reason}") from error

    def check() -> None:
        with contextlib.suppress(OSError):
            if os.fstat(lock.fileno()).st_nlink and (path / LOCK).exists():
                return
        raise RunError(f"{path} was removed during the run, with what the run had written")

    with lock:
        _take(path, lock)
        try:
            _check_renames(path)
            yield check
            check()
        except Exception:
            check()  # what else failed is a consequence
            raise
        finally:
            with contextlib.suppress(OSError):
                if made and os.listdir(path) == [LOCK]:
                    (path / LOCK).unlink()
                    for folder in made:
                        folder.rmdir()


def _take(path: Path, lock: TextIO) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            lock.seek(0)
            holder = f"another run ({lock.read()})"
            raise RunError(f"{path} is in use by {holder}: wait for its end or take another") from None
        print(f"  {path} lies on a file system without locks, so a second run in it would not be noticed")
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}")
    lock.flush()


def _check_renames(path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=path, ignore_cleanup_errors=True) as probe:
        try:
            os.makedirs(f"{probe}/partial/folder/folder")
            os.rename(f"{probe}/partial", f"{probe}/whole")
        except OSError as error:
            raise RunError(
                f"{path} lies on a file system that cannot rename folders ({error.strerror}), by which a checkpoint appears whole: "
                "take another disk, or a bucket with a hierarchical namespace (launch/pods/README.md)"
            ) from error
