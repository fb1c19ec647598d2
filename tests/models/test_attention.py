"""Flat attention (in Pallas' interpreter) against the masked XLA path and a plain NumPy softmax, on packed rows."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smolrgpt_jax import sharding
from smolrgpt_jax.config import Compute, DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.models import flat_attention
from smolrgpt_jax.models.attention import (
    attend_flat,
    attention,
    packed_attention_mask,
    prompt_attention,
    resolve_attention,
)
from smolrgpt_jax.models.flat_attention import MASKED, Heads, flat_aside
from smolrgpt_jax.models.smollm import rotate
from smolrgpt_jax.models.smolrgpt import init_params
from smolrgpt_jax.training.step import gradients

LENGTH = 256


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    monkeypatch.setattr(
        flat_attention, "flat_attention", functools.partial(flat_attention.flat_attention, interpret=True)
    )


HEADS, KV_HEADS, DIM = 4, 2, 64
FLAT = Heads(HEADS, KV_HEADS, DIM)


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


def inputs(rows: int, length: int = LENGTH, heads: Heads = FLAT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(rows, length, n, heads.dim) for n in (heads.queries, heads.groups, heads.groups)]
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


def joined(q, k, v) -> jax.Array:
    """Queries, keys and values as one product leaves them: float[B, S, (H + 2 G) * D]."""
    return jnp.concatenate([x.reshape(*x.shape[:2], -1) for x in (q, k, v)], axis=-1)


def no_turn(rows: int, length: int) -> tuple[jax.Array, jax.Array]:
    return jnp.ones((rows, length, DIM // 2)), jnp.zeros((rows, length, DIM // 2))


@pytest.mark.parametrize("length", [128, 640])
def test_the_mask_in_words(length):
    rows = [[60, 30, 20], [3, 125]] if length == 128 else [[67, 40, 30, 60], [20, 9, 1, 30]]
    picture_ids, question_ids = (np.stack(ids) for ids in zip(*(packed_row(row, length=length) for row in rows)))
    mask = np.asarray(jax.jit(packed_attention_mask)(picture_ids, question_ids))
    for row in range(2):
        np.testing.assert_array_equal(mask[row], visible_pairs(picture_ids[row], question_ids[row]))


def test_flat_gives_what_plain_attention_gives():
    q, k, v = inputs(3)
    picture_ids, question_ids = packed_rows()

    @jax.jit
    def run(q, k, v):
        aside = flat_aside(packed_attention_mask(picture_ids, question_ids), no_turn(3, LENGTH))
        return attend_flat(joined(q, k, v), FLAT, *aside)

    ours = np.asarray(run(q, k, v)).reshape(q.shape)
    for row in range(3):
        real = picture_ids[row] != 0
        expected = plain_attention(q[row], k[row], v[row], visible_pairs(picture_ids[row], question_ids[row]))
        np.testing.assert_allclose(ours[row][real], expected[real], atol=2e-6)
    assert np.isfinite(ours).all()


@pytest.mark.parametrize(("queries", "keys"), [(300, 300), (40, 40), (150, 400)])
def test_what_a_causal_mask_spares_changes_nothing(queries, keys):
    """A packed row, one of a single block, and tokens that follow others; gradients too."""
    q, k, v = (x[:, :length] for x, length in zip(inputs(1, keys), (queries, keys, keys)))
    mask = visible_pairs(*packed_row([keys // 2, keys // 4, keys // 4], length=keys))[None, keys - queries :]
    assert mask.any(axis=-1).all()

    def summed(q, k, v, causal):
        out = attention(q, k, v, jnp.asarray(mask), causal=causal)
        return (out**2).sum(), out

    both = jax.jit(jax.value_and_grad(summed, (0, 1, 2), has_aux=True), static_argnums=3)
    (_, ours), gradients = both(q, k, v, True)
    np.testing.assert_allclose(ours[0], plain_attention(q[0], k[0], v[0], mask[0]), atol=2e-6)
    for ours, whole in zip(gradients, both(q, k, v, False)[1]):
        np.testing.assert_allclose(ours, whole, atol=1e-6 * float(np.abs(whole).max()))


def test_without_mask_and_positions_as_the_encoder_attends():
    q, k, v = inputs(2)
    ours = np.asarray(jax.jit(lambda *x: attend_flat(joined(*x), FLAT))(q, k, v)).reshape(q.shape)
    np.testing.assert_allclose(ours[1], plain_attention(q[1], k[1], v[1], np.ones((LENGTH, LENGTH))), atol=2e-6)


@pytest.mark.parametrize(
    ("length", "heads"),
    [(256, FLAT), (384, Heads(2, 1, 64)), (256, Heads(2, 1, 128)), (256, Heads(2, 1, 192))],
    ids=["pairs of heads", "queries and keys end within a pair", "heads as wide as lanes", "pairs wider than lanes"],
)
def test_flat_and_its_gradients_equal_those_of_turning_and_masking(length, heads):
    q, k, v = inputs(3, length, heads)
    picture_ids, question_ids = packed_rows(length)
    mask = packed_attention_mask(picture_ids, question_ids)
    rng = np.random.default_rng(1)
    turns = rng.normal(size=(3, length, heads.dim // 2)).astype(np.float32)
    angles, weights = (np.cos(turns), np.sin(turns)), rng.normal(size=q.shape).astype(np.float32)

    def flat(q, k, v):
        return attend_flat(joined(q, k, v), heads, *flat_aside(mask, angles)).reshape(q.shape)

    def plain(q, k, v):
        return attention(rotate(q, angles), rotate(k, angles), v, mask)

    def gradients_and_output(attend):
        def summed(*x):
            out = attend(*x)
            return jnp.sum(out * weights), out

        return jax.jit(jax.grad(summed, argnums=(0, 1, 2), has_aux=True))(q, k, v)

    (ours, out), (theirs, expected) = map(gradients_and_output, (flat, plain))
    np.testing.assert_allclose(out, expected, atol=2e-6)
    for name, a, b in zip("qkv", ours, theirs):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()), err_msg=name)


@pytest.mark.parametrize("shape", [{"data": 2, "fsdp": 2}, {"fsdp": 2, "tensor": 2}], ids=str)
def test_flat_over_several_devices(shape):
    q, k, v = (np.concatenate([x, x[:1]]) for x in inputs(3))
    picture_ids, question_ids = (np.concatenate([x, x[:1]]) for x in packed_rows())
    mesh = sharding.make_mesh(shape, jax.devices()[:4])

    def run(q, k, v, picture_ids, question_ids):
        with sharding.over(mesh):
            aside = flat_aside(packed_attention_mask(picture_ids, question_ids), no_turn(4, LENGTH))
            return attend_flat(joined(q, k, v), FLAT, *aside)

    placed = sharding.put_batch({"q": q, "k": k, "v": v, "p": picture_ids, "i": question_ids}, mesh)
    ours = np.asarray(jax.jit(run)(*placed.values())).reshape(q.shape)
    theirs = np.asarray(jax.jit(lambda *x: attention(*x, packed_attention_mask(picture_ids, question_ids)))(q, k, v))
    real = picture_ids != 0
    np.testing.assert_allclose(ours[real], theirs[real], atol=2e-6)


SMALL = SmolRGPTConfig(
    vision=VisionConfig(width=128, mlp_width=64, heads=2, layers=2, patch_size=8, image_size=128),
    decoder=DecoderConfig(width=192, mlp_width=64, heads=3, kv_heads=1, layers=2, vocab_size=60),
)


@pytest.mark.parametrize(
    ("mesh_shape", "strategy"),
    [
        pytest.param(None, "data", marks=pytest.mark.slow),
        ({"fsdp": 2, "tensor": 2}, "zero1"),
        pytest.param({"fsdp": 4}, "fsdp", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_training_step_computed_for_a_tpu_gives_the_gradients_of_the_plain_one(mesh_shape, strategy):
    params = init_params(SMALL, jax.random.key(0))
    trained = {n: p for n, p in params.items() if not n.startswith("vision")}
    frozen = {n: p for n, p in params.items() if n not in trained}
    rng = np.random.default_rng(0)
    fine, tokens = SMALL.mask_grid, (4, 128)
    picture_ids, question_ids = (np.stack([ids] * 4) for ids in packed_row([70, 20, 30], length=128))
    index = np.full(tokens, -1, np.int32)
    index[:, :64], index[:, 75:77] = np.arange(64), [64, 66]
    batch = {
        "tokens": rng.integers(0, 60, tokens), "positions": np.tile(np.arange(128), (4, 1)), "feature_index": index,
        "picture_ids": picture_ids, "question_ids": question_ids, "images": rng.normal(size=(4, 1, 128, 128, 3)),
        "depths": rng.normal(size=(4, 1, 128, 128, 3)), "region_masks": rng.integers(0, 2, (4, 1, 2, fine, fine)),
        "targets": np.where(rng.random(tokens) < 0.3, rng.integers(0, 60, tokens), -100),
    }  # fmt: skip
    ids = {"tokens", "positions", "feature_index", "picture_ids", "question_ids", "targets"}
    batch = {n: jnp.asarray(a, jnp.int32 if n in ids else jnp.float32) for n, a in batch.items()}
    mesh = None if mesh_shape is None else sharding.make_mesh(mesh_shape, jax.devices()[:4], strategy)
    plain = Compute(remat="none", attention="xla")
    fast = Compute(remat="full", attention="flat")
    expected, loss = jax.jit(lambda t, f, b: gradients(SMALL, t, f, b, compute=plain))(trained, frozen, batch)

    def run(t, f, b):
        with sharding.over(mesh):
            return gradients(SMALL, t, f, b, compute=fast, mesh=mesh, strategy=strategy)

    if mesh is not None:
        places = sharding.param_shardings(params, mesh, strategy)
        trained, frozen = ({n: jax.device_put(p, places[n]) for n, p in group.items()} for group in (trained, frozen))
        batch = sharding.put_batch(batch, mesh)
    found, same = jax.jit(run)(trained, frozen, batch)
    assert float(same) == pytest.approx(float(loss), rel=1e-5)
    for name, gradient in expected.items():
        scale = float(np.abs(gradient).max())
        np.testing.assert_allclose(found[name], gradient, atol=1e-4 * scale + 1e-9, err_msg=name)


def test_attention_by_name():
    assert resolve_attention("auto", "tpu", 512) == "flat"
    assert resolve_attention("auto", "tpu", 512, head_dims=[64, 24]) == "xla"
    assert resolve_attention("auto", "tpu", 160) == "xla"
    assert resolve_attention("auto", "cpu", 512) == resolve_attention("auto", "gpu", 512) == "xla"
    assert resolve_attention("cudnn", "gpu", 512) == "cudnn"
    with pytest.raises(ValueError, match="cudnn attention computes in bfloat16 only, not in float32"):
        resolve_attention("cudnn", "gpu", 512, "float32")
    with pytest.raises(ValueError, match=r"cudnn attention takes .*, not rows of 511 and heads of \[64\]"):
        resolve_attention("cudnn", "gpu", 511, head_dims=[64])
    with pytest.raises(ValueError, match=r"not rows of 512 and heads of \[20, 64\]"):
        resolve_attention("cudnn", "gpu", 512, head_dims=[20, 64])
    for length, dim in ((160, 64), (1152, 64), (512, 96)):
        taken = "rows of a multiple of 128 tokens up to 1024 and heads of a multiple of 64"
        with pytest.raises(
            ValueError, match=rf"flat attention takes {taken}, not rows of {length} and heads of \[{dim}\]"
        ):
            resolve_attention("flat", "tpu", length, head_dims=[dim])
    assert resolve_attention("flat", "tpu", 0) == "flat"  # rows of a length that the data will tell
    with pytest.raises(ValueError, match="flat attention needs a TPU, the devices are of platform 'cpu'"):
        resolve_attention("flat", "cpu", 512)
    with pytest.raises(ValueError, match="no attention 'flash', only auto, xla, flat, cudnn"):
        resolve_attention("flash", "tpu", 512)


@pytest.mark.parametrize("masked", [True, False])
def test_the_gradient_written_out_is_that_of_softmax(masked):
    """Groups of heads, queries that see one key and queries that see none."""
    q, k, v = inputs(2, 40)
    mask = np.tril(np.random.default_rng(1).random((2, 40, 40)) < 0.5)
    mask[:, 0, 0], mask[:, 7] = True, False
    mask = jnp.asarray(mask) if masked else None
    weights = jnp.asarray(np.random.default_rng(2).normal(size=q.shape), jnp.float32)

    def by_softmax(q, k, v):
        k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
        scores = jnp.einsum("bshd,bkhd->bhsk", q, k) * q.shape[-1] ** -0.5
        scores = scores if mask is None else jnp.where(mask[:, None], scores, MASKED)
        return jnp.einsum("bhsk,bkhd->bshd", jax.nn.softmax(scores), v)

    ours, expected = (
        jax.jit(jax.grad(lambda *x: jnp.sum(f(*x) * weights), (0, 1, 2)))(q, k, v)
        for f in (lambda q, k, v: attention(q, k, v, mask), by_softmax)
    )
    for name, a, b in zip("qkv", ours, expected):
        np.testing.assert_allclose(a, b, atol=2e-6 * float(np.abs(b).max()), err_msg=name)


@pytest.mark.parametrize(("platform", "queries"), [("tpu", 40), ("tpu", 25), ("default", 25)])
def test_prompts_are_read_alike_on_every_platform(monkeypatch, platform, queries):
    """Whole prompts, and tokens that follow others."""
    q, k, v = inputs(2, 40)
    q, mask = q[:, -queries:], jnp.asarray(np.tril(np.ones((2, 40, 40), bool))[:, -queries:])
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *x, **ways: ways[platform](*x))
    expected = [plain_attention(*row) for row in zip(q, k, v, np.asarray(mask))]
    np.testing.assert_allclose(prompt_attention(q, k, v, mask), expected, atol=2e-6)
