"""Tokens given one by one, against the PyTorch release's and against the loop on the device."""

from __future__ import annotations

import dataclasses

import numpy as np


def prompt(golden):
    return (
        golden.outputs["prompt_ids"],
        golden.outputs["prompt_attention_mask"],
        golden.images,
        golden.depths,
        golden.masks,
    )


def test_streamed_tokens_are_the_pytorch_releases(golden):
    expected = golden.outputs["greedy_ids"]
    streamed = np.stack(list(golden.model.stream(*prompt(golden), max_new_tokens=expected.shape[1])), axis=1)
    assert streamed.dtype == np.int32 and np.array_equal(streamed, expected)


def test_a_row_that_has_ended_stays_ended_and_the_stream_ends_with_the_last_row(golden):
    free = golden.model.generate(*prompt(golden), max_new_tokens=8)
    # A token of the first row's answer is made the end: at least that row then ends early.
    tokenizer = type("Tokenizer", (), {"eos_id": int(free[0, 2])})()
    model = dataclasses.replace(golden.model, tokenizer=tokenizer)
    expected = model.generate(*prompt(golden), max_new_tokens=8)
    streamed = np.stack(list(model.stream(*prompt(golden), max_new_tokens=8)), axis=1)
    ended = (expected == tokenizer.eos_id).argmax(axis=1)
    steps = max(int(row) + 1 if (expected[i] == tokenizer.eos_id).any() else 8 for i, row in enumerate(ended))
    assert streamed.shape[1] == steps and np.array_equal(streamed, expected[:, :steps])
