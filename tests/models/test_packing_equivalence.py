"""A packed row gives every question the logits, and the batch the loss and gradients, of the unpacked questions."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.models.attention import packed_attention_mask
from smolrgpt_jax.models.smolrgpt import bind, init_params, loss_sums

CONFIG = SmolRGPTConfig(
    vision=VisionConfig(width=32, mlp_width=64, heads=2, layers=2, patch_size=8, image_size=32),
    decoder=DecoderConfig(width=48, mlp_width=64, heads=4, kv_heads=2, layers=2, vocab_size=90),
)
PREFIX = 2 + CONFIG.image_tokens
REGIONS = 3


def question(rng: np.random.Generator, length: int, regions: list[int], answer: int) -> dict[str, np.ndarray]:
    """Random text of one question about regions of its picture; targets on the last `answer` tokens."""
    tokens = rng.integers(0, 80, length)
    region = np.full(length, -1)
    kind = np.zeros(length, int)
    for i, r in enumerate(regions):
        region[1 + 2 * i], region[2 + 2 * i] = r, r
        kind[2 + 2 * i] = 1
    return {"tokens": tokens, "region": region, "kind": kind, "answer": answer}


def rows(
    pictures: list[list[dict]], per_row: list[list[int]], length: int, prefix: np.ndarray
) -> dict[str, np.ndarray]:
    """Packs the given pictures' questions: `per_row` lists the pictures of each row."""
    slots = max(map(len, per_row))
    names = ("tokens", "targets", "positions", "picture_ids", "question_ids", "feature_index")
    batch = {
        n: np.full((len(per_row), length), -100 if n == "targets" else -1 if n == "feature_index" else 0, np.int32)
        for n in names
    }
    for row, chosen in enumerate(per_row):
        at = number = 0
        for slot, picture in enumerate(chosen):
            span = slice(at, at + PREFIX)
            batch["tokens"][row, span], batch["positions"][row, span], batch["picture_ids"][row, span] = (
                prefix,
                np.arange(PREFIX),
                slot + 1,
            )
            batch["feature_index"][row, at + 2 : at + PREFIX] = slot * CONFIG.image_tokens + np.arange(
                CONFIG.image_tokens
            )
            at += PREFIX
            for q in pictures[picture]:
                number += 1
                n = len(q["tokens"])
                span = slice(at, at + n)
                (batch["tokens"][row, span], batch["picture_ids"][row, span], batch["question_ids"][row, span]) = (
                    q["tokens"],
                    slot + 1,
                    number,
                )
                batch["positions"][row, span] = PREFIX + np.arange(n)
                base = slots * CONFIG.image_tokens + (q["kind"] * slots + slot) * REGIONS
                batch["feature_index"][row, span] = np.where(q["region"] >= 0, base + q["region"], -1)
                batch["targets"][row, at + n - q["answer"] - 1 : at + n - 1] = q["tokens"][-q["answer"] :]
                at += n
    return batch


@pytest.fixture(scope="module")
def both():
    rng = np.random.default_rng(0)
    pictures = [
        [question(rng, 12, [0, 2], 3), question(rng, 9, [1], 4), question(rng, 7, [], 2)],
        [question(rng, 11, [1, 0, 2], 2)],
    ]
    images, depths = rng.uniform(-1, 1, (2, 2, 32, 32, 3)).astype(np.float32)
    masks = rng.uniform(0, 1, (2, REGIONS, CONFIG.mask_grid, CONFIG.mask_grid)).astype(np.float32)
    prefix = rng.integers(0, 80, PREFIX)
    packed = rows(pictures, [[0, 1]], 80, prefix)
    packed |= {"images": images[None], "depths": depths[None], "region_masks": masks[None]}
    singles = [[q] for p in pictures for q in p]
    owner = [i for i, p in enumerate(pictures) for _ in p]
    alone = rows(singles, [[i] for i in range(len(singles))], 24, prefix)
    alone |= {"images": images[owner][:, None], "depths": depths[owner][:, None], "region_masks": masks[owner][:, None]}
    return packed, alone


def test_logits_of_every_question_are_the_same(both):
    packed, alone = both
    params = init_params(CONFIG, jax.random.key(0))
    run = jax.jit(lambda b: bind(CONFIG, params)(b)["logits"])
    in_row, single = np.asarray(run(packed))[0], np.asarray(run(alone))
    for number in range(4):
        ours = in_row[packed["question_ids"][0] == number + 1]
        theirs = single[number][alone["question_ids"][number] == 1]
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_loss_and_gradients_are_the_same(both):
    params = init_params(CONFIG, jax.random.key(0))

    def mean_loss(params, batch):
        sums, counts = loss_sums(bind(CONFIG, params)(batch)["logits"], batch["targets"])
        return sums.sum() / counts.sum()

    (loss_a, grads_a), (loss_b, grads_b) = (jax.jit(jax.value_and_grad(mean_loss))(params, b) for b in both)
    np.testing.assert_allclose(loss_a, loss_b, rtol=1e-6)
    for name, grad in grads_a.items():
        np.testing.assert_allclose(grad, grads_b[name], atol=1e-5 * float(np.abs(grad).max()), err_msg=name)


def test_mask_of_the_docstring_example():
    mask = packed_attention_mask(np.array([[1, 1, 1, 1, 1, 0]]), np.array([[0, 0, 1, 1, 2, 0]]))[0]
    expected = ["1.....", "11....", "111...", "1111..", "11..1.", "......"]
    assert ["".join("1" if x else "." for x in row) for row in np.asarray(mask)] == expected
