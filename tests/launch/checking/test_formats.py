"""Every format that is read: found by its files, counted as it was made, and nothing wrong with it."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest

from launch.checking.found_sources import find_sources
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.sources.formats import read_source
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.warehouse.parameters import FORMATS, WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse
from tests.mutations import files_of

# Of pictures this large no mask vanishes on the published grid.
CONFIG = WarehouseConfig(scenes=6, val_scenes=3, test_scenes=3, seed=4, width=256, height=144, formats=FORMATS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "warehouse"
    make_warehouse(folder, CONFIG, workers=1)
    splits = {split: read_source({"format": "warehouse", "root": folder, "split": split}) for split in ("train", "val")}
    prepare(splits, folder / "prepared", PrepareConfig(), workers=1)
    return folder


def records(file) -> int:
    return len(json.loads(file.read_text()))


def test_a_warehouse_is_looked_at_with_its_captions_regions_and_test_split(made, look):
    before = files_of(made)
    verdict = look(made)
    assert verdict.status == 0, verdict.wrong
    for name in ("train.json", "val.json", "train_regions.json", "test_answers.json"):
        counts = Counter(record["category"] for record in json.loads((made / name).read_text()))
        told = ", ".join(f"{category} {number}" for category, number in sorted(counts.items()))
        assert f"{name} (warehouse): " in verdict.printed and f"{counts.total()} questions ({told})" in verdict.printed
    pictures = len({record["image"] for record in json.loads((made / "train.json").read_text())})
    assert f"train.json (warehouse): {pictures} pictures" in verdict.printed
    assert (
        f"train_captions.json (captions): 6 pictures, {records(made / 'train_captions.json')} questions"
        in verdict.printed
    )
    assert verdict.told.keys() <= {"unanswered", "unread", "unasked"}
    assert verdict.told["unanswered"] == [
        f"{made}/test.json: none of its {records(made / 'test.json')} questions has an answer"
    ]
    assert files_of(made) == before


@pytest.mark.parametrize(
    ("folder", "named"),
    [
        ("osd", ["result_10_depth_convs.json (osd)", "val_convs.json (osd)"]),
        ("llava", ["chat.json (captions)", "val_chat.json (captions)"]),
        ("bench", ["SpatialRGPT-Bench_v1.json (bench)"]),
        ("prepared", ["questions-train.parquet (prepared)", "questions-val.parquet (prepared)"]),
        ("parquet/warehouse-rgbd-smolRGPT", ["data/train-* (smolrgpt)", "data/val-* (smolrgpt)"]),
        ("parquet/osd-110k-smolRGPT", ["(smolrgpt)"]),
    ],
)
def test_other_formats_are_found_and_counted(made, look, folder, named):
    verdict = look(made / folder)
    assert verdict.status == 0, verdict.wrong
    sources = find_sources(made / folder)
    assert all(name in verdict.printed for name in named)
    for found in sources:
        pictures = read_source(found.source)
        total = sum(len(picture.questions) for picture in pictures)
        assert (
            total
            and f"{found.name} ({found.source['format']}): {len(pictures)} pictures, {total} questions"
            in verdict.printed
        )


def test_data_that_was_prepared_for_another_model_is_told(made, look):
    verdict = look(made / "prepared", "--config", "configs/demo.py:stage3")
    assert verdict.status == 1 and verdict.wrong.keys() == {"prepared"}
    assert "was prepared with image_size " in verdict.wrong["prepared"][0]


def test_a_prepared_split_without_its_questions_is_told(made, look, tmp_path):
    folder = shutil.copytree(made / "prepared", tmp_path / "prepared")
    (folder / "questions-train.parquet").unlink()
    verdict = look(folder)
    assert verdict.status == 1 and verdict.wrong.keys() == {"file"}
    assert verdict.wrong["file"] == [f"{folder} has no prepared split 'train'"]


def test_a_format_that_is_named_reads_files_of_any_name(made, look, tmp_path):
    for kind in ("images", "depths"):
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / kind).symlink_to(made / "osd" / kind)
    (tmp_path / "mine/talks.json").write_bytes((made / "osd/val_convs.json").read_bytes())
    with pytest.raises(DataError, match="mine holds no data by the names of a format"):
        find_sources(tmp_path / "mine")
    verdict = look(tmp_path / "mine", "--format", "osd,annotations=talks.json")
    number = records(made / "osd/val_convs.json")
    assert verdict.status == 0 and f"talks.json (osd): {number} pictures, {number} questions" in verdict.printed
