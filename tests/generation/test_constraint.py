"""The automaton accepts exactly the values of a question's kind, as training writes them, whatever the model prefers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from smolrgpt_jax.data.chat import CLOSING, ChatTokenizer, closing_value
from smolrgpt_jax.data.records import Question
from smolrgpt_jax.generation.answers import GeneratedAnswer, generate_answers
from smolrgpt_jax.generation.constraint import Kind, kind_of, make_constraint
from smolrgpt_jax.generation.engine import AnswerOptions
from tests.generation.conftest import TOKENIZER, answer_ids, teacher_forced

DEMO_TOKENIZER = Path(__file__).parents[2] / "configs" / "demo_tokenizer"
KINDS = {("left_right", 0), ("mcq", 12), ("count", 4), ("distance", 0)}


@pytest.fixture(scope="module", params=[TOKENIZER, DEMO_TOKENIZER], ids=["text", "demo"])
def tokenizer(request) -> ChatTokenizer:
    return ChatTokenizer.load(request.param)


class Automaton:
    """A constraint on the host."""

    def __init__(self, tokenizer: ChatTokenizer, kinds: set[Kind], vocabulary: int, alone: bool = False):
        constraint, self.starts = make_constraint(tokenizer, kinds, vocabulary, alone)
        self.classes, self.transitions, self.forced = map(np.asarray, constraint[:3])
        self.longest, self.mark = int(constraint.longest), tokenizer.tokens(CLOSING)

    def walk(self, state: int, tokens: list[int]) -> int:
        for token in tokens:
            state = int(self.transitions[state, self.classes[token]])
            assert state >= 0
        return state

    def value(self, kind: Kind) -> int:
        """The state before a kind's value."""
        return self.walk(self.starts[kind], self.mark)

    def accepted(self, state: int, eos: int, so_far: tuple[int, ...] = ()):
        """All sequences of tokens from a state to the end."""
        assert len(so_far) + len(self.mark) < self.longest
        for kind in np.flatnonzero(self.transitions[state] >= 0):
            tokens = np.flatnonzero(self.classes == kind)
            assert len(tokens) == 1, "a value's token shares its class"
            token = int(tokens[0])
            if token == eos:
                yield so_far
            else:
                yield from self.accepted(int(self.transitions[state, kind]), eos, (*so_far, token))


@pytest.fixture(scope="module")
def automaton(tokenizer) -> Automaton:
    return Automaton(tokenizer, KINDS, tokenizer.vocab_size + 100)


EXPECTED = {
    ("left_right", 0): ["left", "right"],
    ("mcq", 12): range(12),
    ("count", 4): range(4),
    ("distance", 0): [cents / 100 for cents in range(100_000)],
}


@pytest.mark.parametrize("kind", sorted(KINDS), ids=lambda kind: kind[0])
def test_the_values_are_those_of_the_kind_and_no_others(tokenizer, automaton, kind):
    found = set(automaton.accepted(automaton.value(kind), tokenizer.eos_id))
    mark = tokenizer.tokens(CLOSING)
    values = EXPECTED[kind]
    assert len(found) == len(values)
    # All of them for short lists; of the metres every 97th, each tokenised as a whole training answer.
    for value in values if len(values) < 100 else values[::97]:
        text = tokenizer.tokens("Here." + CLOSING + closing_value(kind[0], value))
        start = tokenizer.tokens("Here.") + mark
        assert text[: len(start)] == start
        assert tuple(text[len(start) :]) in found


def test_kinds_of_questions():
    def question(regions):
        return Question("1", "", "Where?", None, None, tuple(range(regions)))

    assert kind_of("mcq", question(3)) == ("mcq", 3) and kind_of("mcq", question(0)) is None
    assert kind_of("count", question(3)) == ("count", 4) and kind_of("count", question(0)) == ("count", 1)
    assert kind_of("left_right", question(2)) == ("left_right", 0)
    assert kind_of("caption", question(2)) is None


@pytest.mark.parametrize("kind", sorted(KINDS), ids=lambda kind: kind[0])
def test_a_text_that_closes_itself_reaches_the_value(tokenizer, automaton, kind):
    start, value = automaton.starts[kind], automaton.value(kind)
    assert automaton.walk(start, tokenizer.tokens("It is.\nAnswer:")) == value
    # A false start, directly before the mark, too.
    assert automaton.walk(start, tokenizer.tokens("\nAns\nAnswer:")) == value
    assert automaton.walk(start, [*automaton.mark[:-1], *automaton.mark]) == value
    assert automaton.walk(start, tokenizer.tokens("The answer: left")) == start


def test_answers_that_are_not_closed_are_free(automaton):
    plain = automaton.starts[None]
    assert automaton.forced[plain] == -1
    assert automaton.walk(plain, [*automaton.mark, 5]) == plain and (automaton.transitions[plain] == plain).all()


