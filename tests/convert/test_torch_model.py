"""The live PyTorch model against the golden files, which the PyTorch release itself wrote."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file, save_file

from convert.torch_model import left_padded, load_torch, random_torch
from smolrgpt_jax.checkpoint.torch import read_folder
from smolrgpt_jax.errors import CheckpointError

MODULE_TOLERANCE = 1e-5
LOGITS_TOLERANCE = 1e-4


def difference(ours, theirs) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(np.float64) - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def model(golden):
    return load_torch(golden.folder)


@pytest.fixture(scope="module")
def forward(golden, model):
    return model.forward(
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
def test_intermediate_equals_golden(golden, forward, name):
    assert difference(forward[name], golden.outputs[name]) <= MODULE_TOLERANCE


def test_logits_equal_golden(golden, forward):
    ours, theirs = forward["logits"][golden.valid], golden.outputs["logits"][golden.valid]
    assert difference(ours, theirs) <= LOGITS_TOLERANCE


def test_rgb_only_logits_equal_golden(golden, model):
    out = model.forward(golden.outputs["rgb_only_ids"], golden.inputs["attention_mask"], golden.images)
    ours, theirs = out["logits"][golden.valid], golden.outputs["rgb_only_logits"][golden.valid]
    assert difference(ours, theirs) <= LOGITS_TOLERANCE
    assert "region_rgb" not in out


def test_loss_and_gradients_equal_golden(golden, model):
    import torch

    model.network.zero_grad()
    out = model.outputs(
        golden.inputs["input_ids"], golden.inputs["attention_mask"], golden.images, golden.depths, golden.masks
    )
    labels = torch.tensor(golden.inputs["labels"], dtype=torch.int64)
    loss = torch.nn.functional.cross_entropy(out["logits"].flatten(0, 1), labels.flatten())
    loss.backward()
    np.testing.assert_allclose(loss.item(), golden.outputs["loss"], rtol=1e-5)
    gradients = model.gradients()
    if "decoder.head.weight" in gradients:
        gradients["decoder.token_embedding.weight"] = gradients["decoder.head.weight"]
    for name, expected in golden.grads("sft").items():
        assert difference(gradients[name], expected) <= 1e-4, name
    model.network.zero_grad()


def test_greedy_tokens_equal_golden(golden, model):
    expected = golden.outputs["greedy_ids"]
    ids = model.generate(
        golden.outputs["prompt_ids"],
        golden.outputs["prompt_attention_mask"],
        golden.images,
        golden.depths,
        golden.masks,
        max_new_tokens=expected.shape[1],
    )
    np.testing.assert_array_equal(ids, expected)


def test_saving_gives_back_the_golden_tensors(golden, model, tmp_path):
    model.save(tmp_path / "copy")
    ours, theirs = (load_file(f / "model.safetensors") for f in (tmp_path / "copy", golden.folder))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        np.testing.assert_array_equal(ours[name], expected, err_msg=name)
    _, _, ours = read_folder(tmp_path / "copy")
    _, _, theirs = read_folder(golden.folder)
    assert ours.metadata == theirs.metadata
    with pytest.raises(CheckpointError, match="exists already"):
        model.save(tmp_path / "copy")


def test_a_sharded_folder_is_read(golden, forward, tmp_path):
    tensors = load_file(golden.folder / "model.safetensors")
    parts = {"a.safetensors": sorted(tensors)[::2], "b.safetensors": sorted(tensors)[1::2]}
    for file, names in parts.items():
        save_file({n: tensors[n] for n in names}, tmp_path / file)
    weight_map = {n: file for file, names in parts.items() for n in names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (tmp_path / "config.json").write_text((golden.folder / "config.json").read_text())
    out = load_torch(tmp_path).forward(
        golden.inputs["input_ids"], golden.inputs["attention_mask"], golden.images, golden.depths, golden.masks
    )
    np.testing.assert_array_equal(out["logits"], forward["logits"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("MP.proj.weight"), "missing MP.proj.weight"),
        (lambda t: t.update(extra=np.zeros(2, np.float32)), "unexpected extra"),
        (lambda t: t.update({"decoder.norm.weight": np.zeros(7, np.float32)}), "norm.weight has shape"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_a_folder_that_does_not_fit_is_refused(golden, tmp_path, change, message):
    tensors = load_file(golden.folder / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((golden.folder / "config.json").read_text())
    with pytest.raises(CheckpointError, match=message):
        load_torch(tmp_path)


def test_an_unreadable_file_is_refused(golden, tmp_path):
    (tmp_path / "config.json").write_text((golden.folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_torch(tmp_path)


def test_more_mask_tokens_than_regions_names_the_row(golden, model):
    masks = [*golden.masks[:2], golden.masks[2][..., :1], golden.masks[3]]
    with pytest.raises(ValueError, match="row 2 has 4 tokens 513 but only 1"):
        model.forward(golden.inputs["input_ids"], golden.inputs["attention_mask"], golden.images, golden.depths, masks)


def test_random_weights_are_those_of_the_seed(golden):
    config = golden.model.config
    first, again, other = (random_torch(config, seed).parameters_by_name() for seed in (0, 0, 1))
    for name, parts in first.items():
        assert all((a == b).all() for a, b in zip(parts, again[name])), name
        assert all((a != b).any() for a, b in zip(parts, other[name])), name


def test_without_pytorch_the_error_says_what_to_install(golden, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[torch\]'"):
        load_torch(golden.folder)


def test_prompts_are_padded_on_the_left():
    ids, mask = left_padded([np.array([5]), np.array([6, 7])], pad=9, length=3)
    assert ids.tolist() == [[9, 9, 5], [9, 6, 7]] and mask.tolist() == [[0, 0, 1], [0, 1, 1]]
