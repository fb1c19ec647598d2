"""The host's side of the engine: which questions are prefilled, and which take the slots that become free."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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
      sampling: how tokens are chosen.
      seed: of tokens that are drawn.
      closing: whether a normalised value is decoded after the free text where the model has not written it by itself
        ("after_text"), or in its place ("alone"). It is left or right; the number of one of the question's regions (mcq); a
        number up to that of its regions (count); metres (distance).
      category_of: the category of a question, which says what its value is.
      on_bad_record: what to do with a question that cannot be asked.
      progress: whether a bar is shown.
      stop: asked from time to time; once it is true, what was not answered yet is left out.
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
    stop: Callable[[], bool] = bool

    def kind(self, question: Question) -> Kind | None:
        """What the question's answer is closed with, None for nothing."""
        return None if self.closing is None else kind_of(self.category_of(question), question)


class AskedModel(Protocol):
    """What answers questions, such as a `smolrgpt_jax.model.Model`."""

    @property
    def config(self) -> SmolRGPTConfig: ...
    @property
    def compute(self) -> Compute: ...
    @property
    def params(self) -> Params: ...
    @property
    def tokenizer(self) -> ChatTokenizer | None: ...


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


def params_mesh(params: Params) -> Mesh | None:
    """The mesh that parameters lie on, None of a single device; raises ValueError where it is of several processes."""
    place: Any = next(iter(params.values())).sharding
    if not isinstance(place, NamedSharding) or not isinstance(place.mesh, Mesh):
        return None
    if not place.is_fully_addressable:
        own = "load the model with a mesh of its own devices (jax.local_devices())"
        raise ValueError(f"every process answers by itself: {own}")
    return place.mesh


def _ahead(batches: Iterator[PromptBatch]) -> Iterator[PromptBatch]:
    """The same batches, each made in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


class _Engine:
    """A prefilled batch whose questions wait (`asked`) for slots, and the questions that have one."""

    def __init__(self, model: AskedModel, prompts: Prompts, options: AnswerOptions, lengths: Mapping[str, int]):
        self.prompts, self.options, self.lengths = prompts, options, lengths
        self.mesh = params_mesh(model.params)
        self.ways = 1 if self.mesh is None else sharding.batch_ways(self.mesh)
        self.weights = decode.decode_weights(model.config, model.compute, model.params)
        self.constraint, self.longest_closing = None, 0
        if options.closing is not None:
            kinds = {options.kind(question) for row in prompts.rows for question in prompts.asked(row)}
            vocabulary, alone = model.config.decoder.padded_vocab_size, options.closing == "alone"
            self.constraint, self.starts = make_constraint(prompts.tokenizer, kinds, vocabulary, alone)
            self.longest_closing = int(self.constraint.longest)
        questions = sum(len(row.questions) for row in prompts.rows)
        count = min(options.batch_size, 2 ** (questions - 1).bit_length())
        self.questions: list[Question | None] = [None] * (-(-count // self.ways) * self.ways)
        answer_tokens = options.max_new_tokens + self.longest_closing
        with sharding.over(self.mesh):
            self.slots = slots.empty_slots(self.weights, len(self.questions), prompts.longest, answer_tokens)
        load = FileLoader(prompts.shape, options.depth_mode, cached_pictures=2)
        self.batches = _ahead(prompt_batches(prompts, load, multiple=self.ways, on_bad_record=options.on_bad_record))
        self.batch: PromptBatch | None = None
        self.asked: list[tuple[Question, int, int, int]] = []

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
            self._admit()
        count, free = len(self.questions), self.questions.count(None)
        if free == count:
            return None
        if self.batch is not None:
            until = max(1, count // REFILL)
        else:
            self._shrink(count - free)
            count, free = len(self.questions), self.questions.count(None)
            until = count - count // 2 if self._divides(count // 2) else count
        return self._decode(max(until, free + 1))

    def _wait(self) -> bool:
        """Prefills the next batch if no question waits; whether one does."""
        while not self.asked and (batch := next(self.batches, None)) is not None:
            if batch.asked:
                put = jax.device_put if self.mesh is None else functools.partial(sharding.put_batch, mesh=self.mesh)
                self.batch, self.asked, self.arrays = batch, list(batch.asked), put(batch.arrays)
                self.prefilled = slots.prefill(self.weights, self.arrays)
        if not self.asked:
            self.batch = None
        return self.batch is not None

    def _admit(self) -> None:
        assert self.batch is not None
        free = [slot for slot, question in enumerate(self.questions) if question is None]
        taken, self.asked = self.asked[: len(free)], self.asked[len(free) :]
        asked = [slots.Asked(len(self.questions), 0, 0, 0, 0, np.zeros(2, np.uint32), 0)] * self.batch.questions
        for place, (slot, (question, row, begin, length)) in enumerate(zip(free, taken)):
            self.questions[slot] = question
            budget, state = self.lengths.get(question.id, self.options.max_new_tokens), 0
            if (kind := self.options.kind(question)) is not None:
                budget, state = budget + self.longest_closing, self.starts[kind]
            key = question_key(self.options.seed, question.id)
            asked[place] = slots.Asked(slot, row, begin, length, budget, key, state)
        batch = (self.prefilled, self.arrays["tokens"], slots.Asked(*map(np.array, zip(*asked))))
        self.slots = slots.admit(self.slots, *batch, prefix=self.prompts.prefix, longest=self.prompts.longest)

    def _decode(self, until: int) -> dict[str, np.ndarray]:
        """Runs until so many slots have ended; returns the answers that have."""
        how = {"eos_id": self.prompts.tokenizer.eos_id, "sampling": self.options.sampling}
        self.slots = decode.decode_until(np.int32(until), self.weights, self.slots, self.constraint, **how)
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
        count = len(self.questions)
        while count // 2 >= busy and self._divides(count // 2):
            count //= 2
        if count < len(self.questions):
            order = sorted(range(len(self.questions)), key=lambda slot: self.questions[slot] is None)[:count]
            self.slots = slots.keep(self.slots, np.array(order, np.int32))
            self.questions = [self.questions[slot] for slot in order]
