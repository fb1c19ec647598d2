"""Gradients and forty AdamW steps of each stage against the PyTorch release."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from smolrgpt_jax.checkpoint.mapping import entries
from smolrgpt_jax.config import Compute
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer, schedules
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.training.step import gradients, make_train_step

STEPS = 40
TOLERANCE = 1e-4
SUM_TOLERANCE = 1e-5
GROUPS = {"rgb_connector": "mp", "depth_connector": "mpd", "refiners": "rr", "decoder": "bb"}
NAMES = ["connector_alignment", "refiner_alignment", "sft"]


def setting(golden, name):
    """Stage with the golden run's peak rates, and its trained and frozen parameters."""
    published = STAGES[name]
    trains = {g.name for g in published.groups if g.peak is not None}
    stage = published.with_peaks(
        {ours: golden.training[name]["peak_lr"][theirs] for ours, theirs in GROUPS.items() if ours in trains}
    )
    names = stage.trained(golden.model.params)
    trained = {n: golden.model.params[n] for n in names}
    return stage, trained, {n: v for n, v in golden.model.params.items() if n not in trained}


def in_torch_names(config, values):
    """{PyTorch name: array} of some of our parameters."""
    return {
        e.torch: e.to_torch(np.asarray(values[e.jax] if e.layer is None else values[e.jax][e.layer]))
        for e in entries(config)
        if e.jax in values
    }


def found(golden, name, batch, accumulation=1, compute=Compute()):
    """Gradients and loss of a stage's trained parameters."""
    _, trained, frozen = setting(golden, name)
    config = golden.model.config
    return jax.jit(lambda t, f, b: gradients(config, t, f, b, accumulation, compute))(trained, frozen, batch)


@pytest.mark.parametrize("name", NAMES)
def test_first_gradients_equal_pytorch(golden, name):
    grads, _ = found(golden, name, golden.batch(regions=STAGES[name].regions))
    ours, theirs = in_torch_names(golden.model.config, grads), golden.grads(name)
    # The PyTorch release ties the head, so its file lists the one shared gradient.
    assert set(ours) == set(theirs)
    for tensor, expected in theirs.items():
        assert np.abs(ours[tensor] - expected).max() <= TOLERANCE * np.abs(expected).max(), tensor


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "refiner_alignment" else n for n in NAMES]
)
def test_forty_steps_follow_pytorch(golden, name):
    stage, trained, frozen = setting(golden, name)
    expected = golden.training[name]
    before = {n: np.asarray(v).copy() for n, v in frozen.items()}
    optimizer = make_optimizer(stage, trained, STEPS, OptimizerConfig())
    step = jax.jit(make_train_step(golden.model.config, optimizer))
    state, batch = optimizer.init(trained), golden.batch(regions=stage.regions)
    losses, norms = [], []
    for _ in range(STEPS):
        trained, state, metrics = step(trained, frozen, state, batch)
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
    np.testing.assert_allclose(losses, expected["loss"], rtol=TOLERANCE)
    np.testing.assert_allclose(norms, expected["grad_norm"], rtol=TOLERANCE)
    for tensor, array in in_torch_names(golden.model.config, {**trained, **frozen}).items():
        total, absolute = expected["final_param_sum_and_abs_sum"][tensor]
        array = array.astype(np.float64)
        np.testing.assert_allclose(np.abs(array).sum(), absolute, rtol=SUM_TOLERANCE, err_msg=tensor)
        # Of both signs, so that it may be near 0.
        np.testing.assert_allclose(array.sum(), total, rtol=0, atol=SUM_TOLERANCE * absolute, err_msg=tensor)
    for n, value in frozen.items():
        np.testing.assert_array_equal(value, before[n], err_msg=n)


@pytest.mark.parametrize("name", NAMES)
def test_learning_rates_equal_pytorch(golden, name):
    stage, _, _ = setting(golden, name)
    rates = schedules(stage, STEPS, OptimizerConfig())
    columns = list(golden.training[name]["peak_lr"])
    for ours, rate in rates.items():
        expected = [row[columns.index(GROUPS[ours])] for row in golden.training[name]["lr"]]
        np.testing.assert_allclose([float(rate(s)) for s in range(STEPS)], expected, rtol=1e-5)


def test_optimizer_state_is_only_for_trained_parameters(golden):
    stage, trained, _ = setting(golden, "connector_alignment")
    state = make_optimizer(stage, trained, STEPS, OptimizerConfig()).init(trained)
    size = sum(x.size for x in jax.tree.leaves(state))
    assert size < 2 * sum(v.size for v in trained.values()) + 10


def test_logits_of_answers_alone_give_the_same_gradients(golden):
    batch = golden.batch()
    batch["weights"] = np.linspace(0.5, 2, batch["targets"].size, dtype=np.float32).reshape(batch["targets"].shape)
    most = int((np.asarray(batch["targets"]) >= 0).sum(1).max())
    assert most < batch["targets"].shape[1]
    whole, loss = found(golden, "sft", batch)
    few, loss_of_few = found(golden, "sft", batch, compute=Compute(answers=most))
    np.testing.assert_allclose(loss_of_few, loss, rtol=1e-6)
    for name in whole:
        np.testing.assert_allclose(few[name], whole[name], atol=1e-5 * float(np.abs(whole[name]).max()), err_msg=name)
    wrong, lost = found(golden, "sft", batch, compute=Compute(answers=most - 1))
    assert np.isnan(lost), "an answer was left out silently"
    # Losses between two reports are not looked at, parameters are.
    assert all(np.isnan(np.asarray(g)).any() for g in wrong.values())


def test_accumulation_does_not_change_gradients(golden):
    batch = golden.batch()
    whole, loss = found(golden, "sft", batch)
    parts, loss_of_parts = found(golden, "sft", batch, accumulation=2)
    np.testing.assert_allclose(loss, loss_of_parts, rtol=1e-6)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-5 * float(np.abs(whole[name]).max()), err_msg=name)


def test_weights_can_make_every_question_count_alike(golden):
    """One question per row: the mean of PyTorch's losses of the samples."""
    batch = golden.batch()
    counted = np.asarray(batch["targets"]) >= 0
    batch["weights"] = (counted / counted.sum(1, keepdims=True)).astype(np.float32)
    _, loss = found(golden, "sft", batch)
    np.testing.assert_allclose(loss, np.mean(golden.outputs["loss_per_sample"]), rtol=1e-5)
    _, halves = found(golden, "sft", batch, 2)
    np.testing.assert_allclose(halves, loss, rtol=1e-6)
