"""The golden checkpoint with a tokenizer that fits it, and its export."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from launch.train_tokenizer import train_tokenizer
from smolrgpt_jax.export.folder import write_export
from smolrgpt_jax.export.onnx_folder import OnnxSettings, write_onnx_export
from smolrgpt_jax.export.programs import ExportSettings
from smolrgpt_jax.model import Model

PROMPT_TOKENS, REGIONS, NEW_TOKENS = 96, 4, 24


@pytest.fixture(scope="session")
def small_tokenizer():
    """515 tokens, as many as the golden checkpoint has."""
    letters = random.Random(0)
    words = ["".join(letters.choices("abcdefgh", k=9)) for _ in range(400)]
    return train_tokenizer(["user\n", "assistant\n", *words], 515)


@pytest.fixture(scope="session")
def model(golden, small_tokenizer) -> Model:
    return dataclasses.replace(golden.model, tokenizer=small_tokenizer)


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory) -> Path:
    """The golden checkpoint in float32 for any number of rows."""
    folder = tmp_path_factory.mktemp("exported") / "folder"
    settings = ExportSettings(prompt_tokens=PROMPT_TOKENS, regions=REGIONS, new_tokens=NEW_TOKENS)
    write_export(model, folder, settings)
    return folder


@pytest.fixture(scope="session")
def exported_onnx(model, tmp_path_factory) -> Path:
    """The same as ONNX."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    write_onnx_export(model, folder, OnnxSettings(PROMPT_TOKENS, NEW_TOKENS))
    return folder


@pytest.fixture(scope="session")
def data_files() -> Path:
    return Path(__file__).parents[1] / "data_files"
