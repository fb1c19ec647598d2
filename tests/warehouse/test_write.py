"""The written folder: the published format, reproducible, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from launch import make_warehouse as command
from smolrgpt_jax.data.masks import decode
from smolrgpt_jax.data.records import CAPTION_CATEGORIES, WAREHOUSE_CATEGORIES
from smolrgpt_jax.data.sources.formats import read_captions, read_warehouse
from smolrgpt_jax.errors import CheckpointError, DataError
from smolrgpt_jax.warehouse import write
from smolrgpt_jax.warehouse.make_scene import draw_scene
from smolrgpt_jax.warehouse.parameters import FORMATS, WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse, make_warehouse

ROOT = Path(__file__).parents[2]
TYPES = {"left_right": str, "mcq": str, "count": int, "distance": float}


def records(folder: Path, name: str) -> list[dict]:
    return json.loads((folder / name).read_text())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_neither_workers_nor_other_formats_change_a_file(warehouse, written, tmp_path):
    metadata = make_warehouse(tmp_path / "bare", written, workers=2, formats=())
    bare, full = contents(tmp_path / "bare"), contents(warehouse)
    assert {name for name in full if name.split("/")[0] not in FORMATS} == set(bare) and len(bare) > 40
    known = json.loads(full["metadata.json"])
    assert metadata["splits"] == known["splits"]
    assert {**known["parameters"], "formats": []} == json.loads(bare["metadata.json"])["parameters"]
    assert all(data == full[name] for name, data in bare.items() if name != "metadata.json")


def test_another_seed_changes_every_picture(warehouse, tmp_path):
    make_warehouse(
        tmp_path / "other",
        scenes=1,
        val_scenes=0,
        test_scenes=0,
        seed=5,
        width=160,
        height=90,
        max_pallets=6,
        workers=1,
    )
    other = (tmp_path / "other/train/images/000000.png").read_bytes()
    assert other != (warehouse / "train/images/000000.png").read_bytes()


def test_published_fields_and_types(warehouse):
    for split in ("train", "val"):
        for record in records(warehouse, f"{split}.json"):
            assert set(record) == {
                "id",
                "image",
                "conversations",
                "rle",
                "category",
                "normalized_answer",
                "freeform_answer",
            }
            human, gpt = record["conversations"]
            assert (human["from"], gpt["from"]) == ("human", "gpt")
            assert gpt["value"] == record["freeform_answer"]
            assert type(record["normalized_answer"]) is TYPES[record["category"]]
            assert human["value"].count("<mask>") == len(record["rle"])
            assert all(rle["size"] == [90, 160] for rle in record["rle"])
            if record["category"] == "mcq":
                assert 0 <= int(record["normalized_answer"]) < len(record["rle"])


def test_test_records_hide_their_answers(warehouse):
    hidden, full = records(warehouse, "test.json"), records(warehouse, "test_answers.json")
    assert [record["id"] for record in hidden] == [record["id"] for record in full]
    for bare, record in zip(hidden, full):
        assert set(bare) == {"id", "image", "conversations", "rle"}
        assert bare["conversations"] == record["conversations"][:1]
        assert bare["rle"] == record["rle"] and bare["image"] == record["image"]


def test_region_captions_have_no_normalised_answer(warehouse):
    for record in records(warehouse, "val_regions.json"):
        assert record["category"] == "region_caption" and "normalized_answer" not in record


def test_ids_are_unique(warehouse):
    for name in ("train.json", "train_regions.json", "train_captions.json", "test_answers.json"):
        ids = [record["id"] for record in records(warehouse, name)]
        assert len(set(ids)) == len(ids) > 0


def test_the_readers_accept_all_of_it(warehouse):
    for split, scenes in (("train", 12), ("val", 3), ("test", 4)):
        assert 0 < len(read_warehouse(warehouse, split)) <= scenes
        if split != "test":
            regions = read_warehouse(warehouse, split, f"{split}_regions.json", CAPTION_CATEGORIES)
            assert len(regions) == scenes
            captions = read_captions(warehouse, f"{split}_captions.json", f"{split}/images")
            assert {p.image.name for p in captions} == {p.image.name for p in regions}
    answered = read_warehouse(warehouse, "test", "test_answers.json")
    assert {q.category for p in answered for q in p.questions} == set(WAREHOUSE_CATEGORIES)


def test_splits_share_no_picture(warehouse):
    names = [{p.name for p in (warehouse / split / "images").iterdir()} for split in ("train", "val", "test")]
    assert [len(n) for n in names] == [12, 3, 4]
    assert len(set.union(*names)) == 19
    pictures = {p.read_bytes() for split in ("train", "val", "test") for p in (warehouse / split / "images").iterdir()}
    assert len(pictures) == 19


def test_masks_are_the_rendered_ones(warehouse, written):
    _, rendering, regions, _ = draw_scene(written, "train", 0)
    image = np.asarray(Image.open(warehouse / "train/images/000000.png"))
    np.testing.assert_array_equal(image, rendering.rgb)
    expected = {region.counts: rendering.ids == region.thing.number for region in regions}
    picture = next(p for p in read_warehouse(warehouse, "train") if p.id == "000000")
    masks = {rle for q in picture.questions for rle in q.regions}
    assert masks
    for rle in masks:
        np.testing.assert_array_equal(decode(rle), expected[rle.counts.decode()])
        np.testing.assert_array_equal(coco.decode({"size": [90, 160], "counts": rle.counts}), decode(rle))


def test_pictures_have_the_published_format(warehouse):
    for picture in read_warehouse(warehouse, "val"):
        image, depth = Image.open(picture.image), Image.open(picture.depth)
        assert (image.size, image.mode, depth.size, depth.mode) == ((160, 90), "RGB", (160, 90), "L")
        grey = np.asarray(depth)
        assert grey.min() == 0 and grey.max() == 255
        # What is high up in the picture is mostly farther away.
        assert grey[:20].mean() > grey[-20:].mean()


def test_a_split_does_not_depend_on_the_size_of_another(warehouse, written, tmp_path):
    make_warehouse(tmp_path / "fewer", written, workers=1, scenes=1, val_scenes=0, formats=())
    before = [p.read_bytes() for p in sorted((warehouse / "test/images").iterdir())]
    assert [p.read_bytes() for p in sorted((tmp_path / "fewer/test/images").iterdir())] == before


def test_metadata_counts_what_was_written(warehouse):
    metadata = json.loads((warehouse / "metadata.json").read_text())
    assert metadata["parameters"]["seed"] == 4
    assert sum(metadata["splits"]["train"]["questions"].values()) == len(records(warehouse, "train.json"))
    assert metadata["splits"]["val"]["region_captions"] == len(records(warehouse, "val_regions.json"))


def test_metadata_has_the_distribution_of_the_answers(warehouse):
    metadata = json.loads((warehouse / "metadata.json").read_text())
    for split, name in (("train", "train.json"), ("val", "val.json"), ("test", "test_answers.json")):
        found, answers = metadata["splits"][split], {}
        for record in records(warehouse, name):
            answers.setdefault(record["category"], []).append(record["normalized_answer"])
        for category in ("left_right", "count", "mcq"):
            counts = found[f"{category}_answers"]
            assert counts == {str(answer): answers[category].count(answer) for answer in set(answers[category])}
            assert list(counts) == sorted(counts, key=lambda key: (len(key), key))
        metres, spread = answers["distance"], found["distance_metres"]
        assert spread["zeros"] == metres.count(0.0) and spread["largest"] == max(metres)
        np.testing.assert_allclose(spread["quartiles"], np.quantile(metres, (0.25, 0.5, 0.75)), atol=0.0051)


def test_the_command_tells_the_answers_and_the_formats(tmp_path, monkeypatch, capsys):
    arguments = ["--out", str(tmp_path / "new"), "--workers", "1", "--bench", "--appearance_variety", "0.5"]
    for name, value in (("scenes", 2), ("val_scenes", 0), ("test_scenes", 1), ("width", 96), ("height", 54)):
        arguments += [f"--{name}", str(value)]
    monkeypatch.setattr(sys, "argv", ["make_warehouse", *arguments])
    command.main()
    printed = capsys.readouterr().out
    metadata = json.loads((tmp_path / "new/metadata.json").read_text())
    assert metadata["parameters"]["appearance_variety"] == 0.5 and metadata["parameters"]["formats"] == ["bench"]
    left = metadata["splits"]["train"]["left_right_answers"].get("left", 0)
    assert f"left:{left}" in printed and "distance quartiles" in printed and "val: left_right 0" in printed
    assert f"bench: above_choice {metadata['formats']['bench']['above_choice']}," in printed


def test_a_terminated_command_ends_soon_and_leaves_nothing(tmp_path):
    """The processes finish what they are at, not all of 100,000 scenes."""
    size = ["--scenes=100000", "--width=64", "--height=36", "--workers=2"]
    command_line = [sys.executable, "-m", "launch.make_warehouse", f"--out={tmp_path / 'new'}", *size]
    process = subprocess.Popen(command_line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while not list(tmp_path.rglob("*.png")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM and list(tmp_path.iterdir()) == []
    assert printed.splitlines()[-1] == "interrupted; nothing was written" and "Traceback" not in printed


def test_an_existing_destination_is_refused(warehouse, written, tmp_path, monkeypatch):
    before = contents(warehouse)
    with pytest.raises(DataError, match="is not an empty folder; nothing was written"):
        make_warehouse(warehouse, written)
    monkeypatch.setattr(sys, "argv", ["make_warehouse", "--out", str(warehouse)])
    with pytest.raises(SystemExit, match="^error: .* is not an empty folder"):
        command.main()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not an empty folder"):
        make_warehouse(tmp_path / "file", written)
    assert contents(warehouse) == before


def test_a_warehouse_is_made_once_and_only_taken_for_its_own_parameters(tmp_path):
    config = WarehouseConfig(scenes=1, val_scenes=1, test_scenes=1, width=64, height=36)
    folder = tmp_path / "deep" / "warehouse"
    ensure_warehouse(folder, config)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.*")}
    ensure_warehouse(folder, config)
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.*")} == before
    with pytest.raises(DataError, match="other seed, width; give another folder"):
        ensure_warehouse(folder, dataclasses.replace(config, seed=1, width=80))
    for text in ('{"version": 1, "parameters": {}}', "[]", "{"):
        (folder / "metadata.json").write_text(text)
        with pytest.raises(DataError, match="metadata.json is not that of a warehouse of version"):
            ensure_warehouse(folder, config)


def test_a_failure_leaves_nothing(written, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(write, "_write_records", fail)
    with pytest.raises(CheckpointError, match="new could not be written, nothing was left behind: no space"):
        make_warehouse(tmp_path / "new", written, workers=1, scenes=1, val_scenes=0, test_scenes=0, formats=())
    assert list(tmp_path.iterdir()) == []


def test_a_threshold_that_nothing_passes_is_an_error():
    with pytest.raises(ValueError, match="scene 0 of val: none of"):
        draw_scene(WarehouseConfig(width=32, height=32, min_area=0.9), "val", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 9999}, "width is 9999"),
        ({"max_pallets": 2}, "max_pallets is 2, must be 4 to 10"),
        ({"scenes": -1}, "may be negative"),
        ({"mix": "odd"}, "mix 'odd'"),
        ({"captions": {"odd": 1}}, "1 captions of the kind 'odd'"),
        ({"captions": {"single": -1}}, "-1 captions of the kind 'single'"),
        ({"seed": -1}, "seed is -1"),
        ({"max_buffers": 0}, "max_buffers is 0"),
        ({"questions_per_picture": 0}, "must be positive"),
        ({"camera_variety": -0.1}, "camera_variety is -0.1, must be 0 to 1"),
        ({"appearance_variety": 1.1}, "appearance_variety is 1.1, must be 0 to 1"),
    ],
)
def test_impossible_parameters(written, change, message):
    with pytest.raises(ValueError, match=message):
        WarehouseConfig(**{**written.__dict__, **change})
