"""Longformer against transformers' own, on random weights."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from smolrgpt_jax.errors import ConfigError
from smolrgpt_jax.router.hf_folder import read_longformer
from smolrgpt_jax.router.longformer import LongformerConfig, bind, init_params
from tests.router.longformer_reference import random_classifier

TINY = LongformerConfig(("a", "b"), vocab_size=50, positions=66, width=24, mlp_width=40, heads=3, layers=2, window=8)


def texts(lengths: list[int], length: int, vocab_size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens between <s> and </s>, padded on the right: int32[B, S] twice, tokens and mask."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(4, vocab_size, (len(lengths), length), dtype=np.int32)
    mask = (np.arange(length) < np.array(lengths)[:, None]).astype(np.int32)
    tokens[:, 0] = 0
    tokens[np.arange(len(lengths)), np.array(lengths) - 1] = 2
    return np.where(mask, tokens, 1).astype(np.int32), mask


def compare(model, folder, tokens, mask) -> None:
    """Every layer's hidden state, at paddings too, and the logits: within 1e-5 of the largest value."""
    model.save_pretrained(folder)
    config, params, _ = read_longformer(folder)
    with torch.no_grad():
        wanted = model(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask), output_hidden_states=True)
    out = jax.jit(lambda p: bind(config, p)(tokens, mask))(params)
    ours = [out["embeddings"], *out["hidden_states"], out["logits"]]
    theirs = [*wanted.hidden_states, wanted.logits]
    assert len(ours) == len(theirs)
    for mine, reference in zip(ours, theirs):
        reference = reference.numpy()
        assert np.max(np.abs(mine - reference)) <= 1e-5 * np.max(np.abs(reference))


@pytest.mark.parametrize("length", [61, 3], ids=["several windows", "less than a window"])
def test_hidden_states_and_logits_equal_those_of_transformers(tmp_path, length):
    lengths = [length, max(2, length // 2), 2]
    compare(random_classifier(0), tmp_path / "model", *texts(lengths, length, 50))


@pytest.mark.slow
def test_4096_positions_and_windows_of_512_equal_those_of_transformers(tmp_path):
    model = random_classifier(
        2, hidden_size=64, num_attention_heads=4, max_position_embeddings=4098, attention_window=512
    )
    compare(model, tmp_path / "model", *texts([4096, 2900], 4096, 50))


def test_gradients_equal_those_of_transformers(tmp_path):
    model = random_classifier(3)
    model.save_pretrained(tmp_path / "model")
    config, params, _ = read_longformer(tmp_path / "model")
    tokens, mask = texts([20, 13], 20, 50)
    labels = np.array([3, 1])
    embedding = model.longformer.embeddings.word_embeddings.weight
    model(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask), labels=torch.tensor(labels)).loss.backward()

    def loss(params):
        logits = jax.nn.log_softmax(bind(config, params)(tokens, mask)["logits"])
        return -jnp.mean(logits[np.arange(2), labels])

    grads = jax.jit(jax.grad(loss))(params)
    # torch gives the padding's row no gradient; here it has none because nothing attends to paddings.
    wanted = embedding.grad.numpy()
    ours = grads["encoder/word_embedding"]
    assert np.max(np.abs(ours - wanted)) <= 1e-4 * np.max(np.abs(wanted))
    layers = model.longformer.encoder.layer
    wanted = np.stack([layer.attention.self.key_global.weight.grad.numpy().T for layer in layers])
    ours = grads["encoder/blocks/key_global/kernel"].reshape(wanted.shape)
    assert np.max(np.abs(ours - wanted)) <= 1e-4 * np.max(np.abs(wanted))


def test_no_product_is_as_large_as_length_times_length():
    config = LongformerConfig(
        ("a", "b"), vocab_size=50, positions=1026, width=8, mlp_width=8, heads=1, layers=1, window=16
    )
    params = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    tokens = jax.ShapeDtypeStruct((1, 1024), jnp.int32)
    program = jax.make_jaxpr(lambda p, t: bind(config, p)(t, t)["logits"])(params, tokens)
    sizes = [np.prod(v.aval.shape) for v in _variables(program.jaxpr)]
    # A query's scores are those of three blocks of half a window, and of the global token.
    assert max(sizes) == 1024 * (3 * 8 + 1)


def _variables(jaxpr):
    for equation in jaxpr.eqns:
        yield from equation.outvars
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from _variables(inner)


def test_more_tokens_than_positions_are_refused():
    tokens = jnp.zeros((1, 65), jnp.int32)
    params = init_params(TINY, jax.random.key(0))
    with pytest.raises(ValueError, match="65 tokens are more than the 64"):
        bind(TINY, params)(tokens, tokens)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"window": 7}, "window 7 is odd"),
        ({"heads": 5}, "width 24 does not divide into 5 heads"),
        ({"labels": ("a", "a")}, "not distinct"),
        ({"positions": 2}, "no room"),
        ({"layers": 0}, "layers is 0"),
        ({"pad_id": 50}, "pad_id 50"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **changed)
