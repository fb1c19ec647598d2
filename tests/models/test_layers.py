"""A product, a norm and their gradients, on every platform."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smolrgpt_jax.models.layers import product, scaled_to_unit


@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_gradients_of_a_product_are_those_of_a_matrix_product(platform, monkeypatch):
    """Those of other platforms too, which no test computes elsewhere."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, **ways: ways[platform](*given))
    rng = np.random.default_rng(0)
    x, kernel, weights = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 5), (5, 4), (2, 3, 4)))
    ours, plain = (
        jax.grad(lambda x, k: jnp.sum(multiply(x, k) * weights), (0, 1))(x, kernel)
        for multiply in (product, jnp.matmul)
    )
    for a, b in zip(ours, plain):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_gradients_of_a_norm_are_those_of_its_formula(platform, monkeypatch):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, **ways: ways[platform](*given))
    rng = np.random.default_rng(0)
    x, scale, weights = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 8), (8,), (2, 3, 8)))

    def formula(x, scale):
        return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 0.1) * scale

    np.testing.assert_allclose(scaled_to_unit(x, scale, 0.1), formula(x, scale), rtol=1e-6)
    ours, plain = (
        jax.grad(lambda x, scale: jnp.sum(norm(x, scale) * weights), (0, 1))(x, scale)
        for norm in (lambda x, scale: scaled_to_unit(x, scale, 0.1), formula)
    )
    for a, b in zip(ours, plain):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
