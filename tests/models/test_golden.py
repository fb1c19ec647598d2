"""The model against the PyTorch release: intermediates, logits, losses, greedy tokens."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from smolrgpt_jax.config import Compute
from smolrgpt_jax.models.smolrgpt import bind, loss_sums

MODULE_TOLERANCE = 1e-5
LOGITS_TOLERANCE = 1e-4


def difference(ours, theirs) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(np.float64) - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def forward(golden):
    return golden.model.forward(
        golden.inputs["input_ids"], golden.inputs["attention_mask"], golden.images, golden.depths, golden.masks
    )


@pytest.mark.parametrize(
    "name",
    [
        "vision_features_rgb",
        "vision_features_depth",
        "image_tokens",
        "depth_tokens",
        "rgb_refined",
        "depth_refined",
        "region_rgb",
        "region_depth",
    ],
)
def test_intermediate_equals_pytorch(golden, forward, name):
    assert difference(forward[name], golden.outputs[name]) <= MODULE_TOLERANCE


def test_logits_equal_pytorch(golden, forward):
    ours, theirs = forward["logits"][golden.valid], golden.outputs["logits"][golden.valid]
    assert np.abs(ours - theirs).max() <= LOGITS_TOLERANCE * np.abs(theirs).max()


def test_losses_equal_pytorch(golden, forward):
    sums, counts = loss_sums(forward["logits"], golden.inputs["labels"])
    np.testing.assert_allclose(sums / counts, golden.outputs["loss_per_sample"], rtol=1e-5)
    np.testing.assert_allclose(sums.sum() / counts.sum(), golden.outputs["loss"], rtol=1e-5)


def test_rgb_only_logits_equal_pytorch(golden):
    out = golden.model.forward(golden.outputs["rgb_only_ids"], golden.inputs["attention_mask"], golden.images)
    assert difference(out["logits"][golden.valid], golden.outputs["rgb_only_logits"][golden.valid]) <= LOGITS_TOLERANCE
    assert "region_rgb" not in out


def test_greedy_tokens_equal_pytorch(golden):
    prompt, mask = golden.outputs["prompt_ids"], golden.outputs["prompt_attention_mask"]
    ids = golden.model.generate(
        prompt, mask, golden.images, golden.depths, golden.masks, max_new_tokens=golden.outputs["greedy_ids"].shape[1]
    )
    np.testing.assert_array_equal(ids, golden.outputs["greedy_ids"])


@pytest.mark.parametrize("changes", [{"scan_layers": True}, {"remat": "full"}, {"remat": "dots"}], ids=str)
def test_scanned_and_rematerialised_layers_give_the_same_logits(golden, forward, changes):
    batch = golden.batch()
    config, compute = golden.model.config, golden.model.compute.replace(**changes)
    logits = jax.jit(lambda p, b: bind(config, p, compute)(b)["logits"])(golden.model.params, batch)
    ours = np.asarray(logits)[..., : config.decoder.vocab_size][golden.valid]
    assert difference(ours, forward["logits"][golden.valid]) <= 1e-6


def test_bfloat16_stays_close(golden, forward):
    config, compute = golden.model.config, Compute(dtype="bfloat16")
    logits = jax.jit(lambda p, b: bind(config, p, compute)(b)["logits"])(golden.model.params, golden.batch())
    ours = np.asarray(logits, np.float32)[..., : config.decoder.vocab_size][golden.valid]
    theirs = forward["logits"][golden.valid]
    assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 0.03


def test_padded_vocabulary_can_never_be_chosen(golden):
    config = golden.model.config
    assert config.decoder.padded_vocab_size > config.decoder.vocab_size
    logits = np.asarray(bind(config, golden.model.params)(golden.batch())["logits"])
    assert logits[..., config.decoder.vocab_size :].max() < logits[..., : config.decoder.vocab_size].min() - 1e6


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda call: call["input_ids"].__setitem__((2, 5), 9999), "row 2 has the id 9999, the vocabulary is of 515"),
        (lambda call: call["input_ids"].__setitem__((1, 0), -1), "row 1 has the id -1"),
        (lambda call: call["masks"].__setitem__(1, np.ones((8, 8))), r"masks of row 1 have shape \(8, 8\)"),
        (lambda call: call["masks"].__setitem__(3, np.ones((0, 8, 2))), "masks of row 3 have shape"),
        (lambda call: call["masks"].__setitem__(2, None), "row 2 has 4 RGB region tokens but only 0"),
        (
            lambda call: call.update({name: value[:0] for name, value in call.items()}),
            r"input_ids \(0, [0-9]+\) holds no token",
        ),
    ],
)
def test_bad_rows_are_named(golden, change, message):
    call = {
        "input_ids": golden.inputs["input_ids"].copy(),
        "attention_mask": golden.inputs["attention_mask"],
        "images": golden.images,
        "depths": golden.depths,
        "masks": list(golden.masks),
    }
    change(call)
    for use in (golden.model.forward, golden.model.generate, golden.model.stream):
        with pytest.raises(ValueError, match=message):
            use(**call)


def test_a_row_without_masks_has_no_regions(golden):
    region = golden.model.config.decoder.vocab_size - 2
    ids = golden.inputs["input_ids"].copy()
    ids[1] = np.where(ids[1] >= region, 5, ids[1])
    rest = (golden.inputs["attention_mask"], golden.images, golden.depths)
    empty = [golden.masks[0], golden.masks[1][..., :0], *golden.masks[2:]]
    bare = [golden.masks[0], None, *golden.masks[2:]]
    expected, found = (golden.model.forward(ids, *rest, masks) for masks in (empty, bare))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_more_mask_tokens_than_regions_names_the_row(golden):
    masks = [*golden.masks[:2], golden.masks[2][..., :1], golden.masks[3]]
    with pytest.raises(ValueError, match="row 2 has 4 RGB region tokens but only 1"):
        golden.model.forward(
            golden.inputs["input_ids"], golden.inputs["attention_mask"], golden.images, golden.depths, masks
        )
