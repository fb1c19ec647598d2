"""Longformer folders of transformers, read and written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.router.hf_folder import longformer_config_values, read_longformer, write_longformer
from tests.router.longformer_reference import random_classifier

LABELS = ("left_right", "count", "mcq")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("longformer") / "saved"
    random_classifier(
        0, num_labels=3, id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)}
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copied"))


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_that_transformers_saved_is_written_back_byte_for_byte(saved, tmp_path):
    config, params, values = read_longformer(saved)
    write_longformer(tmp_path / "out", config, params, values, {"tokenizer.json": "{}"})
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (saved / name).read_bytes()
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert config.labels == LABELS


def test_transformers_reads_the_described_configuration_as_its_own(saved):
    config, _, _ = read_longformer(saved)
    theirs = transformers.LongformerConfig(**longformer_config_values(config))
    assert theirs.id2label == dict(enumerate(LABELS))
    own = json.loads((saved / "config.json").read_text())
    assert {n: own[n] for n in longformer_config_values(config)} == longformer_config_values(config)


def test_every_tensor_that_does_not_fit_is_listed(copied):
    tensors = load_file(copied / "model.safetensors")
    tensors["extra"] = np.zeros(3, np.float32)
    del tensors["classifier.dense.bias"]
    tensors["longformer.encoder.layer.1.output.dense.weight"] = np.zeros((24, 41), np.float32)
    save_file(tensors, copied / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        read_longformer(copied)
    message = str(error.value)
    assert "unexpected extra [3]" in message
    assert "missing classifier.dense.bias [24]" in message
    assert "output.dense.weight has shape [24, 41], config.json asks for [24, 40]" in message


def test_more_labels_than_the_head_has_are_refused(copied):
    change_config(copied, id2label={"0": "left_right", "1": "count", "2": "mcq", "3": "distance"})
    with pytest.raises(CheckpointError, match=r"classifier.out_proj.weight has shape \[3, 24\].*\[4, 24\]"):
        read_longformer(copied)


def test_infinite_weights_are_named(copied):
    tensors = load_file(copied / "model.safetensors")
    tensors["classifier.out_proj.bias"][1] = np.inf
    save_file(tensors, copied / "model.safetensors")
    with pytest.raises(CheckpointError, match="classifier.out_proj.bias holds NaN or infinite"):
        read_longformer(copied)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "bert"}, "'bert' is no Longformer"),
        ({"attention_window": [8, 16]}, "differs between layers"),
        ({"attention_window": 7}, "window 7 is odd"),
        ({"attention_window": []}, "window is None, expected a whole number"),
        ({"hidden_act": "relu"}, "only gelu"),
        ({"hidden_size": "wide"}, "width is 'wide', expected a whole number"),
        ({"id2label": {"1": "count"}}, "id2label"),
        ({"id2label": ["count"]}, "id2label"),
        ({"id2label": None, "num_labels": 10**12}, "num_labels is 1000000000000"),
        ({"id2label": None, "num_labels": "two"}, "num_labels is 'two'"),
        ({"num_hidden_layers": 10**9}, "layers is 1000000000, expected a number above 0, at most 1000"),
    ],
)
def test_a_configuration_that_is_no_longformer_of_ours_is_refused(copied, changes, message):
    change_config(copied, **changes)
    with pytest.raises(CheckpointError, match=message):
        read_longformer(copied)


def test_folders_without_model_and_with_pickles_only_are_refused(copied, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_longformer(tmp_path)
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle, which is never loaded"):
        read_longformer(copied)


def test_the_encoder_of_a_language_model_is_read_without_its_head(tmp_path):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 20,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "attention_window": 4,
    }
    model = transformers.LongformerForMaskedLM(transformers.LongformerConfig(**sizes, max_position_embeddings=12))
    model.save_pretrained(tmp_path / "mlm")
    with pytest.raises(CheckpointError, match="missing classifier.dense.weight"):
        read_longformer(tmp_path / "mlm")
    _, params, _ = read_longformer(tmp_path / "mlm", encoder_only=True)
    assert not any(name.startswith("head_") for name in params)
    wanted = model.longformer.encoder.layer[0].intermediate.dense.weight.detach().numpy()
    assert np.array_equal(params["encoder/blocks/fc1/kernel"][0], wanted.T)


def test_a_folder_that_exists_is_not_written_over(saved, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError, match="exists already"):
        write_longformer(tmp_path / "out", *read_longformer(saved), {})
