"""Questions that come one by one: what is read of a picture is kept for its next question, and slots run on while others are filled.

The numbers are those of `engine`, which knows all questions beforehand. Everything has one of a few static shapes, so that nothing is
compiled while someone waits, and nothing here knows of threads: one thread at a time uses an engine.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smolrgpt_jax.data.chat import CLOSING, ChatTokenizer
from smolrgpt_jax.data.images import scale_depth, scale_rgb
from smolrgpt_jax.data.inputs import feature_index
from smolrgpt_jax.data.masks import RLE, resample_rle
from smolrgpt_jax.data.records import Question
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.generation import decode, slots
from smolrgpt_jax.generation.constraint import Constraint, Kind, make_constraint
from smolrgpt_jax.generation.decode import Slots, Weights
from smolrgpt_jax.generation.engine import AskedModel
from smolrgpt_jax.generation.sampling import GREEDY, Sampling
from smolrgpt_jax.models.mask_pooling import mask_pooling
from smolrgpt_jax.models.smollm import KVCache, unstacked_blocks

SHORTEST = 64  # questions are padded to this, twice this and so on
ENOUGH = 32  # steps of few slots before the others are given up


class Prefix(NamedTuple):
    """What is kept of a picture: all that its questions need."""

    read: KVCache  # of its P tokens, float[L, 1, P, G, D]
    maps: tuple[jax.Array, ...]  # refined RGB and depth, float[1, g * g, D] each; none of a picture without depth

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in jax.tree.leaves(self))


@dataclass(frozen=True)
class Asked:
    """A question, of which nothing is left to be checked."""

    ids: np.ndarray  # int32[N], behind the picture's prefix
    regions: tuple[RLE, ...]
    budget: int  # most tokens of the answer's text
    kind: Kind | None = None  # of the value that closes the text, see `constraint`
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    key: np.ndarray | tuple[int, int] = (0, 0)  # uint32[2], of its random numbers


@jax.jit
def read_picture(weights: Weights, tokens: jax.Array, image: jax.Array, depth: jax.Array | None) -> Prefix:
    """tokens: int32[P], a picture's prefix; image, depth: float32[H, W, 3]."""
    model, config = weights.model, weights.config
    masks = None if depth is None else jnp.zeros((1, 1, 1, config.mask_grid, config.mask_grid))
    out = model.encode(image[None, None], None if depth is None else depth[None, None], masks)
    places = jnp.arange(len(tokens))[None]
    image_places = places - (len(tokens) - config.image_tokens)  # which come last
    ids = {"picture_ids": jnp.ones_like(places), "question_ids": jnp.zeros_like(places)}
    batch = {"tokens": tokens[None], "positions": places, "feature_index": jnp.maximum(image_places, -1), **ids}
    _, read = decode.prefill(weights, batch, out["image_tokens"])
    return Prefix(read, () if depth is None else (out["rgb_refined"], out["depth_refined"]))


@jax.jit
def read_question(
    weights: Weights, prefix: Prefix, tokens: jax.Array, index: jax.Array, masks: jax.Array | None
) -> KVCache:
    """tokens: int32[S], behind the picture's; index: int32[S], which of the regions' features, RGB before depth, takes a token's
    place, else -1; masks: float32[R, g, g]. Returns keys and values of picture and question, float[L, 1, P + S, G, D]."""
    return _read_behind(weights, prefix, tokens, index, masks, jnp.arange(len(tokens)))[1]


def _read_behind(
    weights: Weights, prefix: Prefix, tokens: jax.Array, index: jax.Array, masks: jax.Array | None, places: jax.Array
) -> tuple[jax.Array, KVCache]:
    """As `read_question`, with hidden float[1, S, D] after the final norm; places: int32[S], of the tokens behind the picture's."""
    model, length, before = weights.model, len(tokens), prefix.read[0].shape[2]
    x = model.decoder.embed(tokens[None])
    if masks is not None:
        features = jnp.concatenate([mask_pooling(found, masks[None]) for found in prefix.maps], axis=1)
        x = model.embed(tokens[None], index[None], features)
    mask = jnp.tril(jnp.ones((1, length, before + length), bool), before)
    blocks = unstacked_blocks(weights.config.decoder, weights.layers)
    return model.decoder.extend(blocks, x, before + places[None], mask, prefix.read)


