"""What a step is said to keep is what the compiler finds, and what fits is chosen."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import pytest

from smolrgpt_jax.config import PRESETS, Compute
from smolrgpt_jax.data.rows import RowShape, empty_batch
from smolrgpt_jax.models.smolrgpt import abstract_params
from smolrgpt_jax.training import memory
from smolrgpt_jax.training.step import gradients

DEMO, FULL = PRESETS["demo"], PRESETS["smolrgpt"]
ROW = RowShape(768, 2, 18, FULL.image_tokens, FULL.vision.image_size, FULL.mask_grid)


def temporary_bytes(shape, rows, compute):
    """Of the compiled gradients of everything but the encoder."""
    params = abstract_params(DEMO)
    frozen = {name: p for name, p in params.items() if name.startswith("vision_encoder")}
    trained = {name: p for name, p in params.items() if name not in frozen}
    batch = {n: jax.ShapeDtypeStruct((rows, *v.shape[1:]), v.dtype) for n, v in empty_batch(1, shape, 0).items()}
    step = jax.jit(lambda *given: gradients(DEMO, *given, compute=compute))
    return step.lower(trained, frozen, batch).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(("tokens", "pictures"), [pytest.param(512, 2, marks=pytest.mark.slow), (336, 1)])
def test_the_bytes_of_a_row_are_about_those_of_the_compiled_step(tokens, pictures):
    shape = RowShape(tokens, pictures, 18, DEMO.image_tokens, DEMO.vision.image_size, DEMO.mask_grid)
    compute = Compute.of(DEMO, answers=tokens // 2)
    found = (temporary_bytes(shape, 3, compute) - temporary_bytes(shape, 1, compute)) / 2
    assert memory.row_bytes(DEMO, shape, compute, "none") == pytest.approx(found, rel=0.25)


def device(platform, gib):
    return SimpleNamespace(platform=platform, memory_stats=lambda: {"bytes_limit": gib * 2**30})


@pytest.mark.parametrize(
    ("platform", "gib", "chosen"),
    [("gpu", 141, "none"), ("gpu", 48, "dots"), ("gpu", 24, "full"), ("tpu", 141, "full")],
)
def test_the_least_is_computed_again_that_memory_allows_and_all_on_tpus(platform, gib, chosen):
    compute, kept = Compute(dtype="bfloat16", answers=384), 7e9
    assert memory.choose_remat(FULL, ROW, 16, compute, kept, device(platform, gib)) == chosen


def test_parameters_leave_less_for_rows_and_fake_devices_share_the_machine():
    compute = Compute(dtype="bfloat16", answers=384)
    assert memory.choose_remat(FULL, ROW, 16, compute, 90e9, device("gpu", 141)) != "none"
    (cpu, *others) = jax.local_devices()
    whole = memory.device_memory(cpu) * (1 + len(others))
    assert 2**30 < whole < 2**50


def test_all_is_computed_again_on_a_device_that_does_not_tell_its_memory():
    silent = SimpleNamespace(platform="gpu", memory_stats=lambda: None)
    assert memory.choose_remat(DEMO, ROW, 1, Compute(answers=384), 0, silent) == "full"
