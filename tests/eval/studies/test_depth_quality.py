"""Depth made worse in steps: what each step does to a depth picture, and that the study asks them all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from eval.studies import answered, findings
from eval.studies.__main__ import main
from eval.studies.depth_quality import STEPS, blurred, estimated, from_inverse, noisy, quantised
from smolrgpt_jax.data.images import upright_depth


@pytest.fixture
def files(tmp_path):
    """A picture and its depth, a ramp of all greys."""
    ramp = np.tile(np.arange(256, dtype=np.uint8), (40, 1))
    Image.new("RGB", (256, 40)).save(tmp_path / "picture.png")
    Image.fromarray(ramp).save(tmp_path / "depth.png")
    return tmp_path / "picture.png", tmp_path / "depth.png"


def made(change, files, seed: int = 0) -> np.ndarray:
    """What the encoder would be given, int[H, W]."""
    return np.asarray(upright_depth(change(*files, np.random.default_rng(seed)))).astype(int)


@pytest.mark.parametrize("levels", [64, 16, 4])
def test_levels_are_so_many_and_at_most_half_a_step_off(files, levels):
    found, exact = made(quantised(levels), files), np.asarray(Image.open(files[1])).astype(int)
    assert len(np.unique(found)) == levels and found.min() == 0 and found.max() == 255
    assert abs(found - exact).max() <= 255 / (levels - 1) / 2 + 0.5


def test_noise_is_of_the_size_that_is_said_and_its_draws_of_the_seed(files):
    flat = files[0].with_name("flat.png")
    Image.new("L", (256, 40), 128).save(flat)
    noise = {deviation: made(noisy(deviation), (files[0], flat)) - 128 for deviation in (4, 16)}
    assert all(abs(noise[deviation].std() / deviation - 1) < 0.05 for deviation in noise)
    assert np.corrcoef(noise[4].ravel(), noise[16].ravel())[0, 1] > 0.99
    assert np.array_equal(made(noisy(64), files), made(noisy(64), files))
    assert not np.array_equal(made(noisy(64), files), made(noisy(64), files, seed=1))


def test_blur_spreads_an_edge_over_its_share_of_the_picture(files):
    Image.fromarray(np.uint8(255) * (np.asarray(Image.open(files[1])) >= 128)).save(files[1])
    found = made(blurred(0.04), files)[20]
    for deviations, share in (
        (-2, 0.023),
        (-1, 0.159),
        (1, 0.841),
        (2, 0.977),
    ):  # of 10 pixels: the normal distribution
        assert abs(found[round(127.5 + 10.24 * deviations)] / 255 - share) < 0.03


def test_inverse_depth_at_the_assumed_ratio_is_exact_and_at_others_bent_to_either_side(files):
    assert abs(made(from_inverse(4), files) - np.asarray(Image.open(files[1])).astype(int)).max() <= 1
    for name, value in (("inverse of 2 to 1", 85), ("inverse of 11 to 1", 187)):
        found = made(STEPS[name], files)[0]
        assert (np.diff(found) >= 0).all() and (found[0], found[-1]) == (0, 255) and abs(found[128] - value) <= 1


def test_near_bright_and_no_depth(files):
    assert made(STEPS["near is bright"], files)[0].tolist() == list(range(255, -1, -1))
    assert np.unique(made(STEPS["none"], files)).tolist() == [128]


class Mean:
    """A model that takes the brightness of a picture for its distance."""

    def estimate(self, picture):
        return np.asarray(Image.open(picture).convert("L")).astype(np.float32) + 1


def test_an_estimate_is_of_the_picture(files):
    values = np.tile(np.arange(255, -1, -1, dtype=np.uint8), (40, 1))
    Image.fromarray(values).convert("RGB").save(files[0])
    assert np.array_equal(made(estimated(Mean()), files), values)


def test_the_study_asks_the_same_questions_with_every_depth(warehouse, tmp_path, monkeypatch, loaded_model):
    depths, questions = [], []

    def answer_all(model, pictures, *rest):
        depths.append(np.asarray(Image.open(pictures[0].depth)))
        questions.append([question.id for picture in pictures for question in picture.questions])
        return ["The pallet [Region 0] is to the left."] * len(questions[-1])

    steps = answered.STUDIES["depth_quality"]
    assert list(steps) == ["exact depth", *STEPS]
    few = {name: steps[name] for name in ("exact depth", "4 levels")}
    monkeypatch.setitem(answered.STUDIES, "depth_quality", few)
    monkeypatch.setattr(findings, "answer_questions", answer_all)
    monkeypatch.setattr("eval.studies.__main__.DepthModel", lambda name: Mean() if name == "some/model" else None)
    where = ["--checkpoint", "x", "--data", str(warehouse), "--out", str(tmp_path / "out")]
    main(["depth_quality", *where, "--depth_model", "some/model"])
    assert [np.unique(depth).tolist() for depth in depths] == [[128], [170], [0]]
    assert len(questions[0]) == 28 and questions == [questions[0]] * 3
    written = json.loads((tmp_path / "out/study.json").read_text())
    assert list(written["differences"]) == ["4 levels", "estimated"]
    assert written["differences"]["4 levels"]["left_right"] == {"value": 0, "interval": [0, 0]}


def test_a_plot_has_room_for_all_steps(tmp_path):
    names = ["exact depth", *STEPS, answered.ESTIMATED]
    findings.plot({name: {"S1": (place + 0.0, None)} for place, name in enumerate(names)}, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert all(f">{name}<" in drawn for name in names)


def test_a_depth_model_that_cannot_be_loaded_is_told_before_anything_is_written(warehouse, tmp_path, loaded_model):
    pytest.importorskip("torch")
    where = ["--checkpoint", "x", "--data", str(warehouse), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="depth model './none' cannot be loaded"):
        main(["depth_quality", *where, "--depth_model", "./none"])
    assert not (tmp_path / "out").exists()
