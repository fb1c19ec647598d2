"""Sampling, stopping, and cached decoding against a full forward pass."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from smolrgpt_jax.generation.sampling import Sampling, choose


def frequencies(logits, sampling, draws=20_000):
    tokens = choose(np.tile(np.asarray(logits, np.float32), (draws, 1)), sampling, jax.random.key(0))
    return np.bincount(np.asarray(tokens), minlength=len(logits)) / draws


def test_temperature_gives_the_softmax():
    logits = np.array([2.0, 1.0, 0.0, -1.0])
    expected = np.exp(logits / 0.5) / np.exp(logits / 0.5).sum()
    # Largest deviation allowed: 4.5 standard errors of a frequency, an error rate below 1 in 10^5 over the four.
    measured = frequencies(logits, Sampling(temperature=0.5, top_k=0, top_p=1.0))
    assert np.all(np.abs(measured - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / 20_000))


def test_top_k_keeps_the_most_likely():
    assert np.flatnonzero(
        frequencies([0.0, 3.0, 1.0, 2.0], Sampling(temperature=1.0, top_k=2, top_p=1.0))
    ).tolist() == [1, 3]


def test_top_p_keeps_the_smallest_sufficient_set():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    assert np.flatnonzero(frequencies(logits, Sampling(temperature=1.0, top_k=0, top_p=0.6))).tolist() == [0, 1]
    assert np.flatnonzero(frequencies(logits, Sampling(temperature=1.0, top_k=0, top_p=0.01))).tolist() == [0]


def test_greedy_is_the_argmax():
    assert choose(np.array([[0.0, 2.0, 1.0]], np.float32), Sampling(), jax.random.key(0)).tolist() == [1]


def prompt(golden):
    return (
        golden.outputs["prompt_ids"],
        golden.outputs["prompt_attention_mask"],
        golden.images,
        golden.depths,
        golden.masks,
    )


def test_cached_decoding_equals_forward_passes(golden):
    """Every greedy token is the argmax of an uncached forward pass over the tokens before it."""
    ids, mask, *pictures = prompt(golden)
    generated = golden.model.generate(ids, mask, *pictures, max_new_tokens=6)
    full = np.concatenate([ids, generated], axis=1)
    logits = golden.model.forward(full, np.pad(mask, ((0, 0), (0, 6)), constant_values=1), *pictures)["logits"]
    np.testing.assert_array_equal(logits[:, ids.shape[1] - 1 : -1].argmax(-1), generated)


@pytest.mark.parametrize("extra", [1, 7])
def test_left_padding_does_not_change_the_answer(golden, extra):
    ids, mask, *pictures = prompt(golden)
    padded = np.pad(ids, ((0, 0), (extra, 0)), constant_values=2), np.pad(mask, ((0, 0), (extra, 0)))
    np.testing.assert_array_equal(
        golden.model.generate(*padded, *pictures, max_new_tokens=8),
        golden.model.generate(ids, mask, *pictures, max_new_tokens=8),
    )


def test_prompts_that_are_not_padded_on_the_left_name_the_row(golden):
    ids, mask, *pictures = prompt(golden)
    for use in (golden.model.generate, golden.model.stream):
        for places, number in (([(2, -1)], 2), ([(3, -4), (1, -9)], 1)):
            holes = mask.copy()
            for place in places:
                holes[place] = 0
            with pytest.raises(ValueError, match=f"^row {number} is not padded on the left$"):
                use(ids, holes, *pictures)
        with pytest.raises(ValueError, match="max_new_tokens is 0, must be at least 1"):
            use(ids, mask, *pictures, max_new_tokens=0)


def test_everything_after_eos_is_eos(golden, monkeypatch):
    ids, mask, *pictures = prompt(golden)
    free = golden.model.generate(ids, mask, *pictures, max_new_tokens=12)
    # Declare a token that row 0 produces early on to be the end.
    eos = int(free[0, 3])
    monkeypatch.setattr("smolrgpt_jax.model.EOS_ID", eos)
    stopped = golden.model.generate(ids, mask, *pictures, max_new_tokens=12)
    for before, after in zip(free, stopped):
        first = np.flatnonzero(before == eos)
        end = first[0] if len(first) else len(before)
        np.testing.assert_array_equal(after[:end], before[:end])
        assert np.all(after[end:] == eos)


def test_sampling_is_reproducible_from_its_seed(golden):
    ids, mask, *pictures = prompt(golden)

    def draw(seed):
        return golden.model.generate(
            ids, mask, *pictures, max_new_tokens=8, sampling=Sampling(temperature=1.0), seed=seed
        )

    np.testing.assert_array_equal(draw(3), draw(3))
    assert np.any(draw(3) != draw(4))
