"""A step that hangs tells where."""

import contextlib
import faulthandler
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

FACTOR = 10  # times the usual step
LEAST = 5.0  # seconds, below which no step is slow
KNOWN, FIRST = 5, 3600.0  # the first steps compile, and have an hour


class Watchdog:
    """Prints where all threads of this process are, once, when a step takes ten times as long as usual.

    A thread of its own prints: the main one waits, for data or for another process.
    """

    def __init__(self, process: str, least: float = LEAST):
        """process: what this one is called."""
        self._process, self._least = process, least
        self._seconds: deque[float] = deque(maxlen=101)

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """To be around one step."""
        begun, seconds = time.monotonic(), FIRST
        if len(self._seconds) >= KNOWN:
            seconds = max(FACTOR * statistics.median(self._seconds), self._least)
        timer = threading.Timer(seconds, self._tell, (number, seconds))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        self._seconds.append(time.monotonic() - begun)

    def _tell(self, number: int, seconds: float) -> None:
        slow = f"step {number} takes more than {seconds:.1f} s, far longer than usual; its threads are here:"
        print(f"\n{self._process}: {slow}", file=sys.__stderr__, flush=True)
        faulthandler.dump_traceback(sys.__stderr__ or 2)
