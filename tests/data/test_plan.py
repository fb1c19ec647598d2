from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.plan import ROW_STEP, choose_row_tokens, plan_rows
from smolrgpt_jax.data.records import BadRecords, Picture, Question
from smolrgpt_jax.data.rows import TokenisedQuestions
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse
from tests.data.row_cases import picture, question, shape

TOKENIZER = ChatTokenizer.load(Path(__file__).parents[1] / "data_files" / "text" / "tokenizer")

QUESTIONS = st.lists(st.tuples(st.lists(st.integers(0, 29), max_size=6), st.integers(1, 100)), max_size=8)


@settings(deadline=None, max_examples=200)
@example([[([0], 1), ([1], 1)]], 2, 1, 46)  # the two parts of a picture that fit one row by their tokens
@given(st.lists(QUESTIONS, max_size=12), st.integers(1, 4), st.integers(1, 5), st.integers(40, 130))
def test_plan_holds_every_usable_question_once_within_the_limits(data, places, regions, tokens):
    limits = shape(tokens=tokens, pictures=places, regions=regions)
    pictures = [
        picture(f"p{i}", *(question(f"{i}-{j}", r, words) for j, (r, words) in enumerate(asked)))
        for i, asked in enumerate(data)
    ]
    questions = TokenisedQuestions(pictures, TOKENIZER)
    prefix = TOKENIZER.prefix(4).size
    bad = BadRecords("report")
    plan = plan_rows(pictures, questions, limits, bad)
    expected = {
        (i, j)
        for i, asked in enumerate(data)
        for j, (r, _) in enumerate(asked)
        if len(set(r)) <= regions and prefix + questions[i, j][0].size <= tokens
    }
    found = [(part.picture, j) for row in plan.rows for part in row for j in part.questions]
    assert len(found) == len(set(found)) and set(found) == expected
    assert len(bad.reasons) == sum(map(len, data)) - len(expected)
    used = 0
    for row in plan.rows:
        assert 1 <= len(row) <= places
        size = sum(prefix + sum(questions[part.picture, j][0].size for j in part.questions) for part in row)
        assert size <= tokens
        used += size
        for part in row:
            slots = {region for j in part.questions for region in pictures[part.picture].questions[j].regions}
            assert part.questions and len(slots) <= regions
    answers = [sum(int(questions[p.picture, j][1].sum()) for p in row for j in p.questions) for row in plan.rows]
    assert plan.answers == max(answers, default=0)
    if plan.rows:
        assert plan.fill == pytest.approx(used / tokens / len(plan.rows))
        assert plan.questions_per_row == pytest.approx(len(found) / len(plan.rows))
    assert plan_rows(pictures, questions, limits, BadRecords("report")) == plan


def test_long_pictures_are_continued_and_short_ones_share_rows(tokenizer):
    pictures = [
        picture("a", *(question(f"a{i}", [i], words=20) for i in range(4))),
        picture("b", question("b0", [0])),
        picture("c", question("c0", [0])),
    ]
    plan = plan_rows(pictures, TokenisedQuestions(pictures, tokenizer), shape(regions=2))
    assert [[(part.picture, part.questions) for part in row] for row in plan.rows] == [
        [(0, (0, 1))],
        [(0, (2, 3))],
        [(1, (0,)), (2, (0,))],
    ]
    assert plan.pictures_per_row == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    "bad, message",
    [
        (picture("a", question("bad", [0], words=200)), "more than the 96 of a row"),
        (picture("a", question("bad", [0, 1, 2, 3])), "4 regions, more than the 3"),
        (picture("a", question("bad", [0], answer=None)), "no answer to train on"),
        (picture("a", question("bad", [0], answer="a <mask_rgb>")), "2 mask tokens for 1 regions"),
        (picture("a", Question("bad", "c", "an <|image|>", "ok", None)), "image token"),
        (Picture("a", Path("a.png"), None, (question("bad", [0]),)), "no depth"),
    ],
)
def test_questions_that_fit_no_row_stop_or_are_reported(tokenizer, bad, message):
    questions = TokenisedQuestions([bad], tokenizer)
    with pytest.raises(DataError, match=message) as caught:
        plan_rows([bad], questions, shape())
    assert "'bad'" in str(caught.value) and "a.png" in str(caught.value)
    collected = BadRecords("report")
    assert plan_rows([bad], questions, shape(), collected).rows == ()
    assert collected.reasons == [str(caught.value)]


def test_the_emptiest_rows_are_dissolved_into_the_gaps_of_others(tokenizer):
    # Three pictures of which each fills a row to two thirds; the questions of one go to the two others.
    pictures = [picture(name, *(question(f"{name}{i}", [], words=10) for i in range(4))) for name in "abc"]
    questions = TokenisedQuestions(pictures, tokenizer)
    prefix, size = tokenizer.prefix(4).size, questions[0, 0][0].size
    plan = plan_rows(pictures, questions, shape(tokens=2 * prefix + 6 * size))
    assert [[(part.picture, len(part.questions)) for part in row] for row in plan.rows] == [
        [(1, 4), (0, 2)],
        [(2, 4), (0, 2)],
    ]
    assert plan.fill == 1.0 and plan.questions_per_row == 6
    # One picture fewer per row leaves no place for them.
    assert len(plan_rows(pictures, questions, shape(tokens=2 * prefix + 6 * size, pictures=1)).rows) == 3


@pytest.fixture(scope="module")
def published_ratio(tmp_path_factory):
    """Scenes with the published number of questions per picture and mixture of categories."""
    root = tmp_path_factory.mktemp("procedural") / "data"
    config = WarehouseConfig(scenes=60, val_scenes=0, test_scenes=0, width=96, height=54, mix="published")
    make_warehouse(root, config, workers=1)
    pictures = read_warehouse(root, "train")
    assert sum(len(p.questions) for p in pictures) / len(pictures) == pytest.approx(6.4, abs=0.1)
    return pictures


def test_the_default_rows_are_nine_tenths_full_on_procedural_data(published_ratio):
    from configs import default

    data = default.get_config().data
    limits = shape(tokens=data.row_tokens, pictures=data.row_pictures, regions=data.row_regions, image_tokens=64)
    plan = plan_rows(published_ratio, TokenisedQuestions(published_ratio, TOKENIZER), limits)
    assert plan.fill >= 0.90


def test_the_row_length_can_be_left_to_the_data(published_ratio):
    questions = TokenisedQuestions(published_ratio, TOKENIZER)
    limits = shape(tokens=0, regions=18, image_tokens=64)
    data = [(published_ratio, questions)]
    chosen = choose_row_tokens(data, limits, 2048)

    def fill(tokens):
        return plan_rows(published_ratio, questions, dataclasses.replace(limits, tokens=tokens)).fill

    assert chosen % ROW_STEP == 0
    fills = {tokens: fill(tokens) for tokens in range(ROW_STEP * 2, 2049, ROW_STEP)}
    assert fills[chosen] > max(fills.values()) - 0.01 and fills[chosen] > 0.9
    assert all(value <= max(fills.values()) - 0.01 for tokens, value in fills.items() if tokens < chosen)
    longest = TOKENIZER.prefix(64).size + questions.longest()
    with pytest.raises(DataError, match=f"takes {longest} tokens"):
        choose_row_tokens(data, limits, ROW_STEP)
