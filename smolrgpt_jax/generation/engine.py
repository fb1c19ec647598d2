"""The host's side of the engine: which questions are prefilled, and which take the slots that become free."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from smolrgpt_jax import sharding
from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.data.pictures import FileLoader
from smolrgpt_jax.data.prompts import PromptBatch, Prompts, prompt_batches
from smolrgpt_jax.data.records import BadRecords, Question
from smolrgpt_jax.generation import slots as device
from smolrgpt_jax.generation.constraint import Automaton, Kind
from smolrgpt_jax.generation.decode import GREEDY, Sampling
from smolrgpt_jax.models.smolrgpt import Params

REFILL = 8  # free slots are given away as soon as one in so many is free
SMALLEST = 4  # slots, below which they are not reduced any more


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How answers are decoded.

    Attributes:
      batch_size: most questions decoded together (a multiple of it where the devices need more).
      max_new_tokens: most tokens of an answer's text.
      eos_id: the token that ends an answer.
      sampling, seed: how tokens are chosen.
      depth_mode: see `images.read_depth`.
      budget: most tokens of one question's answer, where it is not `max_new_tokens`.
    """

    batch_size: int
    max_new_tokens: int
    eos_id: int
    sampling: Sampling = GREEDY
    seed: int = 0
    depth_mode: str = "training"
    budget: Callable[[Question], int] | None = None


@dataclasses.dataclass(frozen=True)
class Closing:
    """How answers are closed: the automaton, the kind of a question's values, and whether the text is left out."""

    automaton: Automaton
    kind: Callable[[Question], Kind | None]
    alone: bool = False

    @property
    def tables(self) -> device.Tables:
        a = self.automaton
        return device.Tables(jnp.asarray(a.classes), jnp.asarray(a.transitions), jnp.asarray(a.mark))


def question_key(seed: int, question_id: str) -> np.ndarray:
    """Key data of a question's random numbers, uint32[2]: the same in every batch, order and run."""
    digest = hashlib.blake2b(f"{seed}:{question_id}".encode(), digest_size=8).digest()
    return np.frombuffer(digest, "<u4")


def params_mesh(params: Params) -> Mesh | None:
    """The mesh that the parameters lie on; raises ValueError for one that other processes have a part in."""
    place = next(iter(params.values())).sharding
    if not isinstance(place, NamedSharding):
        return None
    if not place.is_fully_addressable:
        raise ValueError(
            "every process answers by itself: load the model with a mesh of its own devices (jax.local_devices())"
        )
    return place.mesh


