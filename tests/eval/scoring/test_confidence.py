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
    """Answers that are right with the probability that a logistic function says."""
    rng = np.random.default_rng(seed)
    likelihoods = -rng.exponential(2.0, count)
    return likelihoods, rng.random(count) < 1 / (1 + np.exp(-(slope * likelihoods + offset)))


def test_the_fit_finds_what_the_answers_were_drawn_with():
    fit = fit_confidence(*drawn(0.8, 2.0, 20_000))
    assert list(map(len, fit)) == [20, 20]
    for likelihood in (-0.1, -0.3, -1.0, -3.0, -6.0):
        assert confidence(likelihood, fit) == pytest.approx(1 / (1 + np.exp(-0.8 * likelihood - 2)), abs=0.03)


def test_a_fit_by_hand():
    """Three groups of ten, of which the less likely two are in the wrong order: 4 and 2 of 10 right, so both as 6 of 20."""
    likelihoods = [-9.0] * 10 + [-4.0] * 10 + [-1.0] * 10
    rights = [True] * 4 + [False] * 6 + [True] * 2 + [False] * 8 + [True] * 9 + [False]
    middle, sure = fit_confidence(likelihoods, rights)
    more = 15.5 / 31  # the share of all
    assert middle == [-9, -4, -1] and sure == pytest.approx([(3 + more) / 11, (3 + more) / 11, (9 + more) / 11])
    assert confidence(-2.5, (middle, sure)) == pytest.approx((6 + more) / 11)
    assert confidence(-50.0, (middle, sure)) == sure[0] and confidence(0.0, (middle, sure)) == sure[2]


def test_confidences_of_other_answers_are_right_as_often_as_they_say():
    fit = fit_confidence(*drawn(0.8, 2.0, 2000))
    likelihoods, rights = drawn(0.8, 2.0, 2000, seed=1)
    found = reliability([confidence(x, fit) for x in likelihoods], rights)
    assert found["error"] < 4
    coverage = list(found["coverage"].values())
    assert coverage == sorted(coverage, reverse=True) and coverage[0] > coverage[-1] + 10
    assert coverage[-1] == pytest.approx(100 * rights.mean())
    wrong = reliability([confidence(x + 2, fit) for x in likelihoods], rights)
    assert wrong["error"] > 8


def test_a_few_answers_that_were_never_likely_do_not_bend_the_others():
    """Of the demo's counts a logistic function said 90 % where 98 were right."""
    likelihoods, rights = drawn(2.5, 4.5, 2000)
    likelihoods[:60], rights[:60] = np.linspace(-6, -25, 60), np.arange(60) % 2
    fit = fit_confidence(likelihoods, rights)
    others, right = drawn(2.5, 4.5, 2000, seed=1)
    sure = [confidence(x, fit) for x in others]
    assert reliability(sure, right)["error"] < 4


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
    _, sure = fit_confidence(likelihoods, rights)
    assert sure == pytest.approx([rights.mean()] * 20, abs=0.01)


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
