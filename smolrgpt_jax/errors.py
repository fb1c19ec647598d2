"""What people are told: the errors that bad input causes, and how a command ends on them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class DataError(ValueError):
    """A record or file that cannot be used; the message names the file and the record id."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message names the file and the tensors."""


class ConfigError(ValueError):
    """A configuration that contradicts itself or asks for something this model does not have."""


class RunError(ValueError):
    """A run that cannot start or go on; the message says which setting or file is wrong."""


@contextmanager
def told(interrupted: str = "interrupted; nothing was written") -> Iterator[None]:
    """Ends a command with one sentence and status 1 where its input is bad or the disk refuses; also a decorator of its `main`.

    interrupted: the sentence for Ctrl-C, which says what is kept. A reader that closes the pipe ends the command quietly.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at its end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise SystemExit(f"error: {error.filename}: {reason}" if error.filename else f"error: {reason}") from None
    except (ValueError, ImportError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(interrupted) from None
