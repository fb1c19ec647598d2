"""Sampling draws from exactly the distribution it promises, against a computation of its own in float64."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats

from smolrgpt_jax.generation.sampling import Sampling, choose

DRAWS = 40_000
# So many rows are sorted faster by a program that took its time to compile.
PROGRAM = jax.jit(choose, compiler_options={"xla_backend_optimization_level": 3})
# Keys are fixed, so a run gives the same answer every time. Over a new set of keys, a right sampler would
# fail one of these tests with this probability.
FALSE_ALARM = 1e-4

VOCABULARY = 97
LOGITS = np.random.default_rng(0).normal(0, 2, VOCABULARY).astype(np.float32)


def exact(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Probabilities of the next token, float64[V]: the top_k most likely tokens, of them the smallest set
    that reaches top_p of their own mass, renormalised."""
    scaled = logits.astype(np.float64) / temperature
    order = np.argsort(-scaled, kind="stable")
    kept = order[: top_k or len(order)]
    mass = np.exp(scaled[kept] - scaled[kept].max())
    mass /= mass.sum()
    size = int(np.searchsorted(np.cumsum(mass), top_p, side="left")) + 1 if top_p < 1 else len(kept)
    probabilities = np.zeros(len(logits))
    probabilities[kept[:size]] = mass[:size] / mass[:size].sum()
    return probabilities


def draw(logits: np.ndarray, sampling: Sampling, seed: int) -> np.ndarray:
    return np.asarray(PROGRAM(logits, sampling, jax.random.key(seed)))


def counts(logits: np.ndarray, sampling: Sampling, seed: int) -> np.ndarray:
    rows = np.broadcast_to(logits, (DRAWS, len(logits)))
    return np.bincount(draw(rows, sampling, seed), minlength=len(logits))


def assert_distribution(observed: np.ndarray, expected: np.ndarray) -> None:
    """Pearson's chi-square; tokens expected fewer than ten times are counted together. Nothing impossible may
    occur at all."""
    assert observed[expected == 0].sum() == 0
    frequent = expected * observed.sum() >= 10
    seen = np.append(observed[frequent], observed[~frequent].sum())
    wanted = np.append(expected[frequent], expected[~frequent].sum()) * observed.sum()
    if wanted[-1] < 1:
        # Too rare for the chi-square's approximation: a bound on its own, then left out.
        assert stats.poisson.sf(seen[-1] - 1, max(wanted[-1], 1e-12)) > FALSE_ALARM / 2 or seen[-1] == 0
        seen, wanted = seen[:-1], wanted[:-1] * seen[:-1].sum() / wanted[:-1].sum()
    if len(seen) == 1:
        return
    assert stats.chisquare(seen, wanted).pvalue > FALSE_ALARM


SETTINGS = [
    Sampling(temperature=1.0, top_k=0, top_p=1.0),
    Sampling(temperature=0.5, top_k=0, top_p=1.0),
    Sampling(temperature=3.0, top_k=0, top_p=1.0),
    Sampling(temperature=1.0, top_k=5, top_p=1.0),
    Sampling(temperature=1.0, top_k=1, top_p=1.0),
    Sampling(temperature=1.0, top_k=1000, top_p=1.0),
    Sampling(temperature=1.0, top_k=0, top_p=0.7),
    Sampling(temperature=2.0, top_k=0, top_p=0.95),
    Sampling(temperature=1.0, top_k=0, top_p=1e-6),
    Sampling(temperature=1.5, top_k=20, top_p=0.6),
    # The release's own.
    Sampling(temperature=0.5, top_k=50, top_p=0.9),
]


@pytest.mark.parametrize("sampling", SETTINGS, ids=lambda s: f"t{s.temperature}-k{s.top_k}-p{s.top_p}")
def test_distribution(sampling):
    expected = exact(LOGITS, sampling.temperature, sampling.top_k, sampling.top_p)
    assert_distribution(counts(LOGITS, sampling, seed=1), expected)


