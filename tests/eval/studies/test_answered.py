"""Studies: what the variants change, and what answerers of known habits score on them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from eval.side_questions import centre, region_kinds
from eval.studies import answered as studies
from eval.studies import findings as results
from eval.studies.__main__ import main
from smolrgpt_jax.data.masks import RLE, decode
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies") / "warehouse"
    make_warehouse(
        folder,
        WarehouseConfig(scenes=1, val_scenes=0, test_scenes=8, seed=6, width=96, height=54, max_pallets=5),
        workers=1,
    )
    return folder


@pytest.fixture
def records(folder):
    return json.loads((folder / "test_answers.json").read_text())


def side_of(record: dict) -> str:
    a, b = (centre(RLE(*r["size"], r["counts"].encode())) for r in record["rle"])
    return "left" if a < b else "right"


def test_reordered_masks_keep_what_the_answers_mean(records):
    changed = studies.reordered(records, np.random.default_rng(0))
    moved = 0
    for before, after in zip(records, changed, strict=True):
        assert sorted(r["counts"] for r in before["rle"]) == sorted(r["counts"] for r in after["rle"])
        kinds = region_kinds(before["conversations"][0]["value"])
        for kind, old_mask, new_mask in zip(kinds, before["rle"], after["rle"], strict=True):
            assert (old_mask != new_mask) == (kinds.count(kind) > 1)
            moved += old_mask != new_mask
        old, new = before["normalized_answer"], after["normalized_answer"]
        if before["category"] == "mcq":
            assert before["rle"][int(old)] == after["rle"][int(new)]
        elif before["category"] == "left_right":
            assert new == side_of(after)
        else:
            assert new == old
    assert moved > len(records)


def test_every_record_lies_on_another_picture(records):
    changed = studies.elsewhere(records, np.random.default_rng(0))
    assert all(before["image"] != after["image"] for before, after in zip(records, changed, strict=True))
    assert {r["image"] for r in changed} == {r["image"] for r in records}
    with pytest.raises(DataError, match="there is only one"):
        studies.check_records("masks", records[:1], Path("val.json"))


def test_masks_become_boxes_and_tightened_boxes_of_their_pictures(records, folder, tmp_path):
    pytest.importorskip("cv2")
    masks = {}
    for name, variant in studies.STUDIES["boxes"].items():
        rng = np.random.default_rng(0)
        studies.write_variant(variant, records[:6], folder / "test", tmp_path / name, rng)
        written = json.loads((tmp_path / name / "val.json").read_text())
        assert [{**record, "rle": None} for record in written] == [{**record, "rle": None} for record in records[:6]]
        masks[name] = [decode(RLE(*r["size"], r["counts"].encode())) for record in written for r in record["rle"]]
    for mask, box, tight in zip(*masks.values(), strict=True):
        assert box.sum() == np.prod([np.ptp(places) + 1 for places in np.nonzero(mask)]) and not (mask > box).any()
        assert not (tight > box).any()
    assert any(tight.sum() < box.sum() for box, tight in zip(masks["boxes"], masks["tightened boxes"]))


def test_the_study_of_boxes_says_at_once_that_it_needs_opencv(records, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="needs the package cv2"):
        studies.check_records("boxes", records, Path("val.json"))
    studies.check_records("masks", records, Path("val.json"))


def test_grey_pictures_have_the_size_of_the_real_ones(records, folder, tmp_path):
    variant = studies.STUDIES["inputs"]["no RGB"]
    studies.write_variant(variant, records, folder / "test", tmp_path / "out", np.random.default_rng(0))
    files = sorted((tmp_path / "out/val/images").iterdir())
    assert files
    for file in files:
        with Image.open(file) as picture:
            assert picture.size == (96, 54) and picture.getextrema() == ((128, 128),) * 3
    for file in (tmp_path / "out/val/depths").iterdir():
        assert file.read_bytes() == (folder / "test/depths" / file.name).read_bytes()


def run(study, answer, records, folder, out, monkeypatch, loaded_model):
    def answer_all(model, pictures, *rest):
        return [answer(question) for picture in pictures for question in picture.questions]

    monkeypatch.setattr(results, "answer_questions", answer_all)
    limits = results.Limits(4, 8)
    return studies.run_study(study, loaded_model, records, folder / "test", out, limits, 3, folder)


def test_who_follows_the_masks_stays_right_and_who_knows_the_answers_by_heart_does_not(
    records, folder, tmp_path, monkeypatch, loaded_model
):
    sides = [record for record in records if record["category"] == "left_right"]
    known = {record["id"]: record["normalized_answer"] for record in sides}

    def by_masks(question):
        a, b = (centre(region) for region in question.regions)
        return f"The first is to the {'left' if a < b else 'right'} of the second."

    def by_heart(question):
        return f"The first is to the {known[question.id]} of the second."

    arguments = (sides, folder, tmp_path / "out", monkeypatch, loaded_model)
    followed, gains = run("masks", by_masks, *arguments)
    assert [scores["left_right"][0] for scores in followed.values()] == [100, 100, 100]
    assert gains["in another order"]["left_right"] == (0, (0, 0))
    learned, gains = run("masks", by_heart, *arguments)
    assert learned["as they are"]["left_right"][0] == 100
    # Both masks of every question have changed places.
    assert learned["in another order"]["left_right"][0] == 0
    assert gains["in another order"]["left_right"] == (-100, (-100, -100))


def test_files_hold_every_variant(records, folder, tmp_path, monkeypatch, loaded_model):
    found, _ = run("inputs", lambda q: "left", records, folder, tmp_path / "out", monkeypatch, loaded_model)
    written = json.loads((tmp_path / "out/study.json").read_text())
    assert list(written["variants"]) == list(found) == list(studies.STUDIES["inputs"])
    table = (tmp_path / "out/table.md").read_text()
    drawing = ElementTree.parse(tmp_path / "out/plot.svg").getroot()
    drawn = [e.text for e in drawing.iter("{http://www.w3.org/2000/svg}text")]
    for variant, scores in found.items():
        value, interval = scores["S1"]
        assert f"| {variant} | {value:.1f} (" in table
        assert variant in drawn and f"{value:.0f}" in drawn
        assert written["variants"][variant]["S1"] == {"value": value, "interval": list(interval)}
        assert (tmp_path / "out" / variant.replace(" ", "_") / "report.html").is_file()


def test_records_that_cannot_be_asked_are_refused_before_a_model_is_loaded(folder, tmp_path):
    records = json.loads((folder / "test_answers.json").read_text())
    bare = [{key: record[key] for key in record if key != "normalized_answer"} for record in records]
    one = [record for record in records if record["image"] == records[0]["image"]]
    for name, asked, study, message in (
        ("bare.json", bare, "inputs", "bare.json: record 0 has no answer to score against"),
        ("one.json", one, "masks", "one.json: masks cannot be laid on another picture"),
    ):
        with pytest.raises(DataError, match=message):
            studies.check_records(study, asked, tmp_path / name)
    studies.check_records("inputs", one, tmp_path / "one.json")
    arguments = ["--checkpoint", "x", "--data", str(folder), "--split", "test", "--out", str(tmp_path / "o")]
    with pytest.raises(SystemExit, match="test.json: record 0 has no answer .*; .* --annotations=test_answers.json$"):
        main(["masks", *arguments])
    assert not (tmp_path / "o").exists()


def test_a_missing_file_gives_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="^error: .*test.json"):
        main(["masks", "--checkpoint", "x", "--data", str(tmp_path), "--split", "test", "--out", str(tmp_path / "o")])
    assert not (tmp_path / "o").exists()


def test_a_limit_asks_of_all_of_a_file_that_is_sorted_by_category(folder, records, tmp_path, monkeypatch, loaded_model):
    records.sort(key=lambda record: record["category"])
    (folder / "sorted.json").write_text(json.dumps(records))
    asked = []
    monkeypatch.setattr(studies, "run_study", lambda name, model, given, *_: (asked.extend(given), ({"": {}}, {}))[1])
    where = ["--data", str(folder), "--split", "test", "--annotations", "sorted.json", "--out", str(tmp_path / "out")]
    main(["inputs", "--checkpoint", "x", *where, "--limit", "8"])
    places = [records.index(record) for record in asked]
    assert [place * 8 // len(records) for place in places] == list(range(8))