@jax.jit
def answer_likelihood(
    weights: Weights,
    prefix: Prefix,
    tokens: jax.Array,
    index: jax.Array,
    masks: jax.Array | None,
    said: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """The natural logarithm of the probability of an answer, float32[]; arguments as in `read_question`.

    tokens: of question and answer; said: where the answer begins and where its end is over, int32[] each.
    """
    begin, end = said
    # Behind the end are no further places, since rotary frequencies may depend on the last one.
    hidden, _ = _read_behind(weights, prefix, tokens, index, masks, jnp.minimum(jnp.arange(len(tokens)), end - 1))
    logits = weights.model.decoder.logits(hidden[0])
    following = jnp.roll(tokens, -1)
    likely = jnp.take_along_axis(logits, following[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
    before = jnp.arange(len(tokens))
    return jnp.sum(jnp.where((before >= begin - 1) & (before < end - 1), likely, 0.0))


@functools.partial(jax.jit, static_argnames="eos_id", donate_argnames="taken")
def run(
    steps: jax.Array | int,
    weights: Weights,
    taken: Slots,
    constraint: Constraint | None,
    sampling: Sampling | None,
    *,
    eos_id: int,
) -> Slots:
    """Takes so many steps, fewer where a slot ends; sampling: of each slot, None where all are greedy."""
    ended = jnp.sum(taken.ended)

    def going(state: tuple[jax.Array, Slots]) -> jax.Array:
        return (state[0] < steps) & (jnp.sum(state[1].ended) == ended)

    def once(state: tuple[jax.Array, Slots]) -> tuple[jax.Array, Slots]:
        how = GREEDY if sampling is None else sampling
        return state[0] + 1, decode.step(weights, state[1], constraint, eos_id=eos_id, sampling=how)

    return jax.lax.while_loop(going, once, (jnp.int32(0), taken))[1]


@functools.partial(jax.jit, donate_argnames="into")
def grown(into: Slots, taken: Slots) -> Slots:
    """More slots, the first ones of which are those that there were."""
    return jax.tree.map(lambda more, few: more.at[: len(few)].set(few) if few.ndim else few, into, taken)


class OnlineEngine:
    """Slots for questions; each that is taken has its `Asked`, a free one None.

    While only the first quarter of them is taken, no other is computed: a step of all takes about as many times as long.
    """

    def __init__(
        self, model: AskedModel, count: int = 16, *, question_tokens: int = 256, answer_tokens: int, regions: int = 32
    ):
        """count: of slots; question_tokens, answer_tokens, regions: most of a question. Raises ValueError without a tokenizer."""
        if model.tokenizer is None:
            raise ValueError("the checkpoint brings no tokenizer, answers cannot be read")
        self.tokenizer: ChatTokenizer = model.tokenizer
        self.config, self.most_regions, self.answer_tokens = model.config, regions, answer_tokens
        self.prefix = self.tokenizer.prefix(model.config.image_tokens)
        self.question_tokens = min(question_tokens, model.config.decoder.max_positions - self.prefix.size)
        doubled = itertools.takewhile(lambda n: n < self.question_tokens, (SHORTEST << n for n in itertools.count()))
        self.lengths = [*doubled, self.question_tokens]
        self.weights = decode.decode_weights(model.config, model.compute, model.params)
        kinds: list[Kind] = [("left_right", 0), ("distance", 0), *(("count", n + 1) for n in range(regions + 1))]
        vocabulary = model.config.decoder.padded_vocab_size
        self._constraint, self._starts = make_constraint(self.tokenizer, kinds, vocabulary)
        self._closing = int(self._constraint.longest)
        self.asked: list[Asked | None] = [None] * count
        self._few = max(1, count // 4)
        self.empty()

    def empty(self) -> None:
        """Frees all slots, also after a failed step, which has used them up."""
        self.asked = [None] * len(self.asked)
        self._slots = self._empty(self._few)
        self._steps_of_few = 0  # taken since more than the first slots were

    def _empty(self, count: int) -> Slots:
        longest = self.prefix.size + self.question_tokens
        return slots.empty_slots(self.weights, count, longest, self.answer_tokens + self._closing)

    def question_ids(self, question: Question) -> np.ndarray:
        """The tokens of a question; raises DataError where it has too many, or too many regions."""
        turns = self.tokenizer.format.turns(question, with_answer=False)
        characters = sum(map(len, turns))
        # Of megabytes not even the tokens are counted, which would take seconds.
        if characters > self.question_tokens * self.tokenizer.longest_token:
            told = f"the question has {characters:,} characters, more than fit in the {self.question_tokens} tokens"
            raise DataError(f"{told} that are read at most")
        ((ids, _),) = self.tokenizer.conversations([turns])
        if ids.size > self.question_tokens:
            raise DataError(f"the question takes {ids.size} tokens, at most {self.question_tokens} are read")
        if len(question.regions) > self.most_regions:
            raise DataError(f"the question has {len(question.regions)} regions, at most {self.most_regions} are read")
        return ids

    def read_picture(self, image: np.ndarray, depth: np.ndarray | None) -> Prefix:
        """image: uint8[H, W, 3], depth: uint8[H, W], of the encoder's size, see `data.images`."""
        depths = None if depth is None else scale_depth(depth)
        return read_picture(self.weights, self.prefix, scale_rgb(image), depths)

    def admit(self, slot: int, prefix: Prefix, asked: Asked) -> None:
        """Gives a free slot to a question about a picture, with depth where the question has regions."""
        length = next(length for length in self.lengths if asked.ids.size <= length)
        ids, index, masks = self._behind(asked.ids, asked.regions, length)
        if slot >= len(self._slots.ended):
            self._slots = grown(self._empty(len(self.asked)), self._slots)
        read = read_question(self.weights, prefix, ids, index, masks)
        budget, state = asked.budget, self._starts[asked.kind]
        budget += self._closing if asked.kind else 0
        place = slots.Asked(slot, 0, self.prefix.size, asked.ids.size, budget, np.asarray(asked.key, np.uint32), state)
        tokens = jnp.asarray(np.concatenate([self.prefix, ids])[None])
        arrays = slots.Asked(*(np.asarray(value)[None] for value in place))
        longest = self.prefix.size + self.question_tokens
        self._slots = slots.admit(self._slots, read, tokens, arrays, prefix=self.prefix.size, longest=longest)
        self.asked[slot] = asked

    def _behind(
        self, ids: np.ndarray, regions: Sequence[RLE], length: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """What `read_question` takes of tokens with so many places: the tokens, their features and the masks."""
        ids, masks = np.pad(ids, (0, length - ids.size), constant_values=self.tokenizer.pad_id), None
        index = np.full(length, -1, np.int32)
        if regions:
            rgb = np.arange(len(regions), dtype=np.int32)
            kinds = (self.tokenizer.mask_rgb_id, self.tokenizer.mask_depth_id)
            index = feature_index(ids, (self.tokenizer.image_id, *kinds), (None, rgb, rgb + self.most_regions))
            grid = self.config.mask_grid
            masks = np.zeros((self.most_regions, grid, grid), np.float32)
            masks[: len(rgb)] = [resample_rle(region, grid) for region in regions]
        return ids, index, masks

    def log_likelihood(self, prefix: Prefix, question: Question, text: str) -> float:
        """The natural logarithm of the probability of a text as the answer, as `likelihood.log_likelihoods` has it."""
        asked = self.question_ids(question)
        answered = replace(question, answer=text, normalized_answer=None)
        ((ids, _),) = self.tokenizer.conversations([self.tokenizer.format.turns(answered)])
        length = SHORTEST
        while length < ids.size:
            length *= 2
        regions = [region for region in question.regions if isinstance(region, RLE)]
        tokens, index, masks = self._behind(asked, regions, length)
        tokens[asked.size : ids.size] = ids[asked.size :]
        said = np.int32(asked.size), np.int32(ids.size)
        return float(answer_likelihood(self.weights, prefix, tokens, index, masks, said))

    def step(self, steps: int) -> dict[int, tuple[np.ndarray, bool]]:
        """Takes so many steps, fewer where an answer ends: of every taken slot the ids so far and whether they have ended, which
        frees it."""
        taken = [asked for asked in self.asked if asked is not None]
        self._steps_of_few = 0 if any(self.asked[self._few :]) else self._steps_of_few + steps
        # Not at once, as slots are copied where there is to be room for more again.
        if self._steps_of_few > ENOUGH and len(self._slots.ended) > self._few:
            self._slots = slots.keep(self._slots, np.arange(self._few, dtype=np.int32))
        constraint = self._constraint if any(asked.kind for asked in taken) else None
        sampling = None
        if any(asked.temperature for asked in taken):
            how = [
                (asked.temperature, asked.top_p) if asked else (0.0, 1.0)
                for asked in self.asked[: len(self._slots.ended)]
            ]
            temperature, top_p = np.array(how, np.float32).T
            sampling = Sampling(jnp.asarray(temperature), 0, jnp.asarray(top_p))
        eos_id = self.tokenizer.eos_id
        self._slots = run(np.int32(steps), self.weights, self._slots, constraint, sampling, eos_id=eos_id)
        ended, count, written = jax.device_get((self._slots.ended, self._slots.cache.steps, self._slots.written))
        found = {}
        for slot, asked in enumerate(self.asked):
            if asked is not None:
                found[slot] = (written[slot, : count[slot]].copy(), bool(ended[slot]))
                if ended[slot]:
                    self.asked[slot] = None
        return found

    def cancel(self, slot: int) -> None:
        """Frees a slot whose answer nobody waits for any more."""
        self.asked[slot] = None
        self._slots = self._slots._replace(ended=self._slots.ended.at[slot].set(True))

    def is_cut(self, asked: Asked, ids: np.ndarray) -> bool:
        """Whether the text of an answer did not end within its tokens; a text that is closed is then closed by force."""
        mark = self.tokenizer.tokens(CLOSING)
        forced = asked.kind is not None and ids[asked.budget :][: len(mark)].tolist() == mark
        return forced or self.tokenizer.eos_id not in ids

    def warm_up(self, likelihoods: bool = False) -> None:
        """Compiles what greedy answers need; likelihoods: and what `log_likelihood` does."""
        size, region = self.config.vision.image_size, RLE.of_runs(1, 1, np.array([0, 1]))
        image = np.zeros((size, size, 3), np.uint8)
        prefixes = [(self.read_picture(image, None), ()), (self.read_picture(image, image[..., 0]), (region,))]
        last = len(self.asked) - 1
        for slot in dict.fromkeys((0, last)):  # of few and of all
            for length, (prefix, regions) in itertools.product(self.lengths, prefixes):
                self.admit(slot, prefix, Asked(np.full(length, self.tokenizer.pad_id, np.int32), regions, 1))
            for kind in (None, ("left_right", 0)):
                self.admit(slot, prefix, Asked(np.full(4, self.tokenizer.pad_id, np.int32), regions, 1, kind))
                self.step(1)
            self.cancel(slot)
        self.step(ENOUGH + 1)
        longest = self.question_tokens + self.answer_tokens if likelihoods else 0
        for length in itertools.takewhile(lambda n: n < 2 * longest, (SHORTEST << n for n in itertools.count())):
            for prefix, regions in prefixes:
                ids = np.full(length, self.tokenizer.pad_id, np.int32)
                given = self._behind(ids, regions, length)
                answer_likelihood(self.weights, prefix, *given, (np.int32(1), np.int32(2)))
