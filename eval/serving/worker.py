"""The one thread that owns the model: questions wait for its slots, and what it has read of pictures is kept for a while."""

import collections
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from smolrgpt_jax.data.chat import read_closing
from smolrgpt_jax.data.records import Question
from smolrgpt_jax.generation.online import Asked, OnlineEngine, Prefix

# Of a picture and its depth: digests of their files, or of the depth what says that it is estimated.
PictureKey = tuple[bytes, bytes | None]
# Steps between two looks at what has come in, and while someone reads along.
_STEPS, _STEPS_READ_ALONG = 16, 2


class Busy(Exception):
    """So many questions wait that no more are taken."""


class Stopping(Exception):
    """The server is being stopped."""


@dataclass(eq=False)
class Job:
    """One answer to be written.

    Attributes:
      prefix: what is kept of the picture, None where it has to be read.
      image, depth: uint8[H, W, 3] and uint8[H, W] or None, of the encoder's size; not needed with a prefix.
      told: called in the worker's thread with the ids so far and whether they have ended, or with an exception. Before the end only
        where the reader reads along.
      question: where it is to be told how likely the answer is.
      likelihood: the logarithm of the answer's probability, then, once it has ended.
    """

    asked: Asked
    picture: PictureKey
    prefix: Prefix | None
    image: np.ndarray | None
    depth: np.ndarray | None
    told: Callable[[np.ndarray | Exception, bool], None]
    read_along: bool = False
    question: Question | None = None
    likelihood: float | None = None


class KeptPictures:
    """What was read of the pictures used last, up to so many bytes and for so many seconds after their last use; of all threads."""

    def __init__(self, most_bytes: int, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._most, self._seconds, self._clock = most_bytes, seconds, clock
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[PictureKey, tuple[Prefix, float]] = collections.OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: PictureKey) -> Prefix | None:
        with self._lock:
            if key not in self._kept:
                return None
            prefix, _ = self._kept.pop(key)
            self._kept[key] = prefix, self._clock()
            return prefix

    def put(self, key: PictureKey, prefix: Prefix) -> None:
        with self._lock:
            if key not in self._kept:
                self.bytes += prefix.bytes
            self._kept[key] = prefix, self._clock()
            self._kept.move_to_end(key)
        self.expire()

    def expire(self) -> None:
        """Drops what is too much or too old."""
        with self._lock:
            while self._kept:
                key, (prefix, used) = next(iter(self._kept.items()))
                if self.bytes <= self._most and self._clock() - used <= self._seconds:
                    return
                del self._kept[key]
                self.bytes -= prefix.bytes


class Worker(threading.Thread):
    """Answers jobs in the order in which they come, as many at once as the engine has slots."""

    def __init__(self, engine: OnlineEngine, pictures: KeptPictures, most_waiting: int):
        super().__init__(name="answers", daemon=True)
        self.engine, self.pictures, self._most_waiting = engine, pictures, most_waiting
        self._waiting: collections.deque[Job] = collections.deque()
        self._left: set[Job] = set()  # taken jobs whose readers have gone
        self._taken: dict[int, Job] = {}
        self._changed = threading.Condition()
        self.stopping = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def answering(self) -> int:
        return len(self._taken)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._taken

    def submit(self, jobs: Sequence[Job]) -> None:
        """Raises Busy or Stopping where they are not taken, then none of them is."""
        with self._changed:
            if self.stopping:
                raise Stopping
            if len(self._waiting) + len(jobs) > self._most_waiting + self.engine.asked.count(None):
                raise Busy
            self._waiting.extend(jobs)
            self._changed.notify()

    def leave(self, job: Job) -> None:
        """Nobody waits for the job any more; does nothing where it has ended."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
            elif job in self._taken.values():
                self._left.add(job)

    def stop(self) -> None:
        """No more jobs are taken; those that are there are answered, and the thread ends with the last of them."""
        # Without the lock: a signal's handler may have interrupted the thread that holds it.
        self.stopping = True

    def give_up(self) -> None:
        """What is not answered yet is told that the server stops."""
        with self._changed:
            given_up = [*self._waiting, *self._taken.values()]
            self._left.update(self._taken.values())
            self._waiting.clear()
        for job in given_up:
            job.told(Stopping(), True)

    def run(self) -> None:
        while True:
            with self._changed:
                if self.idle and self.stopping:
                    return
                if self.idle:
                    self._changed.wait(0.5)
            self.pictures.expire()
            try:
                self._free_left()
                self._admit()
                if self._taken:
                    self._step()
            except Exception as error:  # such as a device without memory: the next questions may fit again
                logging.exception("the model failed")
                failed, self._taken = list(self._taken.values()), {}
                self.engine.empty()
                for job in failed:
                    job.told(error, True)

    def _free_left(self) -> None:
        with self._changed:
            left = [slot for slot, job in self._taken.items() if job in self._left]
            self._left.clear()
            for slot in left:
                del self._taken[slot]
        for slot in left:
            self.engine.cancel(slot)

    def _admit(self) -> None:
        for slot in range(len(self.engine.asked)):
            if slot in self._taken:
                continue
            with self._changed:
                if not self._waiting:
                    return
                job = self._taken[slot] = self._waiting.popleft()
            prefix = job.prefix or self.pictures.get(job.picture)
            if prefix is None:
                assert job.image is not None
                prefix = self.engine.read_picture(job.image, job.depth)
                self.pictures.put(job.picture, prefix)
            self.engine.admit(slot, prefix, job.asked)
            # The answer needs them no more.
            job.image = job.depth = None
            job.prefix = prefix if job.question else None

    def _step(self) -> None:
        read_along = any(job.read_along for job in self._taken.values())
        for slot, (ids, ended) in self.engine.step(_STEPS_READ_ALONG if read_along else _STEPS).items():
            job = self._taken[slot]
            if ended and job.question and job.prefix:
                text = free_text(self.engine, job.asked, ids)
                job.likelihood, job.prefix = self.engine.log_likelihood(job.prefix, job.question, text), None
            if ended or job.read_along:
                job.told(ids, ended)
            if ended:
                with self._changed:
                    del self._taken[slot]


def free_text(engine: OnlineEngine, asked: Asked, ids: np.ndarray) -> str:
    """What the model wrote by itself: the text without a value that it was made to add."""
    text = engine.tokenizer.decode(ids)
    if asked.kind is None or engine.tokenizer.format.closing_answer:
        return text
    return read_closing(asked.kind[0], text)[0]
