"""Estimated depth: what is made of a model's output, against the exact depth of procedural scenes, and a tiny model from end to end."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from eval.assist.estimated_depth import DEFAULT_MODEL, DepthModel, distances, model_named, writes_inverse
from smolrgpt_jax.data.images import depth_to_grey, upright_depth
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.warehouse.make_scene import draw_scene
from smolrgpt_jax.warehouse.parameters import WarehouseConfig

DECILES = np.arange(10, 100, 10)


@pytest.fixture(scope="module")
def depths() -> list[np.ndarray]:
    """The exact depth of procedural scenes, in metres."""
    config = WarehouseConfig(width=96, height=54, seed=77)
    return [draw_scene(config, "val", index)[1].depth for index in range(16)]


def grey(output: np.ndarray, inverse: bool) -> np.ndarray:
    """What the encoder is given."""
    return np.asarray(upright_depth(distances(output, inverse))).astype(int)


def test_inverse_depth_of_any_scale_and_shift_keeps_the_order(depths):
    for depth, scale, shift in zip(depths, (0.01, 1, 30, 500), (0, -0.2, 4, 100)):
        found = grey(scale / depth + shift, inverse=True)
        assert (np.diff(found.ravel()[depth.argsort(axis=None)]) >= 0).all()
        assert found.min() == 0 and found.max() == 255
        assert abs(found - grey(1 / depth, inverse=True)).max() <= 1


def test_deciles_of_inverse_depth_come_near_the_truth(depths):
    def error(found, depth):
        return abs(np.percentile(found, DECILES) - np.percentile(depth_to_grey(depth), DECILES)).mean() / 255

    ours = [error(grey(1 / depth, inverse=True), depth) for depth in depths]
    plain = [error(255 - depth_to_grey(1 / depth), depth) for depth in depths]
    assert np.mean(ours) < 0.1 and max(ours) < 0.3
    assert np.mean(plain) > 2 * np.mean(ours)


def test_metric_depth_is_scaled_as_that_of_a_camera(depths):
    assert np.array_equal(grey(depths[0], inverse=False), depth_to_grey(depths[0]))


def test_a_picture_of_one_distance_is_one_grey():
    assert not grey(np.full((3, 4), 2.5), inverse=True).any()


def test_the_example_of_the_docstring():
    assert grey(np.array([[9, 5, 1.0]]), inverse=True).tolist() == [[0, 51, 255]]


def test_the_configuration_tells_inverse_depth_from_distances():
    kind = {"model_type": "depth_anything"}
    assert writes_inverse(kind, "m") and writes_inverse(kind | {"depth_estimation_type": "relative"}, "m")
    assert not writes_inverse(kind | {"depth_estimation_type": "metric"}, "m")
    with pytest.raises(DataError, match="depth model 'm' is of the type dpt, expected one of the type depth_anything"):
        writes_inverse({"model_type": "dpt"}, "m")


def test_what_is_estimated_by_which_model():
    assert model_named("estimate") == DEFAULT_MODEL and model_named("estimate:some/model") == "some/model"
    assert model_named(None) is None and model_named("depths/estimate.png") is None


def test_a_model_is_run_and_its_output_turned_round(tiny_depth_model, tmp_path):
    import torch
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    pixels = np.random.default_rng(0).integers(0, 256, (60, 96, 3), np.uint8)
    found = DepthModel(str(tiny_depth_model)).estimate(pixels)
    assert found.shape == (60, 96) and found.dtype == np.float32 and np.ptp(found) > 0.5
    with torch.no_grad():
        given = AutoImageProcessor.from_pretrained(tiny_depth_model)(
            images=Image.fromarray(pixels), return_tensors="pt"
        )
        output = AutoModelForDepthEstimation.from_pretrained(tiny_depth_model)(**given).predicted_depth[0].numpy()
    expected = np.asarray(Image.fromarray(output).resize((96, 60), Image.Resampling.BILINEAR))
    assert found.argmin() == expected.argmax() and found.argmax() == expected.argmin()
    assert np.corrcoef(1 / found.ravel(), expected.ravel())[0, 1] > 0.999
    Image.fromarray(pixels).resize((2000, 1300)).save(tmp_path / "large.png")
    assert DepthModel(str(tiny_depth_model)).estimate(tmp_path / "large.png").shape == (666, 1024)


def test_models_that_cannot_be_used_are_told(tiny_depth_model, tmp_path):
    with pytest.raises(DataError, match="depth model './none' cannot be loaded"):
        DepthModel("./none")
    (tmp_path / "config.json").write_text((tiny_depth_model / "config.json").read_text())
    with pytest.raises(DataError, match=f"depth model '{tmp_path}' cannot be loaded"):
        DepthModel(str(tmp_path))
    from safetensors.numpy import load_file, save_file

    tensors = load_file(tiny_depth_model / "model.safetensors")
    del tensors["head.conv3.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "preprocessor_config.json").write_text((tiny_depth_model / "preprocessor_config.json").read_text())
    with pytest.raises(DataError, match="lacks 1 tensors, among them head.conv3.weight"):
        DepthModel(str(tmp_path))
    with pytest.raises(DataError, match="130x30 pixels is too long and thin"):
        DepthModel(str(tiny_depth_model)).estimate(np.zeros((30, 130, 3), np.uint8))


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ImportError, match=r"needs the package torch: pip install -e '\.\[assist\]'; or .* without <mask>"
    ):
        DepthModel()
