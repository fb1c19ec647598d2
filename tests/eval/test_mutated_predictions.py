"""Predictions or truths that are damaged: every command that reads them scores what they say, or says what is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import compare, normalize, score_warehouse
from tests.mutations import changed, changed_copy, files_of, numbers_of_examples, reproducible

ANSWERS = {
    "left_right": ("Is the pallet <mask> left or right of the pallet <mask>?", "Left.", "left"),
    "count": ("How many pallets are in <mask>, given <mask> <mask>?", "There are two pallets.", 2),
    "mcq": ("Which pallet in <mask> <mask> is closest to <mask>?", "The pallet [Region 1] is the closest.", 1),
    "distance": ("How far is <mask> from <mask>?", "It is 2.5 meters.", 2.5),
}


def prediction(number: int, category: str) -> dict:
    question, answer, value = ANSWERS[category]
    further = [{"order": [0], "answer": answer}]
    return {
        "id": f"id {number}",
        "image": f"{number // 2}.png",
        "category": category,
        "question": question,
        "answer": answer,
        "closing": str(value),
        "further": further,
        "cut_off": number == 3,
        "normalized_answer": value,
        "truth": value,
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """predictions.json of a run, submission.json, and the truths."""
    folder = tmp_path_factory.mktemp("predictions") / "valid"
    folder.mkdir()
    found = [prediction(number, category) for number, category in enumerate([*ANSWERS, *ANSWERS])]
    truths = [{**item, "normalized_answer": item["truth"]} for item in found]
    for name, records, fields in (
        ("predictions", found, found[0].keys()),
        ("submission", found, ("id", "normalized_answer")),
        ("truths", truths, ("id", "category", "normalized_answer")),
    ):
        (folder / f"{name}.json").write_text(json.dumps([{key: item[key] for key in fields} for item in records]))
    return folder


COMMANDS = {
    "normalize": lambda folder, out: normalize.main(
        ["--predictions", f"{folder}/predictions.json", "--out", out, "--answers", "rules", "closing", "vote"]
    ),
    "score": lambda folder, out: score_warehouse.main(
        ["--predictions", f"{folder}/submission.json", "--ground_truth", f"{folder}/truths.json", "--out", out]
    ),
    "compare": lambda folder, out: compare.main(
        [f"{folder}/predictions.json", f"{folder.parent / 'valid'}/predictions.json", "--out", out]
    ),
}


@numbers_of_examples(few=20)
def test_what_cannot_be_used_is_one_sentence_and_the_rest_is_scored_as_before(files, tmp_path, examples):
    source, folders = files_of(files), iter(range(10**6))
    (tmp_path / "valid").symlink_to(files)

    @reproducible(examples)
    @given(st.sampled_from(list(COMMANDS)), changed(source))
    def one_change(command, change):
        name, content = change
        number = next(folders)
        folder, out = changed_copy(files, tmp_path / str(number), name, content), tmp_path / f"out{number}"
        before = {path.name for path in tmp_path.iterdir()}
        try:
            COMMANDS[command](folder, str(out))
        except SystemExit as stop:
            assert str(stop).startswith("error: ") and "\n" not in str(stop)
            assert {path.name for path in tmp_path.iterdir()} == before
            return
        if command == "normalize":
            values = {
                item["id"]: item["normalized_answer"] for item in json.loads((out / "predictions.json").read_text())
            }
            asked = json.loads((folder / "predictions.json").read_bytes())
            assert len(values) == len(asked)
            for number, category in enumerate([*ANSWERS, *ANSWERS]):
                if prediction(number, category) in asked:
                    assert values[f"id {number}"] == ANSWERS[category][2]

    one_change()
