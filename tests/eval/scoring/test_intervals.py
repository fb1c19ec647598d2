from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy import stats

from eval.scoring.intervals import bootstrap, category_intervals, mcnemar


def test_a_resampled_count_is_binomial():
    # Of 40 observations 10 are one: a resample's sum is binomial with 40 draws and 1/4.
    values = np.repeat([1.0, 0.0], [10, 30])[:, None]
    samples = bootstrap(range(40), values, resamples=20000, seed=3)[:, 0]
    exact = stats.binom(40, 0.25)
    for number in range(4, 18):
        assert np.mean(samples <= number) == pytest.approx(exact.cdf(number), abs=0.012)
    assert np.percentile(samples, [2.5, 97.5]).tolist() == [exact.ppf(0.025), exact.ppf(0.975)]


def test_questions_of_a_picture_that_agree_count_as_one_observation():
    # Each of 25 pictures has eight questions, all right or all wrong: the interval is that of 25.
    right = np.repeat(np.arange(25) < 10, 8)
    pictures = np.repeat(np.arange(25), 8)
    low, high = category_intervals(pictures, ["mcq"] * 200, right, ("mcq",))["mcq"]
    exact = stats.binom(25, 0.4)
    assert low == pytest.approx(4 * exact.ppf(0.025), abs=4) and high == pytest.approx(4 * exact.ppf(0.975), abs=4)
    alone = category_intervals(range(200), ["mcq"] * 200, right, ("mcq",))["mcq"]
    assert high - low > 2 * (alone[1] - alone[0])


def test_the_mean_over_categories_weighs_them_equally():
    # Ten sure left_right questions and two pictures' count questions, right in one of them.
    clusters = [*range(10), "a", "b"]
    categories = ["left_right"] * 10 + ["count"] * 2
    right = [True] * 11 + [False]
    found = category_intervals(clusters, categories, right, ("left_right", "count", "mcq"))
    assert found["left_right"] == [100, 100] and found["count"] == [0, 100] and found["mcq"] is None
    assert found["mean"] == [50, 100]


def test_the_seed_decides_and_the_chunks_do_not(monkeypatch):
    values = np.random.default_rng(0).normal(size=(30, 2))
    whole = bootstrap(range(30), values, resamples=50, seed=1)
    assert not np.array_equal(whole, bootstrap(range(30), values, resamples=50, seed=2))
    monkeypatch.setattr("eval.scoring.intervals._CELLS", 30 * 7)
    np.testing.assert_allclose(bootstrap(range(30), values, resamples=50, seed=1), whole)


def test_categories_that_a_resample_lacks_are_left_out():
    # Of two pictures either may be missing; where "count" is drawn it is right, and the mean is then of both or of it alone.
    found = category_intervals("ab", ["left_right", "count"], [False, True], ("left_right", "count", "mcq"))
    assert found == {"left_right": [0, 0], "count": [100, 100], "mcq": None, "mean": [0, 100]}


@pytest.mark.parametrize("only_first, only_second", [(0, 0), (1, 0), (0, 5), (3, 3), (2, 9), (7, 4)])
def test_mcnemar_is_the_share_of_coin_tosses_at_least_as_lopsided(only_first, only_second):
    tosses = list(product((0, 1), repeat=only_first + only_second))
    lopsided = abs(only_first - only_second)
    extreme = sum(abs(2 * sum(toss) - len(toss)) >= lopsided for toss in tosses)
    assert mcnemar(only_first, only_second) == pytest.approx(float(Fraction(extreme, len(tosses))))