def test_top_p_is_of_the_mass_that_top_k_leaves():
    """0.4, 0.3, 0.2, 0.1: of the first three's 0.9, top_p 0.75 needs 0.4 + 0.3 = 0.78 of it; of everything it
    would need three."""
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], np.float32))
    assert np.flatnonzero(exact(logits, 1.0, 3, 0.75)).tolist() == [0, 1]
    assert_distribution(counts(logits, Sampling(1.0, 3, 0.75), seed=2), exact(logits, 1.0, 3, 0.75))
    assert np.flatnonzero(exact(logits, 1.0, 0, 0.75)).tolist() == [0, 1, 2]
    assert_distribution(counts(logits, Sampling(1.0, 0, 0.75), seed=3), exact(logits, 1.0, 0, 0.75))


def test_rows_are_drawn_independently():
    """Pairs of neighbouring rows of one call have the product distribution."""
    logits = np.array([1.0, 0.0, -0.5, 0.3], np.float32)
    drawn = np.asarray(choose(np.broadcast_to(logits, (DRAWS, 4)), Sampling(1.0, 0, 1.0), jax.random.key(4)))
    single = exact(logits, 1.0, 0, 1.0)
    pairs = np.bincount(4 * drawn[::2] + drawn[1::2], minlength=16)
    assert_distribution(pairs, np.outer(single, single).ravel())


def test_rows_keep_their_own_distribution():
    """Different logits side by side, as in a batch."""
    logits = np.stack([LOGITS, -LOGITS, np.roll(LOGITS, 5)])
    sampling = Sampling(0.8, 10, 0.9)
    drawn = np.asarray(choose(np.repeat(logits, DRAWS, axis=0), sampling, jax.random.key(5)))
    for own, tokens in zip(logits, drawn.reshape(3, DRAWS)):
        assert_distribution(np.bincount(tokens, minlength=VOCABULARY), exact(own, 0.8, 10, 0.9))


def test_padded_vocabulary_is_never_drawn(golden):
    """Even hot and uncut, tokens past the vocabulary have no probability."""
    from smolrgpt_jax.models.smolrgpt import bind

    config = golden.model.config
    hidden = np.random.default_rng(0).normal(0, 1, (4000, config.decoder.width)).astype(np.float32)
    logits = bind(config, golden.model.params).decoder.logits(hidden)
    assert logits.shape[-1] == config.decoder.padded_vocab_size > config.decoder.vocab_size
    tokens = choose(logits, Sampling(100.0, 0, 1.0), jax.random.key(0))
    assert int(tokens.max()) < config.decoder.vocab_size


@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(0.0, 0, 1.0), Sampling(0.0, 3, 0.1)], ids=str)
def test_temperature_zero_is_greedy(sampling):
    logits = np.random.default_rng(1).normal(0, 1, (50, VOCABULARY)).astype(np.float32)
    logits[7, 60] = logits[7, 20] = 9.0
    tokens = np.asarray(choose(logits, sampling, jax.random.key(0)))
    np.testing.assert_array_equal(tokens, logits.argmax(-1))
    assert tokens[7] == 20, "of equal logits the first wins, as in PyTorch"


def test_a_low_temperature_comes_to_greedy():
    logits = np.random.default_rng(1).normal(0, 1, (50, VOCABULARY)).astype(np.float32)
    np.testing.assert_array_equal(choose(logits, Sampling(1e-4, 0, 1.0), jax.random.key(0)), logits.argmax(-1))


def test_a_wrong_distribution_is_noticed():
    """The check itself: a temperature off by a tenth, one token too many, the wrong order of cutting."""
    right = counts(LOGITS, Sampling(1.0, 20, 0.8), seed=6)
    assert_distribution(right, exact(LOGITS, 1.0, 20, 0.8))
    for wrong in (exact(LOGITS, 1.1, 20, 0.8), exact(LOGITS, 1.0, 20, 0.6), exact(LOGITS, 1.0, 3, 0.8)):
        with pytest.raises(AssertionError):
            assert_distribution(right, wrong)
