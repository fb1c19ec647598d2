"""Confidences say how often answers are right."""

from __future__ import annotations

import numpy as np
import pytest

from eval.scoring.confidence import (
    ALL,
    confidence,
    described,
    fit_confidence,
    in_words,
    reliabilities,
    reliability,
    table_of,
)


def drawn(slope, offset, count, seed=0):
    """Answers that are right with the probability that slope and offset say."""
    rng = np.random.default_rng(seed)
    likelihoods = -rng.exponential(2.0, count)
    return likelihoods, rng.random(count) < 1 / (1 + np.exp(-(slope * likelihoods + offset)))


def test_the_fit_finds_what_the_answers_were_drawn_with():
    assert fit_confidence(*drawn(0.8, 2.0, 20_000)) == pytest.approx((0.8, 2.0), abs=0.06)


def test_confidences_of_other_answers_are_right_as_often_as_they_say():
    fit = fit_confidence(*drawn(0.8, 2.0, 2000))
    likelihoods, rights = drawn(0.8, 2.0, 2000, seed=1)
    found = reliability([confidence(x, fit) for x in likelihoods], rights)
    assert found["error"] < 4
    coverage = list(found["coverage"].values())
    assert coverage == sorted(coverage, reverse=True) and coverage[0] > coverage[-1] + 10
    assert coverage[-1] == pytest.approx(100 * rights.mean())
    wrong = reliability([confidence(x, (fit[0], fit[1] + 2)) for x in likelihoods], rights)
    assert wrong["error"] > 10


def test_by_hand():
    """Two bins of five answers, as ten answers in ten bins are each their own."""
    found = reliability([0.9] * 10 + [0.2] * 10, [True] * 10 + [False] * 10)
    assert found["error"] == pytest.approx(15)  # 10 % too low, 20 % too high
    assert [part["questions"] for part in found["bins"]] == [2] * 10
    assert found["coverage"] == {"50%": 100.0, "80%": 62.5, "90%": pytest.approx(100 * 10 / 18), "100%": 50.0}
    assert "| all | 20 | 15.0 % | 100.0 % | 62.5 % | 55.6 % | 50.0 % |" in table_of({"all": found})


@pytest.mark.parametrize("rights", [[True] * 5, [False] * 5])
def test_answers_that_are_all_right_or_all_wrong_are_never_quite_sure(rights):
    fit = fit_confidence([-1.0, -2.0, -3.0, -0.1, -50.0], rights)
    sure = [confidence(x, fit) for x in (-0.1, -50.0, -np.inf)]
    assert all(0 < value < 1 for value in sure)
    assert all((value > 0.5) == rights[0] for value in sure)


def test_no_answer_is_surer_for_being_less_likely():
    likelihoods, rights = drawn(-0.8, 2.0, 2000)
    slope, offset = fit_confidence(likelihoods, rights)
    assert slope == 0
    assert confidence(-1.0, (slope, offset)) == pytest.approx(rights.mean(), abs=0.01)


@pytest.mark.parametrize(("value", "word"), [(0.95, "sure"), (0.9, "sure"), (0.7, "fairly sure"), (0.1, "guessing")])
def test_words(value, word):
    assert in_words(value) == word


@pytest.mark.parametrize(("value", "text"), [(0.934, "0.93, sure"), (0.8999, "0.90, sure"), (0.5, "0.50, unsure")])
def test_number_and_word(value, text):
    assert described(value) == text


def test_what_has_no_confidence_comes_last_and_is_wrong():
    def item(category, value, right):
        return {"category": category, "normalized_answer": 1 if right else None, "truth": 1, "confidence": value}

    items = [item("count", 0.8, True), item("mcq", None, False), item("count", 0.6, True), item("mcq", 1.0, True)]
    found = reliabilities(items)
    assert list(found) == ["count", "mcq", ALL]
    assert found["count"]["error"] == pytest.approx(30) and found["mcq"]["error"] == 0
    assert found[ALL]["coverage"] == {"50%": 100, "80%": 100, "90%": 75, "100%": 75}