def answer_prompts(
    config: SmolRGPTConfig,
    params: Params,
    prompts: Prompts,
    decoding: Decoding,
    *,
    closing: Closing | None = None,
    load: FileLoader | None = None,
    on_bad_record: BadRecords | None = None,
    compute: Compute = Compute(),
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the ids of answers {question id: int32[N]}, eos included, as soon as they have ended; each question once.

    Raises DataError for a picture that cannot be read, unless `on_bad_record` lets it pass.
    """
    if not prompts.rows:
        return
    mesh = params_mesh(params)
    ways = 1 if mesh is None else sharding.batch_ways(mesh)
    batches = prompt_batches(
        prompts,
        load or FileLoader(prompts.shape, decoding.depth_mode, cached_pictures=2),
        multiple=ways,
        on_bad_record=on_bad_record,
    )
    scheduler = _Scheduler(config, compute, params, mesh, ways, prompts, decoding, closing)
    yield from scheduler.run(_ahead(batches))


def _ahead(batches: Iterable[PromptBatch]) -> Iterator[PromptBatch]:
    """The same batches, each made in a thread while the one before is used."""
    iterator = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, iterator, None)
            yield batch


class _Waiting:
    """A prefilled batch whose questions wait for slots."""

    def __init__(self, batch: PromptBatch, prefilled: jax.Array, tokens: jax.Array):
        self.prefilled, self.tokens = prefilled, tokens
        self.asked, self.capacity = list(batch.asked), batch.questions


class _Scheduler:
    def __init__(
        self,
        config: SmolRGPTConfig,
        compute: Compute,
        params: Params,
        mesh: Mesh | None,
        ways: int,
        prompts: Prompts,
        decoding: Decoding,
        closing: Closing | None,
    ):
        self.config, self.compute, self.params, self.mesh, self.ways = config, compute, params, mesh, ways
        self.prompts, self.decoding, self.closing = prompts, decoding, closing
        self.weights = device.decode_weights(compute, params)
        self.tables = None if closing is None else closing.tables
        questions = sum(len(row.lengths) for row in prompts.rows)
        count = min(decoding.batch_size, 2 ** (questions - 1).bit_length())
        self.count = -(-count // ways) * ways
        answer = decoding.max_new_tokens + (0 if closing is None else closing.automaton.longest)
        self.slots = device.empty_slots(config, compute, mesh, self.count, prompts.longest, answer)
        self.questions: list[Question | None] = [None] * self.count

    def run(self, batches: Iterator[PromptBatch]) -> Iterator[dict[str, np.ndarray]]:
        waiting: _Waiting | None = None
        while True:
            while None in self.questions and (waiting := self._next(waiting, batches)) is not None:
                self._admit(waiting)
            busy = self.count - self.questions.count(None)
            if not busy:
                return
            if waiting is not None:
                until = max(1, self.count // REFILL)
            else:
                self._shrink(busy)
                half = self.count // 2
                until = self.count - half if self._divides(half) else self.count
            yield self._decode(max(until, self.count - busy + 1))

    def _next(self, waiting: _Waiting | None, batches: Iterator[PromptBatch]) -> _Waiting | None:
        """The batch with questions that wait, the next one if need be; None if there is none."""
        while waiting is None or not waiting.asked:
            batch = next(batches, None)
            if batch is None:
                return None
            if batch.asked:
                arrays = self._put(batch.arrays)
                prefilled = device.prefill(self.config, self.compute, self.mesh, self.params, arrays)
                waiting = _Waiting(batch, prefilled, arrays["tokens"])
        return waiting

    def _put(self, arrays: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        return jax.device_put(dict(arrays)) if self.mesh is None else sharding.put_batch(arrays, self.mesh)

    def _admit(self, waiting: _Waiting) -> None:
        free = [slot for slot, question in enumerate(self.questions) if question is None]
        taken, waiting.asked = waiting.asked[: len(free)], waiting.asked[len(free) :]
        asked = device.Asked(*(np.zeros(waiting.capacity, np.int32) for _ in device.Asked._fields))
        asked = asked._replace(
            slot=np.full(waiting.capacity, self.count, np.int32), keys=np.zeros((waiting.capacity, 2), np.uint32)
        )
        decoding, closing = self.decoding, self.closing
        for place, (slot, (picture, number, row, begin, length)) in enumerate(zip(free, taken)):
            question = self.prompts.pictures[picture].questions[number]
            self.questions[slot] = question
            asked.slot[place], asked.row[place] = slot, row
            asked.begin[place], asked.length[place] = begin, length
            asked.budget[place] = decoding.max_new_tokens if decoding.budget is None else decoding.budget(question)
            asked.keys[place] = question_key(decoding.seed, question.id)
            if closing is not None:
                kind = closing.kind(question)
                asked.state[place] = closing.automaton.start(kind, closing.alone)
                asked.value_state[place] = 0 if kind is None else closing.automaton.values[kind]
        self.slots = device.admit(
            self.mesh,
            self.slots,
            waiting.prefilled,
            waiting.tokens,
            asked,
            prefix=self.prompts.prefix,
            longest=self.prompts.longest,
        )

    def _decode(self, until: int) -> dict[str, np.ndarray]:
        """Runs until so many slots have ended; returns the answers that have."""
        self.slots = device.decode(
            self.config,
            self.compute,
            self.mesh,
            self.weights,
            self.slots,
            self.tables,
            np.int32(until),
            eos_id=self.decoding.eos_id,
            sampling=self.decoding.sampling,
        )
        ended, steps, written = jax.device_get((self.slots.ended, self.slots.steps, self.slots.written))
        answers = {}
        for slot, question in enumerate(self.questions):
            if question is not None and ended[slot]:
                answers[question.id] = written[slot, : steps[slot]].copy()
                self.questions[slot] = None
        return answers

    def _divides(self, count: int) -> bool:
        """Whether the slots may be reduced to so many."""
        return count >= SMALLEST and count % self.ways == 0

    def _shrink(self, busy: int) -> None:
        """Gives up half of the slots as long as the busy ones find place in the other half."""
        count = self.count
        while count // 2 >= busy and self._divides(count // 2):
            count //= 2
        if count < self.count:
            order = sorted(range(self.count), key=lambda slot: self.questions[slot] is None)[:count]
            self.slots = device.keep(self.mesh, self.slots, np.array(order, np.int32))
            self.questions = [self.questions[slot] for slot in order]
            self.count = count
