"""Which token may come next where answers are closed: free text, then the closing, then a value of the question's kind.

Every kind has an automaton that matches all of its closings at once: the tokens of "\\nAnswer:", of a value and of the end. A model
that was trained to close its answers walks from the free text to the value by itself; where it ends the text instead, or the text
has used up its tokens, the closing's first token is written and the others have to follow.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smolrgpt_jax.data.chat import CLOSING, DECIMALS, ChatTokenizer, closing_value
from smolrgpt_jax.data.records import Question

# A category and, for whole numbers, how many of them: 0 .. count - 1.
Kind = tuple[str, int]
# What may stand at each place of a value or closing.
Word = list[set[int]]


class Constraint(NamedTuple):
    """The decode step's hook: what may follow a state (`allowed`), what is then written and the state after it (`write`)."""

    classes: jax.Array  # int32[V], of the tokens; those that stand in no closing share one
    transitions: jax.Array  # int32[states, classes], the next state, -1: not allowed
    forced: jax.Array  # int32[states], of free text the state after the closing's first token, else -1
    first: jax.Array  # int32[], the closing's first token
    eos: jax.Array  # int32[]
    longest: jax.Array  # int32[], tokens of the longest closing, its end included

    def allowed(self, state: jax.Array) -> jax.Array:
        """bool[B, V] of states int32[B]."""
        return jnp.take_along_axis(self.transitions[state], self.classes[None], axis=1) >= 0

    def write(self, state: jax.Array, token: jax.Array, left: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What is written for a chosen token, and the state after it; left: int32[B], tokens that the answer may still take."""
        forced = self.forced[state]
        close = (forced >= 0) & ((token == self.eos) | (left <= self.longest))
        token = jnp.where(close, self.first, token)
        return token, jnp.where(close, forced, self.transitions[state, self.classes[token]])


class _State(NamedTuple):
    kind: Kind | None
    free: bool  # whether this is free text
    places: frozenset[tuple[int, int]]  # (closing, tokens of it that are written), of all that it may become


def kind_of(category: str, question: Question) -> Kind | None:
    """What the values of a question are, None where it has none."""
    regions = len(question.regions)
    whole = {"mcq": regions, "count": regions + 1}
    if category in whole:
        return (category, whole[category]) if whole[category] else None
    return (category, 0) if category in ("left_right", "distance") else None


def make_constraint(
    tokenizer: ChatTokenizer, kinds: Iterable[Kind | None], vocabulary: int, alone: bool = False
) -> tuple[Constraint, dict[Kind | None, int]]:
    """The constraint for questions of these kinds, and the state that the answers of each begin with.

    None is the kind of an answer that is not closed. alone: the values take the place of the free text. vocabulary: tokens that
    the logits have, padding included. Raises ValueError for a tokenizer that does not write every digit as a token of its own.
    """
    mark, eos = tokenizer.tokens(CLOSING), tokenizer.eos_id
    closings: dict[Kind | None, list[Word]] = {None: []}
    for kind in sorted({kind for kind in kinds if kind is not None}):
        # Nothing follows the end.
        closings[kind] = [[*({token} for token in mark), *value, {eos}, set()] for value in _values(tokenizer, *kind)]
    words = [word for of_kind in closings.values() for word in of_kind]
    tokens = sorted({eos, *mark}.union(*(place for word in words for place in word)))
    states: list[_State] = []
    numbers: dict[_State | None, int] = {None: -1}

    def number(state: _State | None) -> int:
        if state is not None and state not in numbers:
            numbers[state] = len(states)
            states.append(state)
        return numbers[state]

    def begin(kind: Kind | None, free: bool) -> _State:
        return _State(kind, free, frozenset((word, 0) for word in range(len(closings[kind]))))

    def after(state: _State, token: int | None) -> _State | None:
        kind, free, places = state
        at = {(word, place + 1) for word, place in places if token in closings[kind][word][place]}
        value = {(word, place) for word, place in at if place >= len(mark)}
        if free and not value:
            return _State(kind, True, begin(kind, True).places | at)
        return _State(kind, False, frozenset(value if free else at)) if at else None

    starts = {kind: number(begin(kind, free=not (alone and closings[kind]))) for kind in closings}
    transitions, forced = [], []
    for state in states:  # which grow
        transitions.append([number(after(state, token)) for token in [*tokens, None]])
        forced.append(number(after(begin(state.kind, False), mark[0])) if state.free else -1)
    classes = np.full(vocabulary, len(tokens), np.int32)
    classes[tokens] = np.arange(len(tokens))
    longest = max((len(word) - 1 for word in words), default=0)
    arrays = (classes, transitions, forced, mark[0], eos, longest)
    return Constraint(*(jnp.asarray(array, jnp.int32) for array in arrays)), starts


def _values(tokenizer: ChatTokenizer, category: str, count: int) -> list[Word]:
    """What may be written after the closing's mark: metres have no leading zero and the closing's decimals."""
    mark = tokenizer.tokens(CLOSING)

    def tokens(value: str | float) -> list[int]:
        whole = tokenizer.tokens(CLOSING + closing_value(category, value))
        if whole[: len(mark)] != mark:
            raise ValueError(f"the tokenizer joins {CLOSING!r} with the value after it")
        return whole[len(mark) :]

    if category != "distance":
        values = ("left", "right") if category == "left_right" else range(count)
        return [[{token} for token in tokens(value)] for value in values]
    metres = []
    for digits, example in enumerate((4.9, 73.25, 608.11), start=1):
        alike = [float(f"{str(d) * digits}.{str(d) * DECIMALS}") for d in range(digits > 1, 10)]
        word = [set(place) for place in zip(*map(tokens, [10.0 ** (digits - 1), *alike]))]
        spelled = tokens(example)
        if len(spelled) != len(word) or not all(token in place for token, place in zip(spelled, word)):
            raise ValueError("the tokenizer does not write every digit as a token of its own")
        metres.append(word)
    return metres
