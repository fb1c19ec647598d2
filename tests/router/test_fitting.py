from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
import torch

from smolrgpt_jax.router.classify import pad_rows
from smolrgpt_jax.router.fitting import RouterTraining, shuffled_batches, train_router
from smolrgpt_jax.router.hf_folder import read_longformer
from smolrgpt_jax.router.longformer import LongformerConfig, init_params
from tests.router.longformer_reference import random_classifier

ROWS = [[0, *range(4, 4 + n), 2] for n in (3, 9, 5, 12, 7)]
LABELS = [0, 1, 2, 3, 1]


def test_every_pass_takes_every_text_once():
    batches = shuffled_batches(5, 3, seed=1)
    taken = np.concatenate(list(itertools.islice(batches, 5)))
    passes = taken.reshape(3, 5)
    assert all(sorted(one) == list(range(5)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1
    again = np.concatenate(list(itertools.islice(shuffled_batches(5, 3, seed=1), 5)))
    assert np.array_equal(taken, again)


def test_losses_equal_those_of_torchs_adamw_on_transformers_model(tmp_path):
    model = random_classifier(0)
    model.save_pretrained(tmp_path / "model")
    config, params, _ = read_longformer(tmp_path / "model")
    steps, peak = 5, 1e-2
    _, ours = train_router(config, params, ROWS, LABELS, RouterTraining(steps, 3, peak, seed=7))
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.01)
    theirs = []
    for step, chosen in zip(range(steps), shuffled_batches(len(ROWS), 3, seed=7)):
        tokens, mask = pad_rows([ROWS[i] for i in chosen], 16, 1)
        loss = model(
            torch.tensor(tokens).long(),
            attention_mask=torch.tensor(mask).int(),
            labels=torch.tensor([LABELS[i] for i in chosen]),
        ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # A warm-up of 3 % of five steps is none; the cosine ends at a tenth of the peak.
        optimizer.param_groups[0]["lr"] = peak * (0.1 + 0.45 * (1 + np.cos(np.pi * step / steps)))
        optimizer.step()
        theirs.append(loss.item())
    assert np.allclose(ours, theirs, rtol=1e-4)
    assert abs(ours[-1] - ours[0]) > 0.01


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"peak": 0.0}, {"peak": float("nan")}, {"seed": -1}])
def test_settings_that_train_nothing_are_refused(wrong):
    with pytest.raises(ValueError):
        RouterTraining(**{"steps": 1, "batch": 1, "peak": 1e-3, "seed": 0, **wrong})


def test_a_loss_that_is_not_finite_stops_the_training():
    config = LongformerConfig(
        ("a", "b"), vocab_size=20, positions=66, width=8, mlp_width=8, heads=1, layers=1, window=8
    )
    params = init_params(config, jax.random.key(0))
    with pytest.raises(ValueError, match="parameters hold NaN or infinity after step 1"):
        train_router(config, params, ROWS, [0, 1, 0, 1, 0], RouterTraining(1, 2, 1e39, 0))
    params["head_out/bias"] = params["head_out/bias"] + np.nan
    with pytest.raises(ValueError, match="the loss is nan at step 1"):
        train_router(config, params, ROWS, [0, 1, 0, 1, 0], RouterTraining(2, 2, 1e-3, 0))
