"""A product, a norm, an activation, a transposed convolution and their gradients, on every platform."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from smolrgpt_jax.models.layers import gelu, product, scaled_to_unit
from smolrgpt_jax.models.refiner import UpConv


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gelu_and_its_gradient_are_those_of_pytorch(dtype):
    x = np.linspace(-8, 8, 1601, dtype=np.float32)
    theirs = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
    value = torch.nn.functional.gelu(theirs)
    value.sum().backward()
    ours = jnp.asarray(x, dtype)
    of_x = jax.grad(lambda x: jnp.sum(gelu(x).astype(jnp.float32)))(ours)
    assert gelu(ours).dtype == of_x.dtype == ours.dtype
    tolerance = {"float32": {"rtol": 1e-6, "atol": 1e-6}, "bfloat16": {"rtol": 8e-3, "atol": 1e-6}}[dtype]
    for a, b in ((gelu(ours), value.detach()), (of_x, theirs.grad)):
        np.testing.assert_allclose(a.astype(jnp.float32), b.float().numpy(), **tolerance)


@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_upconv_and_its_gradients_are_those_of_pytorch(platform, monkeypatch):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, **ways: ways[platform](*given))
    layer = UpConv(6, nnx.Rngs(0))
    graph, params = nnx.split(layer)
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 3, 6)).astype(np.float32), rng.normal(size=(4, 2, 3, 6)).astype(np.float32)
    of_params, of_x = jax.grad(lambda p, x: jnp.sum(nnx.merge(graph, p)(x) * weights), (0, 1))(params, x)

    torch_layer = torch.nn.ConvTranspose2d(6, 6, kernel_size=2, stride=2)
    with torch.no_grad():
        torch_layer.weight.copy_(torch.tensor(np.array(layer.kernel[...])).permute(0, 3, 1, 2))
        torch_layer.bias.zero_()
    # Every cell is a picture of one pixel.
    pixels = torch.tensor(x.reshape(6, 6, 1, 1), requires_grad=True)
    blocks = torch_layer(pixels)
    cells = blocks.permute(2, 3, 0, 1).reshape(4, 2, 3, 6)
    (cells * torch.tensor(weights)).sum().backward()
    pairs = (
        (layer(x), cells.detach()),
        (of_x, pixels.grad.reshape(2, 3, 6)),
        (of_params["kernel"][...], torch_layer.weight.grad.permute(0, 2, 3, 1)),
        (of_params["bias"][...], torch_layer.bias.grad),
    )
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
