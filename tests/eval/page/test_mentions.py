from __future__ import annotations

import pytest

from eval.page.mentions import renumbered, resolve
from smolrgpt_jax.errors import DataError


@pytest.mark.parametrize(
    ("question", "regions", "prompt", "numbers"),
    [
        ("Is <mask> left of [0] or [2]?", 3, "Is <mask> left of <mask> or <mask>?", (1, 0, 2)),
        ("<mask> <mask>", 2, "<mask> <mask>", (0, 1)),
        ("Is [2] left of [1]?", 4, "Is <mask> left of <mask>?", (2, 1)),
        ("[1] and [1]", 2, "<mask> and <mask>", (1, 1)),
        ("What is it [sic]?", 2, "What is it [sic]?", ()),
    ],
)
def test_the_order_of_the_question_is_that_of_the_regions(question, regions, prompt, numbers):
    assert resolve(question, regions) == (prompt, numbers)


@pytest.mark.parametrize(
    ("question", "regions", "said"),
    [
        ("Is [1] wide?", 1, "the question mentions region 1 but 1 region is marked"),
        ("Is [1] wide?", 0, "the question mentions region 1 but no regions are marked"),
        ("Is <mask> wide?", 2, "the question holds 1 <mask> but there are 2 regions"),
        ("Is <mask> left of <mask> or [0]?", 2, "the question holds 2 <mask> but there is 1 other region"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(question, regions, said):
    with pytest.raises(DataError) as error:
        resolve(question, regions)
    assert str(error.value) == said


def test_mentions_follow_their_regions():
    assert renumbered("[0] [1] [2] <mask>", {0: 0, 2: 1}) == "[0] <mask> [1] <mask>"
