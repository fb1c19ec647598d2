"""Which token may come next: free text, then the closing, then a value of the question's kind.

An automaton over classes of tokens. Every token that stands in some closing has a class of its own, all others share one:

    free text, k tokens of "\\nAnswer:" written   any token; the end of the text becomes the closing's first token
    closing, k tokens of it written              only the closing's next token
    value                                        tokens of the question's values, then the end

A model that was trained to close its answers walks from the free text to the value by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.closing import CLOSING, DECIMALS, closing_value
from smolrgpt_jax.data.records import Question

MOST_METRES_DIGITS = 3  # before the decimal point

# A category and, for whole numbers, how many of them: 0 .. count - 1.
Kind = tuple[str, int]


def kind_of(category: str, question: Question) -> Kind | None:
    """What the values of a question are, None where it has none."""
    regions = len(question.regions)
    whole = {"mcq": regions, "count": regions + 1}
    if category in whole:
        return (category, whole[category]) if whole[category] else None
    return (category, 0) if category in ("left_right", "distance") else None


@dataclasses.dataclass(frozen=True)
class Automaton:
    """The states of all rows of a run.

    Attributes:
      classes: int32[V], the class of every token.
      transitions: int32[states, classes], the next state; -1: not allowed; the number of states: the row's own value state.
      mark: the closing's tokens before the value; state k < len(mark) is free text after k of them, state len(mark) + k the
        closing after k of them.
      plain: the state of rows without closing; it allows everything and is never left.
      values: the first value state of every kind.
      longest: most tokens of a closing, its end included.
    """

    classes: np.ndarray
    transitions: np.ndarray
    mark: tuple[int, ...]
    plain: int
    values: dict[Kind, int]
    longest: int

    def start(self, kind: Kind | None, alone: bool) -> int:
        """The state before the first token; `alone` leaves out the free text."""
        return self.plain if kind is None else len(self.mark) if alone else 0


class _Builder:
    """Value states as a growing table of {token: state}."""

    def __init__(self, first: int):
        self.first = first
        self.states: list[dict[int, int]] = []

    def new(self) -> int:
        self.states.append({})
        return self.first + len(self.states) - 1

    def step(self, state: int, token: int, target: int | None = None) -> int:
        """The state after a token, made if it is missing; `target` joins an existing one."""
        following = self.states[state - self.first]
        if token not in following:
            following[token] = self.new() if target is None else target
        return following[token]

    def word(self, start: int, tokens: Iterable[int], eos: int) -> None:
        for token in tokens:
            start = self.step(start, token)
        self.step(start, eos, start)


def make_automaton(tokenizer: ChatTokenizer, kinds: Iterable[Kind], vocabulary: int) -> Automaton:
    """The automaton for questions of these kinds; `vocabulary`: tokens the model's logits have, padding included.

    Raises ValueError for a tokenizer that does not write every digit as a token of its own.
    """
    mark = tokenizer.tokens(CLOSING)
    build = _Builder(2 * len(mark) + 1)
    values: dict[Kind, int] = {}
    longest = 0
    for kind in sorted(set(kinds)):
        category, count = kind
        values[kind] = start = build.new()
        if category == "distance":
            longest = max(longest, _metres(build, start, tokenizer))
            continue
        for value in ("left", "right") if category == "left_right" else range(count):
            word = _value_tokens(tokenizer, category, value)
            build.word(start, word, tokenizer.eos_id)
            longest = max(longest, len(word))
    known = sorted({token for state in build.states for token in state} | {*mark, tokenizer.eos_id})
    classes = np.full(vocabulary, len(known), np.int32)
    classes[known] = np.arange(len(known))
    plain, states = 2 * len(mark), 2 * len(mark) + 1 + len(build.states)
    table = np.full((states, len(known) + 1), -1, np.int32)
    table[plain] = plain
    for written in range(len(mark)):
        for place, token in enumerate([*known, -1]):
            table[written, place] = _written_after([*mark[:written], token], mark)
        following = len(mark) + written + 1 if written + 1 < len(mark) else states
        table[len(mark) + written, classes[mark[written]]] = following
    # The free text after the whole mark is the value.
    table[: len(mark)][table[: len(mark)] == len(mark)] = states
    for number, following in enumerate(build.states):
        for token, target in following.items():
            table[build.first + number, classes[token]] = target
    return Automaton(classes, table, tuple(mark), plain, values, len(mark) + longest + 1)


def _written_after(tokens: Sequence[int], mark: Sequence[int]) -> int:
    """Tokens of the mark that these end with."""
    return next(n for n in range(len(tokens), -1, -1) if list(tokens[len(tokens) - n :]) == list(mark[:n]))


def _value_tokens(tokenizer: ChatTokenizer, category: str, value: str | float) -> list[int]:
    """A value's tokens as they stand after the closing's mark in a training answer."""
    mark, whole = tokenizer.tokens(CLOSING), tokenizer.tokens(CLOSING + closing_value(category, value))
    if whole[: len(mark)] != mark:
        raise ValueError(f"the tokenizer joins {CLOSING!r} with the value after it")
    return whole[len(mark) :]


def _metres(build: _Builder, start: int, tokenizer: ChatTokenizer) -> int:
    """Adds metres (no leading zero, the closing's decimals) behind a state; returns the tokens of the longest."""
    sample = _value_tokens(tokenizer, "distance", 1234567890.12)
    digits = {}
    for place, character in enumerate("1234567890", start=len(sample) - 10 - 1 - DECIMALS):
        digits[character] = sample[place]
    space, point = sample[: len(sample) - 10 - 1 - DECIMALS], sample[-1 - DECIMALS]
    for value in (0.0, 4.9, 73.25, 608.11):
        spelled = [digits.get(c, point) for c in closing_value("distance", value).strip()]
        if _value_tokens(tokenizer, "distance", value) != [*space, *spelled] or len(digits) != 10:
            raise ValueError("the tokenizer does not write every digit as a token of its own")
    for token in space:
        start = build.step(start, token)
    decimals = [build.new() for _ in range(DECIMALS + 1)]
    for state, following in zip(decimals, decimals[1:]):
        for token in digits.values():
            build.step(state, token, following)
    build.step(decimals[-1], tokenizer.eos_id, decimals[-1])
    whole = [build.new() for _ in range(MOST_METRES_DIGITS)]
    zero = build.new()
    for character, token in digits.items():
        build.step(start, token, zero if character == "0" else whole[0])
        for state, following in zip(whole, whole[1:]):
            build.step(state, token, following)
    for state in (zero, *whole):
        build.step(state, point, decimals[0])
    return len(space) + MOST_METRES_DIGITS + 1 + DECIMALS
