"""The host's side of the engine: which questions are prefilled, and which take the slots that become free."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from smolrgpt_jax import sharding
from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.data.chat import ANSWER_TOKENS, ChatTokenizer
from smolrgpt_jax.data.prompts import PromptBatch, Prompts, prompt_batches
from smolrgpt_jax.data.records import BadRecords, Question
from smolrgpt_jax.data.rows import FileLoader
from smolrgpt_jax.generation import decode, slots
from smolrgpt_jax.generation.constraint import Kind, kind_of, make_constraint
from smolrgpt_jax.generation.sampling import GREEDY, Sampling
from smolrgpt_jax.models.smolrgpt import Params

REFILL = 8  # free slots are given away as soon as one in so many is free
SMALLEST = 4  # slots, below which they are not reduced any more


@dataclass(frozen=True)
class AnswerOptions:
    """How questions are asked.

    Attributes:
      batch_size: most questions decoded together (a multiple of it where the devices need more).
      max_new_tokens: most tokens of an answer's text.
      depth_mode: see `images.read_depth`.
      sampling, seed: how tokens are chosen.
      closing: whether a normalised value is decoded after the free text where the model has not written it by itself
        ("after_text"), or in its place ("alone"). It is left or right; the number of one of the question's regions (mcq); a
        number up to that of its regions (count); metres (distance).
      category_of: the category of a question, which says what its value is.
      on_bad_record: what to do with a question that cannot be asked.
      progress: whether a progress bar is shown.
    """

    batch_size: int = 64
    max_new_tokens: int = ANSWER_TOKENS
    depth_mode: str = "training"
    sampling: Sampling = GREEDY
    seed: int = 0
    closing: Literal["after_text", "alone"] | None = None
    category_of: Callable[[Question], str] = lambda question: question.category
    on_bad_record: BadRecords = BadRecords("error")
    progress: bool = True

    def kind(self, question: Question) -> Kind | None:
        """What the question's answer is closed with, None for nothing."""
        return None if self.closing is None else kind_of(self.category_of(question), question)


class AskedModel(Protocol):
    """What answers questions, such as a `smolrgpt_jax.model.Model`."""

    config: SmolRGPTConfig
    compute: Compute
    params: Params
    tokenizer: ChatTokenizer | None


def question_key(seed: int, question_id: str) -> np.ndarray:
    """Key data of a question's random numbers, uint32[2]: the same in every batch, order and run."""
    digest = hashlib.blake2b(f"{seed}:{question_id}".encode(), digest_size=8).digest()
    return np.frombuffer(digest, "<u4")


