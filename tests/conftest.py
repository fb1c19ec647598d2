"""Settings and fixtures shared by the tests: eight CPU devices, full float32 products, the golden checkpoint."""

from __future__ import annotations

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import json
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest

# The same examples in every run, so that a change is judged by what it changed; --hypothesis-profile=default draws new ones.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile("fixed")
jax.config.update("jax_default_matmul_precision", "highest")

DATA_FILES = Path(__file__).parent / "data_files"
TINY = DATA_FILES / "tiny"


class Golden:
    """The golden checkpoint with its inputs in our layout and the PyTorch release's outputs."""

    def __init__(self) -> None:
        from smolrgpt_jax import load

        self.folder = TINY / "checkpoint"
        self.model = load(self.folder)
        self.inputs = dict(np.load(TINY / "inputs.npz"))
        self.outputs = dict(np.load(TINY / "outputs.npz"))
        self.training = json.loads((TINY / "training.json").read_text())
        self.images = self.inputs["image"].transpose(0, 2, 3, 1)
        self.depths = self.inputs["depth"].transpose(0, 2, 3, 1)
        self.masks = [self.inputs[f"mask_{i}"] for i in range(len(self.images))]
        self.valid = self.inputs["attention_mask"] != 0

    def batch(self, *, regions: bool = True) -> dict[str, np.ndarray]:
        """The training batch, RGB only or with depth and regions."""
        ids = self.inputs["input_ids"] if regions else self.outputs["rgb_only_ids"]
        extra = (self.depths, self.masks) if regions else (None, None)
        batch = self.model._batch(ids, self.inputs["attention_mask"], self.images, *extra)
        return {**batch, "targets": self.inputs["labels"]}

    def grads(self, stage: str) -> dict[str, np.ndarray]:
        return dict(np.load(TINY / f"grads_{stage}.npz"))


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden()
