"""Somebody who does not look at the pictures scores badly."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from eval.scoring.blind import template
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.warehouse.make_scene import make_questions
from smolrgpt_jax.warehouse.parameters import MIXES, WarehouseConfig
from smolrgpt_jax.warehouse.write import choose, interleaved

EQUAL = dict.fromkeys(WAREHOUSE_CATEGORIES, 0.25)


@pytest.fixture(scope="module")
def chosen(samples):
    return choose([sample.questions for sample in samples], EQUAL, round(6.4 * len(samples)))


def answers(chosen, category):
    return [q.normalized_answer for questions in chosen for q in questions if q.category == category]


def test_interleaved_lets_classes_take_turns():
    assert interleaved(["a1", "a2", "a3", "b1", "c1", "b2"], "AAABCB") == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_shares_and_number(samples, chosen):
    assert len({len(answers(chosen, category)) for category in WAREHOUSE_CATEGORIES}) == 1
    assert sum(map(len, chosen)) == pytest.approx(6.4 * len(samples), abs=4)
    # Hardly a picture goes without questions, and none hoards them.
    assert max(map(len, chosen)) <= 12 and sum(not questions for questions in chosen) < 0.02 * len(samples)
    uneven = choose([sample.questions for sample in samples], {"left_right": 0.1, "distance": 0.9}, 400)
    kinds = Counter(question.category for questions in uneven for question in questions)
    assert kinds == {"left_right": 40, "distance": 360}


def test_a_hundred_questions_of_each_category_from_a_hundred_pictures(samples):
    picked = choose([sample.questions for sample in samples[:100]], EQUAL, 640)
    kinds = Counter(question.category for questions in picked for question in questions)
    assert min(kinds[category] for category in WAREHOUSE_CATEGORIES) >= 100


def test_the_published_mix(samples):
    # 69,336, 73,803, 110,055 and 245,889 of 499,083 questions of the published training split.
    published = dict(zip(("left_right", "count", "mcq", "distance"), (0.1389, 0.1479, 0.2205, 0.4927)))
    shares = dict(zip(WAREHOUSE_CATEGORIES, MIXES["published"]))
    assert sum(shares.values()) == pytest.approx(1)
    config = WarehouseConfig(mix="published", width=96, height=54, seed=3)
    questions = []
    for index, sample in enumerate(samples[:120]):
        rng = np.random.default_rng(index)
        questions.append(make_questions(config, "train", sample.scene, sample.regions, rng))
    picked = choose(questions, shares, round(6.4 * 120))
    kinds = Counter(question.category for questions in picked for question in questions)
    assert sum(kinds.values()) == pytest.approx(6.4 * 120, abs=4)
    for category, share in published.items():
        assert kinds[category] / sum(kinds.values()) == pytest.approx(share, abs=0.01), category


def test_sides_are_even_in_every_wording(chosen):
    wordings = defaultdict(Counter)
    for questions in chosen:
        for q in questions:
            if q.category == "left_right":
                wordings[template(q.prompt)][q.normalized_answer] += 1
    assert abs(Counter(answers(chosen, "left_right"))["left"] - len(answers(chosen, "left_right")) / 2) <= 1
    for wording, found in wordings.items():
        total = sum(found.values())
        assert abs(found["left"] - total / 2) <= 2 * math.sqrt(total), wording  # four standard errors


def test_counts_are_even_and_hardly_depend_on_the_number_of_masks(chosen):
    counts = Counter(answers(chosen, "count"))
    total = sum(counts.values())
    assert max(counts[k] for k in (1, 2, 3, 4)) - min(counts[k] for k in (1, 2, 3, 4)) < 0.06 * total
    assert 0 < counts[0] < 0.1 * total and set(counts) <= {0, 1, 2, 3, 4}
    by_length = defaultdict(Counter)
    for questions in chosen:
        for q in questions:
            if q.category == "count":
                by_length[len(q.regions)][q.normalized_answer] += 1
    assert sum(max(found.values()) for found in by_length.values()) < 0.36 * total


def test_mcq_indices_are_even_among_the_choices(chosen):
    shares = []
    for questions in chosen:
        for q in questions:
            if q.category == "mcq":
                answer = q.regions[int(q.normalized_answer)]
                rivals = [region for region in q.regions if region.kind == answer.kind]
                shares.append((rivals.index(answer) + 0.5) / len(rivals))
    # Of a uniform place: mean 1/2, standard deviation below 0.29.
    assert np.mean(shares) == pytest.approx(0.5, abs=4 * 0.29 / math.sqrt(len(shares)))
    found = Counter(answers(chosen, "mcq"))
    assert max(found.values()) < 0.27 * len(shares)


def test_distances_spread_as_published(chosen):
    metres = np.array(answers(chosen, "distance"))
    # Published quartiles: 3.5, 5.5 and 8.1 m, mean 5.7, largest 18.4.
    np.testing.assert_allclose(np.quantile(metres, (0.25, 0.5, 0.75)), (3.5, 5.5, 8.1), atol=0.8)
    assert 12 < metres.max() < 22
    constants = np.arange(0.5, 18, 0.05)
    # Of 4,800 questions no constant gets more than 15.3 % within a tenth; two standard errors for this smaller sample.
    error = math.sqrt(0.153 * 0.847 / len(metres))
    assert max(np.mean(np.abs(metres - c) <= 0.1 * metres) for c in constants) < 0.153 + 2 * error
    assert 0.005 < np.mean(metres == 0) < 0.06


def test_about_a_tenth_of_the_distances_to_buffers_is_zero(chosen):
    to_buffers = [
        q.normalized_answer
        for questions in chosen
        for q in questions
        if q.category == "distance" and any(region.kind == "buffer" for region in q.regions)
    ]
    assert len(to_buffers) > 100
    assert 0.04 < np.mean(np.array(to_buffers) == 0) < 0.18
