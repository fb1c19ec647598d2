"""Splash attention (in Pallas' interpreter) against the masked XLA path and a plain NumPy softmax, on packed rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import SplashAttentionKernel

from smolrgpt_jax import sharding
from smolrgpt_jax.models import attention as attention_module
from smolrgpt_jax.models.attention import attention, packed_attention_mask, packed_spans, resolve_attention

LENGTH = 256


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    def interpreted(*arguments, **options):
        return SplashAttentionKernel(*arguments, **options | {"interpret": True})

    monkeypatch.setattr(splash_attention_kernel, "SplashAttentionKernel", interpreted)


HEADS, KV_HEADS, DIM = 4, 2, 64


def packed_row(*pictures: list[int], length: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    """picture_ids, question_ids of one row; a picture is [tokens of its prefix, tokens of question 1, ...]."""
    picture_ids, question_ids, number = [], [], 0
    for place, (prefix, *questions) in enumerate(pictures):
        picture_ids += [place + 1] * (prefix + sum(questions))
        question_ids += [0] * prefix
        for tokens in questions:
            number += 1
            question_ids += [number] * tokens
    padding = [0] * (length - len(picture_ids))
    return np.array(picture_ids + padding, np.int32), np.array(question_ids + padding, np.int32)


def packed_rows(length: int = LENGTH) -> tuple[np.ndarray, np.ndarray]:
    rows = [
        packed_row([67, 40, 30, 60], length=length),
        packed_row([20, 9, 1, 30], [67, 50], [5, 60], length=length),
        packed_row([67, length - 67], length=length),
    ]
    return np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])


def visible_pairs(picture_ids: np.ndarray, question_ids: np.ndarray) -> np.ndarray:
    """The mask in the words of data/packing.py, token by token: bool[S, S]."""
    length = len(picture_ids)
    mask = np.zeros((length, length), bool)
    for query in range(length):
        for key in range(query + 1):
            own_picture = picture_ids[key] == picture_ids[query] != 0
            mask[query, key] = own_picture and question_ids[key] in (0, question_ids[query])
    return mask


def inputs(rows: int, length: int = LENGTH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = ((rows, length, HEADS, DIM), (rows, length, KV_HEADS, DIM), (rows, length, KV_HEADS, DIM))
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def plain_attention(q, k, v, mask):
    """One row in float64; a query that sees nothing gives zeros."""
    out = np.zeros(q.shape)
    for head in range(q.shape[1]):
        group = head // (q.shape[1] // k.shape[1])
        scores = q[:, head].astype(np.float64) @ k[:, group].T / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max()) * mask
        out[:, head] = weights / np.maximum(weights.sum(1, keepdims=True), 1e-300) @ v[:, group]
    return out


@pytest.mark.parametrize("length", [128, 256, 640, 1024])
def test_spans_say_the_same_as_the_mask(length):
    picture_ids, question_ids = (
        packed_rows(length)
        if length > 200
        else [np.stack(r) for r in zip(packed_row([60, 30, 20], length=128), packed_row([3, 125], length=128))]
    )
    segments, spans = packed_spans(picture_ids, question_ids)
    keys = jnp.broadcast_to(jnp.arange(length), (len(spans), length, length))
    may = attention_module._may_attend(jnp.broadcast_to(spans[:, :, None], keys.shape), keys)
    ours = np.asarray(may & (segments[:, :, None] == segments[:, None]))
    for row in range(len(spans)):
        real = picture_ids[row] != 0
        expected = visible_pairs(picture_ids[row], question_ids[row])
        np.testing.assert_array_equal(ours[row][real], expected[real])


def test_spans_of_a_question_without_a_prefix():
    picture_ids, question_ids = packed_row([10, 20], [0, 30, 40])
    segments, spans = packed_spans(picture_ids[None], question_ids[None])
    keys = jnp.broadcast_to(jnp.arange(LENGTH), (LENGTH, LENGTH))
    may = attention_module._may_attend(jnp.broadcast_to(spans[0][:, None], keys.shape), keys)
    ours = np.asarray(may & (segments[0][:, None] == segments[0][None]))
    np.testing.assert_array_equal(ours[:100], visible_pairs(picture_ids, question_ids)[:100])


@pytest.mark.parametrize("block", [128, 256])
def test_splash_gives_what_plain_attention_gives(monkeypatch, block):
    monkeypatch.setattr(attention_module, "SPLASH_BLOCK", block)
    q, k, v = inputs(3)
    picture_ids, question_ids = packed_rows()
    ours = np.asarray(attention(q, k, v, packed_spans(picture_ids, question_ids)))
    for row in range(3):
        real = picture_ids[row] != 0
        expected = plain_attention(q[row], k[row], v[row], visible_pairs(picture_ids[row], question_ids[row]))
        np.testing.assert_allclose(ours[row][real], expected[real], atol=2e-6)
    assert np.isfinite(ours).all()


def test_splash_gradients_equal_those_of_the_masked_path():
    q, k, v = inputs(3)
    picture_ids, question_ids = packed_rows()
    weights = np.random.default_rng(1).normal(size=q.shape) * (picture_ids != 0)[:, :, None, None]

    def gradients(mask):
        def loss(q, k, v):
            return jnp.sum(attention(q, k, v, mask) * weights)

        return jax.grad(loss, argnums=(0, 1, 2))(q, k, v)

    ours = gradients(packed_spans(picture_ids, question_ids))
    theirs = gradients(packed_attention_mask(picture_ids, question_ids))
    for name, a, b in zip("qkv", ours, theirs):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()), err_msg=name)


@pytest.mark.parametrize("shape", [{"data": 2, "fsdp": 2}, {"fsdp": 2, "tensor": 2}], ids=str)
def test_splash_over_several_devices(shape):
    q, k, v = (np.concatenate([x, x[:1]]) for x in inputs(3))
    picture_ids, question_ids = (np.concatenate([x, x[:1]]) for x in packed_rows())
    mesh = sharding.make_mesh(shape, jax.devices()[:4])

    def run(q, k, v, picture_ids, question_ids):
        with sharding.over(mesh):
            return attention(q, k, v, packed_spans(picture_ids, question_ids))

    placed = sharding.put_batch({"q": q, "k": k, "v": v, "p": picture_ids, "i": question_ids}, mesh)
    ours = np.asarray(jax.jit(run)(*placed.values()))
    theirs = np.asarray(attention(q, k, v, packed_attention_mask(picture_ids, question_ids)))
    real = picture_ids != 0
    np.testing.assert_allclose(ours[real], theirs[real], atol=2e-6)


def test_attention_by_name():
    assert resolve_attention("auto", "tpu", 512) == "splash"
    assert resolve_attention("auto", "tpu", 160) == "xla"
    assert resolve_attention("auto", "cpu", 512) == resolve_attention("auto", "gpu", 512) == "xla"
    assert resolve_attention("cudnn", "gpu", 512) == "cudnn"
    with pytest.raises(ValueError, match="cudnn attention computes in bfloat16 only, not in float32"):
        resolve_attention("cudnn", "gpu", 512, "float32")
    with pytest.raises(ValueError, match=r"cudnn attention takes .*, not rows of 511 and heads of \[64\]"):
        resolve_attention("cudnn", "gpu", 511, head_dims=[64])
    with pytest.raises(ValueError, match=r"not rows of 512 and heads of \[20, 64\]"):
        resolve_attention("cudnn", "gpu", 512, head_dims=[20, 64])
    with pytest.raises(ValueError, match="splash attention takes rows of a multiple of 128 tokens up to 1024, not 160"):
        resolve_attention("splash", "tpu", 160)
    assert resolve_attention("splash", "tpu", 0) == "splash"  # rows of a length that the data will tell
    with pytest.raises(ValueError, match="splash attention needs a TPU, the devices are of platform 'cpu'"):
        resolve_attention("splash", "cpu", 512)
    with pytest.raises(ValueError, match="no attention 'flash', only auto, xla, splash, cudnn"):
        resolve_attention("flash", "tpu", 512)


@pytest.mark.parametrize("length", [160, 1152])
def test_rows_that_splash_cannot_take_are_refused(length):
    ids = np.ones((1, length), np.int32)
    with pytest.raises(ValueError, match=f"multiple of 128 tokens up to 1024, not {length}"):
        packed_spans(ids, 0 * ids)
