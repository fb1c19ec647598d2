"""Every real sample goes through the readers as it is; what a sample lacks (pictures, masks) is filled in around it.

The samples are no part of the repository: REAL_SAMPLES names their folder, else it is looked for in ../shared.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolrgpt_jax.data import images, masks
from smolrgpt_jax.data.sources.formats import read_bench, read_captions, read_warehouse

BESIDE = Path(__file__).parents[3] / "shared" / "real_samples"
SAMPLES = Path(os.environ.get("REAL_SAMPLES", BESIDE))
FIGURES = ("000315", "000705", "001021", "001344", "001505")

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the real samples are not here")


def load(name: str) -> list[dict]:
    return json.loads((SAMPLES / name).read_text(encoding="utf-8"))


def write_split(root: Path, records: list[dict], height: int, width: int) -> None:
    """The records as the split "val" of a warehouse folder, with blank pictures of one size."""
    for kind, suffix, mode in (("images", "", "RGB"), ("depths", "_depth", "L")):
        (root / "val" / kind).mkdir(parents=True)
        blank = Image.new(mode, (width, height))
        for name in {record["image"] for record in records}:
            blank.save(root / "val" / kind / f"{Path(name).stem}{suffix}.png")
    (root / "val.json").write_text(json.dumps(records))


def region(height: int, width: int) -> dict:
    return {"size": [height, width], "counts": masks.encode(np.eye(height, width)).counts.decode()}


def questions_by_id(root: Path) -> dict:
    return {question.id: question for picture in read_warehouse(root, "val") for question in picture.questions}


def test_no_sample_is_forgotten():
    figures = {f"warehouse_figures/{name}{suffix}.png" for name in FIGURES for suffix in ("", "_depth")}
    assert {str(file.relative_to(SAMPLES)) for file in SAMPLES.rglob("*") if file.is_file()} == figures | {
        "README.md",
        "spatialrgpt_bench_qa_pairs.json",
        "warehouse/val.json",
        "warehouse/val/depths/000315_depth.png",
        "warehouse/val/images/000315.png",
        "warehouse_answers.json",
        "warehouse_records_with_masks.json",
        "warehouse_val_questions.json",
    }


def test_the_complete_record():
    (picture,) = read_warehouse(SAMPLES / "warehouse", "val")
    (record,) = load("warehouse/val.json")
    (question,) = picture.questions
    assert (question.id, question.turns) == (record["id"], [turn["value"] for turn in record["conversations"]])
    rgb = images.read_rgb(picture.image, 256)
    assert rgb.shape == (256, 256, 3) and rgb.std() > 10
    for mode in images.DEPTH_MODES:
        depth = images.read_depth(picture.depth, 256, mode)
        assert depth.shape == (256, 256) and depth.std() > 10


def test_records_with_masks(tmp_path):
    records = load("warehouse_records_with_masks.json")
    write_split(tmp_path, records, 1080, 1920)
    found = questions_by_id(tmp_path)
    assert len(records) == len(found) == 11
    for record in records:
        question = found[record["id"]]
        texts = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"]]
        assert question.turns == texts and question.category == record["category"]
        assert str(question.normalized_answer) == str(record["normalized_answer"])
        assert [(r.height, r.width, r.counts.decode()) for r in question.regions] == [
            (*mask["size"], mask["counts"]) for mask in record["rle"]
        ]


def test_validation_questions(tmp_path):
    samples = load("warehouse_val_questions.json")
    records = [
        {
            "id": sample["id"],
            "image": sample["image"],
            "conversations": [
                {"from": "human", "value": sample["question"]},
                {"from": "gpt", "value": str(sample["normalized_answer"])},
            ],
            "rle": [region(9, 16)] * sample["n_masks"],
            "category": sample["category"],
            "normalized_answer": sample["normalized_answer"],
        }
        for sample in samples
    ]
    write_split(tmp_path, records, 9, 16)
    found = questions_by_id(tmp_path)
    assert len(samples) == len(found) == 654
    for sample in samples:
        question = found[sample["id"]]
        assert question.prompt == sample["question"].removeprefix("<image>").strip()
        assert question.mask_marks == sample["n_masks"]
        # left_right is text, mcq and count are whole; the published values come as numbers and as strings.
        kind = {"left_right": str, "mcq": int, "count": int, "distance": float}[sample["category"]]
        assert question.normalized_answer == kind(sample["normalized_answer"])


@pytest.mark.parametrize("answer", ["freeform_answer", "another_models_answer"])
def test_answers(tmp_path, answer):
    samples = load("warehouse_answers.json")
    records = [
        {
            "id": number,
            "image": f"{number % 7:06d}.png",
            "conversations": [{"from": "human", "value": sample["question"]}, {"from": "gpt", "value": sample[answer]}],
            "rle": [region(9, 16)] * sample["question"].count("<mask>"),
            "category": sample["category"],
            "normalized_answer": sample["normalized_answer"],
        }
        for number, sample in enumerate(samples)
    ]
    write_split(tmp_path, records, 9, 16)
    found = questions_by_id(tmp_path)
    assert len(samples) == len(found) == 180
    for number, sample in enumerate(samples):
        question = found[str(number)]
        assert (question.category, question.answer) == (sample["category"], sample[answer].strip())
        assert question.normalized_answer == type(question.normalized_answer)(sample["normalized_answer"])


def test_bench_pairs(tmp_path):
    samples = load("spatialrgpt_bench_qa_pairs.json")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (16, 9)).save(tmp_path / "images/a.jpg")
    records = []
    for number, sample in enumerate(samples):
        # The benchmark's conversations hold the marks that the bare question lacks.
        asked = re.sub(r"Region \[\d+\]", lambda name: f"{name[0]} <mask> <depth>", sample["question"])
        records.append(
            {
                "id": f"{sample['question_id']}/{number}",
                "image_info": {"file_path": "a.jpg", "height": 9, "width": 16},
                "text_q": sample["question"],
                "qa_info": {"type": sample["question_id"].split("_")[0], "category": sample["category"]},
                "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": sample["gt"]}],
                "bbox": [[1, 1, 8, 6]] * asked.count("<mask>"),
                "rle": None,
            }
        )
    (tmp_path / "SpatialRGPT-Bench_v1.json").write_text(json.dumps(records))
    (picture,) = read_bench(tmp_path, depths=None)
    assert len(picture.questions) == len(samples)
    for sample, question in zip(samples, picture.questions):
        assert question.category == sample["category"] and question.answer == sample["gt"].strip()
        assert question.prompt.replace(" <mask>", "") == sample["question"].strip()
        assert len(question.regions) == sample["question"].count("Region [")


@pytest.mark.parametrize("name", FIGURES)
def test_figures(name, tmp_path):
    folder = SAMPLES / "warehouse_figures"
    record = {"id": name, "image": f"{name}.png"}
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A warehouse."}]
    (tmp_path / "chat.json").write_text(json.dumps([record | {"conversations": turns}]))
    (picture,) = read_captions(tmp_path, images=str(folder.resolve()))
    assert images.picture_size(picture.image) == (436, 775)
    with Image.open(picture.image) as file:
        expected = np.asarray(file.resize((256, 256), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(images.read_rgb(picture.image, 256), expected)
    with Image.open(folder / f"{name}_depth.png") as file:
        expected = np.asarray(file.resize((256, 256), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(images.read_depth(folder / f"{name}_depth.png", 256), expected)
