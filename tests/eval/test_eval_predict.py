from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import eval.predict as command
import smolrgpt_jax
from eval.overlay import colour_of
from eval.predict import main
from smolrgpt_jax.data.masks import decode

FAR = "How far is the pallet <mask> from the pallet <mask>?"


@pytest.fixture
def asked(monkeypatch):
    """Replaces the model by one that records what it is asked."""
    pictures = []
    monkeypatch.setitem(smolrgpt_jax.__dict__, "load", lambda path, **_: None)

    def answer(model, some, batch_size, max_new_tokens):
        pictures.extend(some)
        return ["The pallet [Region 0] is 2.50 meters away from the pallet [Region 1]."]

    monkeypatch.setattr(command, "answer_questions", answer)
    return pictures


def files(warehouse):
    return [
        "--checkpoint",
        "anywhere",
        "--image",
        str(warehouse / "val/images/000100.png"),
        "--depth",
        str(warehouse / "val/depths/000100_depth.png"),
    ]


def test_boxes_become_regions_and_the_answer_is_printed_and_drawn(warehouse, tmp_path, asked, capsys):
    main(
        [
            *files(warehouse),
            "--boxes",
            "10,5,40,50",
            "60,20,90,55",
            "--question",
            FAR,
            "--out",
            str(tmp_path / "new" / "drawn.png"),
        ]
    )
    regions = asked[0].questions[0].regions
    expected = np.zeros((60, 96), np.uint8)
    expected[20:55, 60:90] = 1
    assert np.array_equal(decode(regions[1]), expected)
    assert asked[0].questions[0].prompt == FAR
    output = capsys.readouterr().out
    assert "answer: The pallet [Region 0] is 2.50 meters" in output and "distance: 2.5\n" in output
    drawn = np.asarray(Image.open(tmp_path / "new" / "drawn.png"))
    assert drawn.shape == (60, 96, 3) and tuple(drawn[49, 10]) == colour_of(0)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["drawn.png"]


def test_a_record_brings_its_masks_and_question(warehouse, asked):
    main([*files(warehouse), "--masks", str(warehouse / "val.json"), "--record", "000100-count"])
    question = asked[0].questions[0]
    assert question.prompt.startswith("How many pallets") and len(question.regions) == 5


@pytest.mark.parametrize("wrap", [lambda masks: masks, lambda masks: {"rle": masks}])
def test_a_plain_list_or_one_record_of_masks_is_read(warehouse, tmp_path, asked, wrap):
    masks = json.loads((warehouse / "val.json").read_text(encoding="utf-8"))[0]["rle"]
    (tmp_path / "masks.json").write_text(json.dumps(wrap(masks)), encoding="utf-8")
    main([*files(warehouse), "--masks", str(tmp_path / "masks.json"), "--question", FAR])
    assert len(asked[0].questions[0].regions) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--boxes", "1,2,3", "--question", FAR], "'1,2,3'"),
        (["--boxes", "200,2,300,9", "5,5,9,9", "--question", FAR], "'200,2,300,9'"),
        (["--boxes", "5,5,9,9", "--question", FAR], "2 <mask> but 1 masks"),
        (["--boxes", "5,5,9,9"], "no question"),
        (["--masks", "{data}/val.json"], "28 records"),
        (["--masks", "{data}/val.json", "--record", "x"], "'x'"),
        (["--masks", "{data}/none.json", "--question", FAR], "cannot be read"),
        (["--masks", "{data}/val/images/000100.png", "--question", FAR], "not valid JSON"),
        (["--masks", "{data}/bad.json", "--question", FAR], "mask 0 is unreadable"),
        (
            ["--boxes", "5,5,9,9", "5,5,9,9", "--question", FAR, "--image", "{data}/none.png"],
            "none.png is missing",
        ),
        (
            ["--boxes", "5,5,9,9", "5,5,9,9", "--question", FAR, "--depth", "{data}/none.png"],
            "none.png is missing",
        ),
        (["--boxes", "5,5,9,9", "5,5,9,9", "--question", FAR, "--out", "{data}/drawn.xyz"], "not the suffix"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_no_picture(warehouse, asked, arguments, message):
    (warehouse / "bad.json").write_text('[{"size": [60, 96], "counts": "!!"}]', encoding="utf-8")
    before = sorted(warehouse.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main([*files(warehouse), *(argument.format(data=warehouse) for argument in arguments)])
    assert (
        str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)
    )
    assert sorted(warehouse.rglob("*")) == before


def test_regions_without_depth_are_refused(warehouse, asked):
    with pytest.raises(SystemExit, match="--depth"):
        main([*files(warehouse)[:4], "--boxes", "5,5,9,9", "15,5,19,9", "--question", FAR])
