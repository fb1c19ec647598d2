"""Questions made of masks alone, against the masks and against the published answer to the one real left_right question."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from eval import side_questions
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError


@pytest.fixture
def real():
    return Path(__file__).parents[1] / "data_files" / "real_warehouse"


@pytest.fixture
def records(real):
    return json.loads((real / "records_with_masks.json").read_text())


def box(left: int, right: int) -> dict:
    mask = np.zeros((20, 40), np.uint8, order="F")
    mask[5:10, left:right] = 1
    return {"size": [20, 40], "counts": coco.encode(mask)["counts"].decode()}


def record(prompt: str, *boxes: dict) -> dict:
    return {"id": "r", "image": "a.png", "conversations": [{"from": "human", "value": prompt}], "rle": list(boxes)}


def test_the_centre_is_that_of_the_dense_mask(records):
    for entry in (r for made in records for r in made["rle"]):
        rle = RLE(*entry["size"], entry["counts"].encode())
        _, columns = np.nonzero(coco.decode({"size": entry["size"], "counts": rle.counts}))
        assert side_questions.centre(rle) == pytest.approx((columns.mean() + 0.5) / rle.width, abs=1e-9)


def test_the_published_answer_is_found(records):
    published = next(r for r in records if r["category"] == "left_right")
    made = {q["id"]: q["normalized_answer"] for q in side_questions.side_questions(published)}
    assert made[f"{published['id']}-0-1"] == published["normalized_answer"]


def test_only_clear_pairs_of_one_kind_are_asked_about_in_both_orders():
    made = side_questions.side_questions(
        record(
            "Given the buffer regions <mask> and the pallets <mask> <mask> <mask>, what?",
            box(0, 5),
            box(10, 15),
            box(10, 15),
            box(30, 40),
        )
    )
    assert {q["id"]: q["normalized_answer"] for q in made} == {
        "r-1-3": "left",
        "r-3-1": "right",
        "r-2-3": "left",
        "r-3-2": "right",
    }


def test_the_folder_is_read_like_any_other_and_is_balanced(real, records, tmp_path):
    number, seen = side_questions.write_side_questions(records, tmp_path / "sides", real / "val")
    pictures = read_warehouse(tmp_path / "sides", "val", on_bad_record=BadRecords("error"))
    asked = [q for picture in pictures for q in picture.questions]
    assert len(asked) == number > 100 and seen == 1
    counts = Counter(q.normalized_answer for q in asked)
    assert counts["left"] == counts["right"]
    assert (tmp_path / "sides/val/images/000315.png").read_bytes() == (real / "val/images/000315.png").read_bytes()


def test_an_unreadable_mask_is_named_and_nothing_is_written(tmp_path):
    broken = record("the pallets <mask> <mask>", box(0, 5), {"size": [20, 40], "counts": "??"})
    with pytest.raises(DataError, match="record 'r' has no readable masks"):
        side_questions.write_side_questions([broken], tmp_path / "sides")
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_wrote_and_refuses_an_existing_folder(real, tmp_path, capsys):
    arguments = ["--records", str(real / "records_with_masks.json"), "--out", str(tmp_path / "sides")]
    side_questions.main(arguments)
    assert "11 records, 0 of them with their picture" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="exists already"):
        side_questions.main(arguments)


def test_masks_in_every_form_are_read_and_what_is_none_is_refused(tmp_path):
    whole = record("the pallets <mask> <mask>", box(0, 5), box(30, 40))
    runs = RLE(20, 40, whole["rle"][0]["counts"].encode()).runs().tolist()
    listed = whole | {"rle": [{"size": ["20", "40"], "counts": runs}, whole["rle"][1]]}
    answers = [[q["normalized_answer"] for q in side_questions.side_questions(made)] for made in (whole, listed)]
    assert answers[0] == answers[1] == ["left", "right"]
    for broken in ("text", None, whole | {"image": None}, whole | {"id": []}, whole | {"rle": [whole["rle"][0], 3]}):
        with pytest.raises(DataError, match="has no readable masks"):
            side_questions.write_side_questions([broken], tmp_path / "sides")
