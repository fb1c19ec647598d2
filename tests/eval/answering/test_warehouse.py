from __future__ import annotations

import json

import pytest

from eval.answering.warehouse import evaluate, left_out_answers
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.formats import read_warehouse


def truthful(pictures):
    return [question.answer for picture in pictures for question in picture.questions]


@pytest.fixture
def half(warehouse):
    """Eight records of which four name a picture that is not there: (records, the pictures that are)."""
    records = json.loads((warehouse / "val.json").read_text(encoding="utf-8"))[:8]
    for record in records[4:]:
        record["image"] = "gone.png"
    (warehouse / "half.json").write_text(json.dumps(records), encoding="utf-8")
    bad = BadRecords("report")
    pictures = read_warehouse(warehouse, "val", annotations="half.json", on_bad_record=bad)
    assert len(bad.reasons) == 4
    return records, pictures


def test_records_that_cannot_be_asked_count_as_wrong(half, tmp_path):
    records, pictures = half
    metrics = evaluate(pictures, truthful, tmp_path / "out", records=records)
    assert (metrics["questions"], metrics["left_out"], metrics["unreadable"]) == (8, 4, 4)
    # A picture's four questions are one of each category.
    assert metrics["S1"] == metrics["count"] == 50
    assert metrics["official"]["Total_count"] == 8
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "4 of them could not be asked" in report


def test_what_is_asked_and_what_states_no_answer_is_not_left_out(half):
    records, pictures = half
    last = records[-1]
    unusable = [
        *records,
        last,
        "text",
        {},
        {**last, "id": "a", "category": "colour"},
        {**last, "id": "b", "normalized_answer": "much"},
        {**last, "id": "c", "normalized_answer": None},
    ]
    items = left_out_answers(unusable, pictures)
    assert [item["id"] for item in items] == [record["id"] for record in records[4:]]
    assert all(item["left_out"] and item["answer"] == "" and item["image"] == "gone.png" for item in items)
    assert all("<image>" not in item["question"] for item in items)


def test_nothing_is_left_out_of_usable_records(half):
    records, pictures = half
    assert left_out_answers(records[:4], pictures) == []
