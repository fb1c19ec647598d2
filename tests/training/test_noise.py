"""The gradient noise scale: its estimates have no bias, and a step's are those of its parts."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from smolrgpt_jax.models.smolrgpt import init_params
from smolrgpt_jax.training.noise import NOISE, SQUARE, gradient_noise, noise_scale
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.training.step import gradients, make_train_step
from tests.training.test_strategies import SMALL, batch_for


@pytest.mark.parametrize(("parts", "rows"), [(2, 8), (4, 8), (8, 64)])
def test_the_estimates_have_no_bias(parts, rows):
    """Rows whose gradients are drawn around a known one, with a known covariance."""
    rng = np.random.default_rng(0)
    gradient, deviations = rng.normal(size=20), np.linspace(0.5, 3, 20)
    drawn = gradient + deviations * rng.normal(size=(20_000, parts, rows // parts, 20))
    of_parts = drawn.mean(2)
    of_batch = of_parts.mean(1)
    found = gradient_noise((of_batch**2).sum(-1), (of_parts**2).sum(-1).mean(1), parts, rows)
    assert found[SQUARE].mean() == pytest.approx((gradient**2).sum(), rel=0.02)
    assert found[NOISE].mean() == pytest.approx((deviations**2).sum(), rel=0.02)


def test_a_steps_estimates_are_those_of_its_parts():
    stage, rows, parts = STAGES["sft"], 4, 2
    params = init_params(SMALL, jax.random.key(0))
    trained = {name: params[name] for name in stage.trained(params)}
    frozen = {name: p for name, p in params.items() if name not in trained}
    batch = batch_for(SMALL, rows)
    optimizer = make_optimizer(stage, trained, 1, OptimizerConfig())
    step = jax.jit(make_train_step(SMALL, optimizer, accumulation=parts))
    metrics = step(trained, frozen, optimizer.init(trained), batch)[2]

    def square(rows):
        found, _ = jax.jit(lambda b: gradients(SMALL, trained, frozen, b))(rows)
        return sum(float((np.asarray(g, np.float64) ** 2).sum()) for g in found.values())

    # Every part takes every second row.
    small = np.mean([square({name: v[i::parts] for name, v in batch.items()}) for i in range(parts)])
    big = float(metrics["grad_norm"]) ** 2
    assert float(metrics[SQUARE]) == pytest.approx(2 * big - small, abs=1e-4 * big)
    assert float(metrics[NOISE]) == pytest.approx((small - big) * rows, abs=1e-4 * big * rows)


def write(path, values):
    path.write_text(f"step,loss,{SQUARE},{NOISE}\n" + "".join(f"{i},1.0,{a},{b}\n" for i, (a, b) in enumerate(values)))
    return path


def test_means_over_the_later_half_of_a_run_are_divided(tmp_path):
    file = write(tmp_path / "metrics.csv", [(1.0, 1.0)] * 6 + [(-1.0, 30.0), (3.0, 10.0)] * 3)
    assert noise_scale(file) == pytest.approx(20.0)
    assert noise_scale(write(file, [(-1.0, 2.0)] * 10)) == float("inf")
    assert noise_scale(write(file, [(1.0, 1.0)] * 9)) is None
    file.write_text("step,loss\n" + "1,1.0\n" * 20)
    assert noise_scale(file) is None
