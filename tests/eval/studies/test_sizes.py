"""The study of widths and heights: its records, its baseline, its warehouses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from configs import studies
from eval.reading.bench_rules import bench_answer
from eval.studies import sizes
from smolrgpt_jax.warehouse.other_formats import BENCH_FILE
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sizes")
    small = {"val_scenes": 0, "scenes": 0, "width": 96, "height": 54, "formats": ("bench",)}
    for split, seed in (("train", 1), ("test", 2)):
        make_warehouse(root / split, WarehouseConfig(**small, test_scenes=6, seed=seed), workers=1)
        records = json.loads((root / split / "bench" / BENCH_FILE).read_text())
        kept = sizes.size_records(records, reworded=split == "train")
        (root / split / "bench" / sizes.SIZES_FILE).write_text(json.dumps(kept))
    return root


def test_training_answers_are_the_same_lengths_in_metres(root):
    records = json.loads((root / "train" / "bench" / BENCH_FILE).read_text())
    plain, reworded = (sizes.size_records(records, reworded=value) for value in (False, True))
    assert len(plain) == len(reworded) > 10
    for before, after in zip(plain, reworded):
        category = before["qa_info"]["category"]
        assert category in ("width_data", "height_data")
        assert before["conversations"][0] == after["conversations"][0] and before["rle"] == after["rle"]
        truth, text = (bench_answer(category, before["conversations"][1]["value"]), after["conversations"][1]["value"])
        assert bench_answer(category, text) == pytest.approx(truth, rel=0.051)
        assert text.endswith(" meters wide." if category == "width_data" else " meters tall.")


def test_the_median_is_that_of_the_training_answers(root):
    scores = sizes.median_scores(root)
    for name, category in (("width", "width_data"), ("height", "height_data")):
        known, asked = (
            np.array(
                [
                    bench_answer(category, record["conversations"][1]["value"])
                    for record in json.loads((root / split / "bench" / sizes.SIZES_FILE).read_text())
                    if record["qa_info"]["category"] == category
                ]
            )
            for split in ("train", "test")
        )
        off = np.abs(np.median(known) - asked) / asked
        assert scores[f"{name} right"] == pytest.approx(100 * np.mean(off <= 0.25))
        assert scores[f"{name} error"] == pytest.approx(100 * np.mean(off), rel=1e-2)


def test_no_scene_is_both_learned_from_and_asked_about():
    seeds = {
        split: {studies.size_warehouses("cpu", seed)[split]["seed"] for seed in range(100)}
        for split in ("train", "test")
    }
    assert len(seeds["train"]) == len(seeds["test"]) == 100 and not seeds["train"] & seeds["test"]