def check_closing(automaton: Automaton, state: int, kind: Kind, rest: list[int]) -> None:
    """Nothing but the rest of the mark may follow, then the value."""
    for token in rest:
        assert automaton.forced[state] == -1
        assert np.flatnonzero(automaton.transitions[state] >= 0).tolist() == [automaton.classes[token]]
        state = automaton.walk(state, [token])
    assert state == automaton.value(kind)


@pytest.mark.parametrize("kind", sorted(KINDS), ids=lambda kind: kind[0])
def test_a_closing_that_has_begun_allows_nothing_but_its_next_token(tokenizer, automaton, kind):
    start = automaton.starts[kind]
    for state in (start, automaton.walk(start, automaton.mark[:1])):
        check_closing(automaton, automaton.forced[state], kind, automaton.mark[1:])
    alone = Automaton(tokenizer, KINDS, tokenizer.vocab_size, alone=True)
    check_closing(alone, alone.starts[kind], kind, alone.mark)


def test_a_tokenizer_that_joins_digits_is_refused(tokenizer, monkeypatch):
    whole = ChatTokenizer.tokens
    monkeypatch.setattr(ChatTokenizer, "tokens", lambda self, text: whole(self, text.replace("73", "7")))
    with pytest.raises(ValueError, match="every digit"):
        make_constraint(tokenizer, KINDS, tokenizer.vocab_size)


NEW_TOKENS = 12
OPTIONS = AnswerOptions(8, NEW_TOKENS, progress=False)


def check_values(pictures, answers):
    for question in (question for picture in pictures for question in picture.questions):
        value = answers[question.id].value
        if question.category == "left_right":
            assert value in ("left", "right")
        elif question.category == "distance":
            assert isinstance(value, float) and 0 <= value < 1000 and round(value, 2) == value
        else:
            most = len(question.regions) - (question.category == "mcq")
            assert isinstance(value, int) and 0 <= value <= most


def free_answers(model, pictures, **changes) -> dict[str, GeneratedAnswer]:
    return generate_answers(model, pictures, dataclasses.replace(OPTIONS, **changes))


def closed_answers(model, pictures, mode="after_text", **changes) -> dict[str, GeneratedAnswer]:
    return free_answers(model, pictures, closing=mode, **changes)


def test_closed_answers_keep_their_text(model, pictures):
    """A random model never writes the closing by itself, so all are closed for it."""
    free, closed = free_answers(model, pictures), closed_answers(model, pictures)
    assert {name: (a.text, a.cut_off) for name, a in closed.items()} == {
        n: (a.text, a.cut_off) for n, a in free.items()
    }
    check_values(pictures, closed)


def test_texts_that_are_closed_by_force_are_cut_off(model, pictures):
    free, closed, alone = (
        {name for name, given in answers.items() if given.cut_off}
        for answers in (
            free_answers(model, pictures, max_new_tokens=3),
            closed_answers(model, pictures, max_new_tokens=3),
            closed_answers(model, pictures, "alone", max_new_tokens=3),
        )
    )
    assert 0 < len(free) < sum(len(picture.questions) for picture in pictures) and closed == free and not alone


def test_answers_that_are_nothing_but_the_closing(model, pictures):
    closed = closed_answers(model, pictures, "alone")
    assert {answer.text for answer in closed.values()} == {""}
    check_values(pictures, closed)


def test_questions_without_values_stay_open(model, pictures):
    known = {"left_right", "count"}
    answers = closed_answers(model, pictures, category_of=lambda q: q.category if q.category in known else "other")
    open_ids = {q.id for p in pictures for q in p.questions if q.category not in known}
    assert open_ids and {name for name, answer in answers.items() if answer.value is None} == open_ids
    free = free_answers(model, pictures)
    assert all(answers[name] == free[name] for name in open_ids)


def test_values_are_the_models_best_allowed_tokens(model, pictures):
    """Every token after the mark has the largest logit of those that lead to some value, by full forward passes."""
    tokenizer = model.tokenizer
    questions = {q.id: q for p in pictures for q in p.questions}

    options = dataclasses.replace(OPTIONS, closing="after_text")
    kinds = {name: options.kind(question) for name, question in questions.items()}
    automaton = Automaton(tokenizer, set(kinds.values()), model.config.decoder.padded_vocab_size)
    found = answer_ids(model, pictures, options)
    mark = tokenizer.tokens(CLOSING)
    words_of = {
        kind: [(*word, tokenizer.eos_id) for word in automaton.accepted(automaton.value(kind), tokenizer.eos_id)]
        for kind in set(kinds.values())
    }
    for name, logits in teacher_forced(model, pictures, found).items():
        ids = found[name]
        begin = next(n for n in range(len(ids)) if ids[n : n + len(mark)] == mark)
        assert begin <= NEW_TOKENS
        value, best = ids[begin + len(mark) :], logits[begin + len(mark) :]
        words = words_of[kinds[name]]
        assert tuple(value) in words
        for place in range(len(value)):
            words = [word for word in words if word[:place] == tuple(value[:place])]
            allowed = sorted({word[place] for word in words})
            assert allowed[int(best[place][allowed].argmax())] == value[place]
