"""Masks of clicks and boxes by a tiny SAM 2 of random weights, from end to end."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest

from eval.assist.segmented import Segmenter, read_clicks
from smolrgpt_jax.data.masks import box_mask, decode, encode
from smolrgpt_jax.errors import DataError

CLICKS = [(10.0, 20.0), (70.5, 40.0)]
BOX = encode(box_mask((20, 10, 80, 50), 60, 96))


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def segmenter(tiny_segmenter) -> Segmenter:
    return Segmenter(str(tiny_segmenter))


def test_clicks_and_boxes_become_masks_of_the_picture_that_differ(segmenter, pixels):
    found = segmenter.segment(pixels, CLICKS, [BOX])
    masks = [decode(region).astype(bool) for region in found]
    assert [mask.shape for mask in masks] == [(60, 96)] * 3 and len(set(found)) == 3
    assert all(mask.any() and not mask.all() for mask in masks)
    inside = decode(BOX).astype(bool)
    assert not (masks[2] & ~inside).any() and masks[2].sum() < inside.sum()


def test_masks_are_the_same_every_time_in_any_company_and_of_the_picture(segmenter, tiny_segmenter, pixels):
    found = segmenter.segment(pixels, CLICKS, [BOX])
    assert Segmenter(str(tiny_segmenter)).segment(pixels, CLICKS, [BOX]) == found
    assert segmenter.segment(pixels, CLICKS[1:]) == found[1:2] and segmenter.segment(pixels, boxes=[BOX]) == found[2:]
    assert segmenter.segment(pixels[::-1].copy(), CLICKS, [BOX]) != found


def test_the_model_is_given_pixels_and_prompts_as_its_own_processor_gives_them(segmenter, pixels, monkeypatch):
    import torch

    seen = []
    own = segmenter._network.get_image_embeddings
    monkeypatch.setattr(
        segmenter._network, "get_image_embeddings", lambda values: (seen.append(values), own(values))[1]
    )
    forward = segmenter._network.forward
    monkeypatch.setattr(segmenter._network, "forward", lambda **given: (seen.append(given), forward(**given))[1])
    segmenter.segment(pixels, CLICKS[1:], [BOX])
    values, click, box = seen
    assert values.shape == (1, 3, 64, 64) and values.dtype == torch.float32
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    back = values[0].permute(1, 2, 0) * deviation + mean
    assert abs(back.mean() - pixels.mean() / 255) < 0.01 and 0 <= back.min() and back.max() <= 1
    assert torch.allclose(click["input_points"], torch.tensor([[[[70.5 * 64 / 96, 40 * 64 / 60]]]]))
    corners = [20 * 64 / 96, 10 * 64 / 60, 80 * 64 / 96, 50 * 64 / 60]
    assert torch.allclose(box["input_boxes"], torch.tensor([[corners]]))
    assert click["multimask_output"] and not box["multimask_output"]


def test_of_several_masks_the_one_that_the_model_holds_for_best_is_taken(segmenter, pixels, monkeypatch):
    import torch

    def forward(**given):
        masks = torch.full((1, 1, 3, 16, 16), -1.0)
        masks[0, 0, 1, :, 8:] = 1
        return type("Output", (), {"pred_masks": masks, "iou_scores": torch.tensor([[[0.2, 0.9, 0.3]]])})

    monkeypatch.setattr(segmenter._network, "forward", forward)
    (right,) = segmenter.segment(pixels, CLICKS[:1])
    assert decode(right).tolist() == box_mask((48, 0, 96, 60), 60, 96).tolist()


def test_where_nothing_is_found_a_click_is_told_and_a_box_stays(segmenter, pixels, monkeypatch):
    import torch

    nothing = {"pred_masks": torch.full((1, 1, 3, 16, 16), -1.0), "iou_scores": torch.zeros((1, 1, 3))}
    monkeypatch.setattr(segmenter._network, "forward", lambda **given: type("Output", (), nothing))
    assert segmenter.segment(pixels, boxes=[BOX]) == (BOX,)
    empty = encode(np.zeros((60, 96), np.uint8))
    assert segmenter.segment(pixels, boxes=[empty]) == (empty,)
    with pytest.raises(DataError, match="finds nothing at the click 70.5,40$"):
        segmenter.segment(pixels, CLICKS[1:])


@pytest.mark.parametrize(
    "click", [(96, 5), (5, 60), (-0.5, 5), (5,), (1, 2, 3), "12", ("a", "b"), (float("nan"), 1), 7]
)
def test_clicks_outside_of_the_picture_are_refused(click):
    with pytest.raises(DataError, match="^click .* is not x,y inside the picture of 96x60 pixels$"):
        read_clicks([(0, 0), click], (60, 96))


def test_clicks_are_numbers_or_texts_in_the_picture():
    assert read_clicks([(0, 0), ["95.5", " 59"]], (60, 96)) == [(0, 0), (95.5, 59)]


def test_models_that_cannot_be_used_are_told(tiny_segmenter, tmp_path):
    from safetensors.numpy import load_file, save_file

    with pytest.raises(DataError, match="segmenter './none' cannot be loaded"):
        Segmenter("./none")
    config = json.loads((tiny_segmenter / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "sam"}))
    with pytest.raises(DataError, match="is of the type sam, expected sam2 or sam2_video"):
        Segmenter(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = load_file(tiny_segmenter / "model.safetensors")
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="cannot be loaded"):  # a pickle
        Segmenter(str(tmp_path))
    del tensors["mask_decoder.conv_s0.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="lacks 1 tensors, among them mask_decoder.conv_s0.weight"):
        Segmenter(str(tmp_path))


def test_the_published_kind_of_weights_which_also_follow_videos_gives_the_same_masks(tiny_segmenter, tmp_path, pixels):
    from safetensors.numpy import load_file, save_file

    shutil.copyfile(tiny_segmenter / "config.json", tmp_path / "config.json")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "sam2_video"}))
    tensors = load_file(tiny_segmenter / "model.safetensors")
    more = {"memory_temporal_positional_encoding": np.zeros((7, 1, 1, 8), np.float32)}
    save_file(tensors | more, tmp_path / "model.safetensors", {"format": "pt"})
    expected = Segmenter(str(tiny_segmenter)).segment(pixels, CLICKS, [BOX])
    assert Segmenter(str(tmp_path)).segment(pixels, CLICKS, [BOX]) == expected


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ImportError, match=r"segmenting needs the package torch: pip install -e '\.\[assist\]'; or mark"
    ):
        Segmenter("any/model")
