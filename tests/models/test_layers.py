"""A product and its gradients, on every platform."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smolrgpt_jax.models.layers import product


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
