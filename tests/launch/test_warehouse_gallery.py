"""The contact sheet of a warehouse."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from launch import warehouse_gallery as gallery
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.warehouse.write import make_warehouse


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery") / "data"
    make_warehouse(folder, workers=1, scenes=5, val_scenes=0, test_scenes=2, width=160, height=90, max_pallets=6)
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["warehouse_gallery", *map(str, arguments)])
    gallery.main()


@pytest.mark.parametrize(("split", "scenes", "rows"), [("train", 5, 3), ("train", 1, 1), ("test", 9, 1)])
def test_the_sheet_holds_every_picture_with_its_depth(data, tmp_path, monkeypatch, split, scenes, rows):
    out = tmp_path / "new" / "sheet.png"
    run(monkeypatch, "--data", data, "--split", split, "--out", out, "--scenes", scenes)
    sheet = np.asarray(Image.open(out)).astype(int)
    width, gap = gallery.WIDTH, gallery.GAP
    assert sheet.shape[1] == 2 * (2 * width + gap) + gap
    assert rows * 360 < sheet.shape[0] < rows * (360 + 160)
    # The first tile: the RGB picture, tinted where regions are, and beside it the grey depth.
    pictures = read_warehouse(data, split, "test_answers.json" if split == "test" else None)
    with Image.open(pictures[0].image) as image:
        plain = np.asarray(image.resize((width, 360), Image.Resampling.LANCZOS)).astype(int)
    shown, depth = (sheet[gap : gap + 360, gap : gap + width], sheet[gap : gap + 360, gap + width : gap + 2 * width])
    same = np.abs(shown - plain).max(-1) == 0
    assert 0.3 < same.mean() < 1
    assert (np.ptp(depth, axis=-1) == 0).mean() > 0.3
    assert list(out.parent.iterdir()) == [out]


def test_categories_take_turns(data):
    pairs = gallery.chosen(read_warehouse(data, "train"), 5)
    assert len(pairs) == 5 and len({question.category for _, question in pairs}) >= 3
    assert all(question in picture.questions for picture, question in pairs)


def test_a_test_split_without_answers_can_be_shown(data, tmp_path, monkeypatch):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "test").symlink_to(data / "test")
    (bare / "test.json").write_bytes((data / "test.json").read_bytes())
    run(monkeypatch, "--data", bare, "--split", "test", "--out", tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size[0] > 0


@pytest.mark.parametrize("case", ["no scenes", "missing", "empty", "broken picture"])
def test_bad_input_is_one_sentence_and_leaves_nothing(data, tmp_path, monkeypatch, case):
    folder, scenes, message = data, 3, ""
    if case == "no scenes":
        scenes, message = 0, "0 scenes are too few"
    elif case == "missing":
        folder, message = tmp_path / "nowhere", "nowhere/train.json: cannot be read"
    else:
        folder = tmp_path / "copy"
        for kind in ("images", "depths"):
            (folder / "train" / kind).mkdir(parents=True)
            for file in (data / "train" / kind).iterdir():
                (folder / "train" / kind / file.name).write_bytes(file.read_bytes())
        records = json.loads((data / "train.json").read_text())
        if case == "empty":
            records, message = [], "has no questions in the split train"
        else:
            file = folder / "train/depths" / records[0]["image"].replace(".png", "_depth.png")
            file.write_bytes(file.read_bytes()[:50])
            message = f"picture {file} is truncated or corrupt"
        (folder / "train.json").write_text(json.dumps(records))
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "--data", folder, "--out", tmp_path / "out" / "sheet.png", "--scenes", scenes)
    assert str(caught.value).startswith("error: ") and message in str(caught.value)
    assert not (tmp_path / "out" / "sheet.png").exists()


@pytest.mark.parametrize("name", ["sheet", "sheet.txt", "sheet.pdf.gz"])
def test_a_name_of_no_picture_is_refused_first(tmp_path, monkeypatch, name):
    with pytest.raises(SystemExit, match="is not the suffix of a picture format that can be written"):
        run(monkeypatch, "--data", tmp_path / "nowhere", "--out", tmp_path / name)


def test_the_suffix_says_the_format(data, tmp_path, monkeypatch):
    run(monkeypatch, "--data", data, "--out", tmp_path / "sheet.jpg", "--scenes", 1)
    assert Image.open(tmp_path / "sheet.jpg").format == "JPEG"
