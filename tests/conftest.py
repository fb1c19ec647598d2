"""Settings and fixtures shared by the tests: eight CPU devices, full float32 products, quick compilation, the golden checkpoint."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile

from tests.devices import xla_flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers and every process that a test starts inherit these
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags(8)}"
    # PyTorch's threads wait for each other by spinning: two where there is one core to have take six times the CPU seconds.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A program is compiled once, whichever process needs it.
    CACHE = tempfile.mkdtemp(prefix="smolrgpt_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    # Which line an operation comes from is not asked of a program here, and is a twentieth of the tests' time.
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import json
from pathlib import Path

import hypothesis
import jax
import numpy as np
import psutil
import pytest

# The same examples in every run, so that a change is judged by what it changed; --hypothesis-profile=default draws new ones.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile("fixed")
jax.config.update("jax_default_matmul_precision", "highest")

DATA_FILES = Path(__file__).parent / "data_files"
TINY = DATA_FILES / "tiny"
MEMORY = 2 * 2**30  # bytes above which a process forgets its programs between two files
# Tracing makes millions of objects, few of them in cycles.
gc.set_threshold(50_000, 20, 20)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if (nextitem is None or nextitem.path != item.path) and psutil.Process().memory_info().rss > MEMORY:
        jax.clear_caches()


def pytest_unconfigure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(CACHE, ignore_errors=True)


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