def answer_prompts(
    model: AskedModel, prompts: Prompts, options: AnswerOptions, lengths: Mapping[str, int] | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the ids of answers {question id: int32[N]}, eos included, as soon as they have ended; each question once.

    `lengths`: most tokens of answers, by question id, where they are not `options.max_new_tokens`. Raises DataError for a picture
    that cannot be read, unless `options.on_bad_record` lets it pass; ValueError for parameters on devices of several processes.
    """
    if prompts.rows:
        yield from _Engine(model, prompts, options, lengths or {}).run()


def _params_mesh(params: Params) -> Mesh | None:
    place = next(iter(params.values())).sharding
    if not isinstance(place, NamedSharding):
        return None
    if not place.is_fully_addressable:
        raise ValueError(
            "every process answers by itself: load the model with a mesh of its own devices (jax.local_devices())"
        )
    return place.mesh


def _ahead(batches: Iterable[PromptBatch]) -> Iterator[PromptBatch]:
    """The same batches, each made in a thread while the one before is used."""
    iterator = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, iterator, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, iterator, None)
            yield batch


@dataclass
class _Waiting:
    """A prefilled batch and those of its questions that wait for slots."""

    batch: PromptBatch
    prefilled: tuple[jax.Array, jax.Array]
    tokens: jax.Array
    asked: list[tuple[Question, int, int, int]]


class _Engine:
    def __init__(self, model: AskedModel, prompts: Prompts, options: AnswerOptions, lengths: Mapping[str, int]):
        self.prompts, self.options, self.lengths = prompts, options, lengths
        self.mesh = _params_mesh(model.params)
        self.ways = 1 if self.mesh is None else sharding.batch_ways(self.mesh)
        self.weights = decode.decode_weights(model.config, model.compute, model.params)
        self.constraint, self.longest_closing = None, 0
        if options.closing is not None:
            kinds = {options.kind(question) for row in prompts.rows for question in prompts.asked(row)}
            vocabulary = model.config.decoder.padded_vocab_size
            alone = options.closing == "alone"
            self.constraint, self.starts = make_constraint(prompts.tokenizer, kinds, vocabulary, alone)
            self.longest_closing = int(self.constraint.longest)
        questions = sum(len(row.questions) for row in prompts.rows)
        count = min(options.batch_size, 2 ** (questions - 1).bit_length())
        self.count = -(-count // self.ways) * self.ways
        answer_tokens = options.max_new_tokens + self.longest_closing
        with sharding.over(self.mesh):
            self.slots = slots.empty_slots(self.weights, self.count, prompts.longest, answer_tokens)
        self.questions: list[Question | None] = [None] * self.count
        load = FileLoader(prompts.shape, options.depth_mode, cached_pictures=2)
        batches = prompt_batches(prompts, load, multiple=self.ways, on_bad_record=options.on_bad_record)
        self.batches = _ahead(batches)
        self.waiting: _Waiting | None = None

    def run(self) -> Iterator[dict[str, np.ndarray]]:
        while True:
            with sharding.over(self.mesh):
                answers = self._answers()
            if answers is None:
                return
            yield answers

    def _answers(self) -> dict[str, np.ndarray] | None:
        """Fills the slots and decodes until some have ended; None once there is nothing to answer."""
        while None in self.questions and self._wait():
            self._admit(self.waiting)
        busy = self.count - self.questions.count(None)
        if not busy:
            return None
        if self.waiting is not None:
            until = max(1, self.count // REFILL)
        else:
            self._shrink(busy)
            half = self.count // 2
            until = self.count - half if self._divides(half) else self.count
        return self._decode(max(until, self.count - busy + 1))

    def _wait(self) -> bool:
        """Prefills the next batch if none has questions that wait; whether there are such questions."""
        while self.waiting is None or not self.waiting.asked:
            batch = next(self.batches, None)
            if batch is None:
                self.waiting = None
                return False
            if batch.asked:
                arrays = (
                    jax.device_put(batch.arrays) if self.mesh is None else sharding.put_batch(batch.arrays, self.mesh)
                )
                prefilled = slots.prefill(self.weights, arrays)
                self.waiting = _Waiting(batch, prefilled, arrays["tokens"], list(batch.asked))
        return True

    def _admit(self, waiting: _Waiting) -> None:
        free = [slot for slot, question in enumerate(self.questions) if question is None]
        taken, waiting.asked = waiting.asked[: len(free)], waiting.asked[len(free) :]
        asked = [slots.Asked(self.count, 0, 0, 0, 0, np.zeros(2, np.uint32), 0)] * waiting.batch.questions
        for place, (slot, (question, row, begin, length)) in enumerate(zip(free, taken)):
            self.questions[slot] = question
            budget, state = self.lengths.get(question.id, self.options.max_new_tokens), 0
            if (kind := self.options.kind(question)) is not None:
                budget, state = budget + self.longest_closing, self.starts[kind]
            key = question_key(self.options.seed, question.id)
            asked[place] = slots.Asked(slot, row, begin, length, budget, key, state)
        self.slots = slots.admit(
            self.slots,
            waiting.prefilled,
            waiting.tokens,
            slots.Asked(*map(np.array, zip(*asked))),
            prefix=self.prompts.prefix,
            longest=self.prompts.longest,
        )

    def _decode(self, until: int) -> dict[str, np.ndarray]:
        """Runs until so many slots have ended; returns the answers that have."""
        self.slots = decode.decode_until(
            np.int32(until),
            self.weights,
            self.slots,
            self.constraint,
            eos_id=self.prompts.tokenizer.eos_id,
            sampling=self.options.sampling,
        )
        ended, steps, written = jax.device_get((self.slots.ended, self.slots.cache.steps, self.slots.written))
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
            self.slots = slots.keep(self.slots, np.array(order, np.int32))
            self.questions = [self.questions[slot] for slot in order]
            self.count = count
