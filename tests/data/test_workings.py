from __future__ import annotations

import json
from pathlib import Path

import pytest

from smolrgpt_jax.data.workings import split_workings


@pytest.mark.parametrize(
    ("text", "conclusion", "workings"),
    [
        ("The pallet is 2.50 meters away. 3 pallets are near.", None, ""),
        ("3.4 meters.", None, ""),
        ("4", None, ""),
        ("0 in 1 out.", None, ""),
        ("0 pallet 1 shelf.", None, ""),
        ("", None, ""),
        ("2 in 3 out. Two.", "Two.", "2 in 3 out."),
        ("0 no 1 middle. [Region 1] is it. 0 at (3, 5). 2 in. One.\nAnswer: 1", "[Region 1] is it. One.\nAnswer: 1", "0 no 1 middle. 0 at (3, 5). 2 in."),
        ("1 stands 0 ahead 2 left. apart 3 across 4 along off 5.5. 5.0 meters.", "5.0 meters.", "1 stands 0 ahead 2 left. apart 3 across 4 along off 5.5."),
        ("[Region 1] is the buffer. 0 in 1 ou", "[Region 1] is the buffer.", "0 in 1 ou"),
    ],
)  # fmt: skip
def test_an_answer_is_split_into_conclusion_and_workings(text, conclusion, workings):
    assert split_workings(text) == (text if conclusion is None else conclusion, workings)


def test_nothing_but_workings_is_no_conclusion_before_the_end():
    assert split_workings("0 in 1 ou", ended=False) == ("", "0 in 1 ou")


def test_all_that_the_warehouse_says_before_it_concludes_is_workings():
    for record in json.loads((Path(__file__).parents[2] / "docs/example/val.json").read_text()):
        text = record["conversations"][1]["value"]
        conclusion, workings = split_workings(text)
        assert conclusion.startswith(("The ", "There ", "Because ", "From ", "Among ", "[Region"))
        assert sorted(f"{conclusion} {workings}".split()) == sorted(text.split()) and "Region" not in workings
