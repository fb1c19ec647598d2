"""What people are told: the errors that bad input causes, and how a command ends on them."""

import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class DataError(ValueError):
    """A record or file that cannot be used; the message names the file and the record id."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message names the file and the tensors."""


class ConfigError(ValueError):
    """A configuration that contradicts itself or asks for something this model does not have."""


class RunError(ValueError):
    """A run that cannot start or go on; the message says which setting or file is wrong."""


class _Pipe(io.FileIO):
    """A pipe whose reader may go away, as `head` does: what is written then is lost, and the command goes on."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def _let_readers_go() -> None:
    """Puts a `_Pipe` behind stdout and stderr where they are pipes; what is closed, as by `>&-`, takes all and keeps nothing."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")
        setattr(sys, name, stream)
        with suppress(AttributeError, OSError, ValueError):  # where there is no file behind it
            behind = getattr(stream.buffer, "raw", stream.buffer)
            if stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode) and not isinstance(behind, _Pipe):
                stream.flush()
                raw = _Pipe(stream.fileno(), "w", closefd=False)
                how = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
                buffer = raw if stream.write_through else io.BufferedWriter(raw)
                setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, stream.errors, **how))


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does, so that what is half written is removed on the way out."""


def _terminated(number: int, frame: object) -> None:
    raise _Terminated


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Has SIGTERM raise `_Terminated`, unless something handles it already or this is a thread, which can change no handler."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def told(interrupted: str = "interrupted; nothing was written") -> Iterator[None]:
    """Ends a command with one sentence and status 1 where its input is bad or the disk refuses; also a decorator of its `main`.

    interrupted: the sentence for Ctrl-C, which says what is kept; SIGTERM ends with it too, and status 143. A reader that closes the
    pipe ends nothing. What the terminal's encoding lacks is printed as "?".
    """
    _let_readers_go()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    try:
        with _terminated_as_interrupted():
            yield
            sys.stdout.flush()
    except (OSError, ValueError, ImportError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        file = f"{name}: " if (name := getattr(error, "filename", None)) else ""
        raise SystemExit(f"error: {' '.join(f'{file}{reason}'.splitlines())}") from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("RESOURCE_EXHAUSTED"):  # a device's
            raise
        raise SystemExit(f"error: there is too little memory ({str(error).partition(chr(10))[0]})") from None
    except _Terminated:
        print(interrupted, file=sys.stderr, flush=True)
        raise SystemExit(128 + signal.SIGTERM) from None
    except KeyboardInterrupt:
        raise SystemExit(interrupted) from None
