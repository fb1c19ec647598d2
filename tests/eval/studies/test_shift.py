"""The layout shift: its warehouses are those of its version, and every variant is answered."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from configs import demo, demo_backbone, studies
from eval.studies import findings as results
from eval.studies import shift
from launch.demo import run as run_demo
from smolrgpt_jax.data.masks import RLE, decode
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse

# SHA-256 of the first two scenes' questions and answers.
RECORDS = {
    "as in training": "32a2174e9013f578182910929aaa619734e6e14c3fcaa782b5a60174c2e7a32a",
    "cameras of all heights": "7b255e8745a75959154f42fb3be940457da024828a37522c0c5be719a12fd7e3",
    "other looks": "926992cb10eb28b933c1f59d3ae2ccf6f8ebb753997c2d55726fe78d62157439",
    "fuller": "54c96ef67ce5e21780defcb1e3a45d7574d97bca3c0d1561cbfcc5b8e98691fe",
    "all of these": "1e67ce2387b7908937bf4a05e7f4212f79dcce118eb8a0fa66732421277b92e5",
}
# Mean brightness of the upper and lower half of the first picture and of its depth, and the percentage of it that all masks cover.
PICTURES = {
    "as in training": [89.4, 93.6, 137.8, 40.5, 140.2],
    "cameras of all heights": [110.5, 119.8, 150.2, 52.1, 87.9],
    "other looks": [125.3, 141.6, 132.4, 25.0, 115.4],
    "fuller": [91.7, 102.9, 129.5, 29.9, 159.5],
    "all of these": [104.9, 98.9, 150.4, 51.5, 108.9],
}


def digest(file) -> str:
    said = [
        (record["category"], record["conversations"][0]["value"], record["normalized_answer"])
        for record in json.loads(file.read_text())
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def seen(data) -> list[float]:
    """What PICTURES has of a folder with split "val"; rounding on another machine may move a pixel."""
    records = json.loads((data / "val.json").read_text())
    name = records[0]["image"].removesuffix(".png")
    masks = [m for record in records if record["image"] == f"{name}.png" for m in record["rle"]]
    covered = [100 * decode(RLE(*m["size"], m["counts"].encode())).mean() for m in masks]
    pictures = (data / "val/images" / f"{name}.png", data / "val/depths" / f"{name}_depth.png")
    return [*(value for file in pictures for value in halves(file)), float(np.sum(covered))]


def halves(file) -> list[float]:
    """Mean brightness of the upper and lower half of a picture."""
    with Image.open(file) as picture:
        pixels = np.asarray(picture, float)
    half = len(pixels) // 2
    return [float(pixels[:half].mean()), float(pixels[half:].mean())]


@pytest.mark.parametrize("variant", studies.SHIFT)
def test_the_warehouses_of_version_1_stay_as_they_are(variant, tmp_path):
    assert studies.SHIFT_VERSION == 1
    make_warehouse(tmp_path / "data", WarehouseConfig(**studies.shifted_warehouse(variant, scenes=2)), workers=1)
    assert digest(tmp_path / "data" / "val.json") == RECORDS[variant]
    np.testing.assert_allclose(seen(tmp_path / "data"), PICTURES[variant], atol=0.5)


def test_scores_by_the_number_of_masks(tmp_path):
    asked = {"a": 3, "b": 6, "c": 7, "d": 12, "e": 12}
    records = [{"id": name, "rle": [{}] * masks} for name, masks in asked.items()]
    items = [
        {"id": name, "category": "count", "normalized_answer": value, "truth": 2}
        for name, value in zip(asked, (2, 1, 2, 2, None))
    ]
    items.append({"id": "f", "category": "left_right", "normalized_answer": "left", "truth": "left"})
    (tmp_path / "val.json").write_text(json.dumps(records))
    (tmp_path / "predictions.json").write_text(json.dumps(items))
    found = shift.scores_by_masks(tmp_path, tmp_path / "val.json")
    counts = {"count, up to 6": [True, False], "count, 7 to 9": [True], "count, 10 or more": [True, False]}
    assert found == counts | dict.fromkeys(("mcq, up to 6", "mcq, 7 to 9", "mcq, 10 or more"), [])
    assert "| fuller | 50 (of 2) | 100 (of 1) | 50 (of 2) | - | - | - |" in shift.masks_table({"fuller": found})


def test_every_variant_is_answered_and_scored(tmp_path, monkeypatch, loaded_model):
    monkeypatch.setattr(studies, "SHIFT", {name: studies.SHIFT[name] for name in ("as in training", "fuller")})
    asked = []

    def answer_all(model, pictures, *rest):
        asked.append(max(len(q.regions) for p in pictures for q in p.questions))
        return ["It is to the left." for p in pictures for _ in p.questions]

    monkeypatch.setattr(results, "answer_questions", answer_all)
    found = shift.run_study(loaded_model, tmp_path / "out", results.Limits(4, 4), tmp_path, scenes=6)
    assert list(found) == ["as in training", "fuller"] and asked[1] > asked[0]
    written = json.loads((tmp_path / "out" / "study.json").read_text())
    assert written["version"] == 1 and set(written["variants"]) == set(found)
    assert "| fuller |" in (tmp_path / "out" / "masks.md").read_text()
    for name in ("as_in_training", "fuller"):
        assert (tmp_path / "out" / name / "report.html").is_file()


def test_no_training_of_the_demo_sees_the_test_scenes(tmp_path):
    reserved = [*(phase.seed for phase in demo_backbone.PHASES.values()), studies.SHIFT_SEED, studies.SIZE_TEST_SEED]
    assert len(set(reserved)) == len(reserved) and min(reserved) >= demo.RESERVED_SEEDS
    with pytest.raises(ValueError, match="the seed is 910001, it must be from 0 to 899999"):
        run_demo(tmp_path / "demo", studies.SHIFT_SEED)
    assert not (tmp_path / "demo").exists()
    assert studies.shifted_warehouse("as in training")["camera_variety"] == demo.WAREHOUSE["camera_variety"]
