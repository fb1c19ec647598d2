"""Every module against live PyTorch on random weights of awkward sizes: outputs and gradients."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import transformers

from convert.torch_model import random_torch
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint.mapping import entries
from smolrgpt_jax.config import Compute, DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.generation.decode import decode_weights
from smolrgpt_jax.models.attention import packed_attention_mask
from smolrgpt_jax.models.mask_pooling import mask_pooling
from smolrgpt_jax.models.smollm import unstacked_blocks
from smolrgpt_jax.models.smolrgpt import bind, loss_sums

MODULE_TOLERANCE = 1e-5
LOGITS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-4
# LLVM takes most of these tests' time, and how it optimises is not what they are about: the whole model runs
# compiled as always in `test_composition` and against the golden files.
QUICK = {"xla_backend_optimization_level": 0}

CONFIGS = {
    # Three heads of 12, six query heads on two key-value heads of 10, untied head, padded vocabulary, odd
    # grid and factor.
    "untied": SmolRGPTConfig(
        vision=VisionConfig(width=36, mlp_width=52, heads=3, layers=3, patch_size=4, image_size=36),
        decoder=DecoderConfig(width=60, mlp_width=44, heads=6, kv_heads=2, layers=3, vocab_size=131, tied_head=False),
        shuffle_factor=3,
    ),
    # One key-value head, tied head, a vocabulary that needs no padding, no shuffling, other epsilons and
    # rotary settings.
    "tied": SmolRGPTConfig(
        vision=VisionConfig(
            width=20, mlp_width=28, heads=5, layers=2, patch_size=3, image_size=15, layer_norm_eps=1e-5
        ),
        decoder=DecoderConfig(
            width=42,
            mlp_width=50,
            heads=3,
            kv_heads=1,
            layers=2,
            vocab_size=128,
            rms_norm_eps=1e-6,
            rope_base=5000.0,
            rope_scale=1.1,
        ),
        shuffle_factor=1,
    ),
}


class Pair:
    """The same random weights in both frameworks; ours are read from the folder that the PyTorch side
    wrote."""

    def __init__(self, config, folder, seed=0, change=None):
        self.torch = random_torch(config, seed)
        if change is not None:
            with torch.no_grad():
                change(self.torch)
        self.torch.save(folder)
        self.jax = load(folder)
        self.config = self.jax.config

    def run(self, ours, theirs, inputs, *, compute=Compute(), weight=None, tolerance=MODULE_TOLERANCE):
        """Compares outputs, and the gradients of sum(output * random weights) to every parameter and input.

        ours: (model, *inputs) -> array in JAX; theirs: (*inputs) -> tensor; inputs: float32 arrays;
        weight: multiplies the random weights, zero where an output does not count.
        """
        self.torch.network.zero_grad()
        tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
        expected = theirs(*tensors)
        cotangent = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)
        counted = np.ones_like(cotangent) if weight is None else np.broadcast_to(weight, expected.shape)
        (expected * torch.tensor(cotangent * counted)).sum().backward()

        @functools.partial(jax.jit, compiler_options=QUICK)
        def both(params, inputs):
            out, pull = jax.vjp(lambda p, x: ours(bind(self.config, p, compute), *x), params, inputs)
            return out, pull(jnp.asarray(cotangent * counted))

        out, (gradients, input_gradients) = both(self.jax.params, list(inputs))
        out, expected = np.asarray(out), expected.detach().numpy()
        assert difference(out[counted != 0], expected[counted != 0]) <= tolerance
        for got, tensor in zip(input_gradients, tensors):
            assert difference(np.asarray(got), tensor.grad.numpy()) <= GRADIENT_TOLERANCE
        assert_same_gradients(self.config, gradients, self.torch.gradients())
        self.torch.network.zero_grad()


def difference(ours, theirs) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(np.float64) - theirs).max() / np.abs(theirs).max())


def in_torch_names(config, values):
    """{PyTorch name: array} of our parameters; the tied head under the name that PyTorch stores."""
    named = {
        e.torch: e.to_torch(np.asarray(values[e.jax] if e.layer is None else values[e.jax][e.layer]))
        for e in entries(config)
    }
    if config.decoder.tied_head:
        named["decoder.head.weight"] = named.pop("decoder.token_embedding.weight")
    return named


def assert_same_gradients(config, ours, theirs):
    ours = in_torch_names(config, ours)
    assert theirs.keys() <= ours.keys()
    for name, got in ours.items():
        if name in theirs:
            assert difference(got, theirs[name]) <= GRADIENT_TOLERANCE, name
        else:
            assert not got.any(), name


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, tmp_path_factory):
    return Pair(CONFIGS[request.param], tmp_path_factory.mktemp("live") / "torch")


def pictures(config, count, seed=0):
    size = config.vision.image_size
    return np.random.default_rng(seed).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def encode(model, images):
    return model.vision_encoder(images)


@pytest.mark.parametrize(("name", "layers", "scan"), [("untied", 1, True), ("untied", 2, False), ("tied", 5, True)])
def test_encoder_of_every_depth(tmp_path, name, layers, scan):
    base = CONFIGS[name]
    config = base.replace(vision=dataclasses.replace(base.vision, layers=layers))
    pair = Pair(config, tmp_path / "torch")
    pair.run(encode, pair.torch.encode, [pictures(config, 2)], compute=Compute(scan_layers=scan))


@pytest.mark.parametrize("kind", ["rgb", "depth"])
def test_connector(pair, kind):
    v = pair.config.vision
    pair.run(
        lambda model, x: getattr(model, f"{kind}_connector")(x),
        lambda x: pair.torch.connect(kind, x),
        [normal(2, v.grid**2, v.width)],
    )


@pytest.mark.parametrize(("kind", "scale"), [("rgb", 1.0), ("depth", 1e-3)])
def test_refiner(pair, kind, scale):
    """Small inputs leave the channel norms little variance, so that their epsilon counts."""
    c = pair.config
    pair.run(
        lambda model, x: getattr(model, f"{kind}_refiner")(x),
        lambda x: pair.torch.refine(kind, x),
        [scale * normal(2, c.image_tokens, c.decoder.width)],
    )


def test_mask_pooling(pair):
    grid = pair.config.mask_grid
    masks = np.random.default_rng(0).random((2, grid, grid, 3)) < [0.5, 0.02, 0.0]
    pair.run(
        lambda model, x: mask_pooling(x, jnp.asarray(masks.transpose(0, 3, 1, 2), jnp.float32)),
        lambda x: torch.stack([pair.torch.pool(row, mask) for row, mask in zip(x, masks)]),
        [normal(2, grid**2, pair.config.decoder.width)],
    )


PADDING = np.array([[0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], [1] * 11])


def decode(model, x, mask=PADDING):
    positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    return model.decoder(x, positions, packed_attention_mask(mask, np.zeros_like(mask)))[0]


@pytest.mark.parametrize(
    ("name", "layers", "scan"), [("untied", 1, True), ("untied", 4, False), ("tied", 1, False), ("tied", 4, True)]
)
def test_decoder_of_every_depth(tmp_path, name, layers, scan):
    """One layer is one block and the final norm."""
    base = CONFIGS[name]
    config = base.replace(decoder=dataclasses.replace(base.decoder, layers=layers))
    pair = Pair(config, tmp_path / "torch")
    pair.run(
        decode,
        lambda x: pair.torch.decode(x, torch.tensor(PADDING)),
        [normal(2, 11, config.decoder.width)],
        compute=Compute(scan_layers=scan),
        weight=PADDING[..., None],
    )


@pytest.mark.parametrize("scale", [1.0, 3e-3])
def test_logits_of_the_decoder(pair, scale):
    """Small inputs leave the first norm little variance, so that its epsilon counts."""
    vocab = pair.config.decoder.vocab_size
    pair.run(
        lambda model, x: model.decoder.logits(decode(model, x))[..., :vocab],
        lambda x: pair.torch.decoder.lm_head(pair.torch.decode(x, torch.tensor(PADDING))),
        [scale * normal(2, 11, pair.config.decoder.width)],
        weight=PADDING[..., None],
        tolerance=LOGITS_TOLERANCE,
    )


def test_small_activations_in_the_encoder(tmp_path):
    """Patches and positions of size 1e-3 leave the norms little variance, so that their epsilon counts."""

    def shrink(model):
        for parts in (v for k, v in model.parameters_by_name().items() if "patch_embedding" in k):
            parts[0].mul_(1e-3)

    config = CONFIGS["untied"].replace(vision=dataclasses.replace(CONFIGS["untied"].vision, layers=1))
    pair = Pair(config, tmp_path / "torch", change=shrink)
    pair.run(encode, pair.torch.encode, [pictures(config, 2)])


def test_decoder_with_cache(pair):
    """Prefill of four tokens, then one at a time: equal to our uncached pass and to transformers with its own
    cache."""
    d = pair.config.decoder
    x = normal(2, 11, d.width)
    cached = transformers_cached(pair.torch, x, prefill=4)
    columns = 16  # more than the sequence needs, as in generation
    positions = np.maximum(np.cumsum(PADDING, axis=1) - 1, 0)
    visible = np.asarray(packed_attention_mask(PADDING, np.zeros_like(PADDING)))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def prefill(params):
        hidden, kept = bind(pair.config, params).decoder(x[:, :4], positions[:, :4], visible[:, :4, :4], keep=True)
        keys, values = (jnp.pad(part, ((0, 0), (0, 0), (0, columns - 4), (0, 0), (0, 0))) for part in kept)
        return hidden, [(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)) for k, v in zip(keys, values)]

    @functools.partial(jax.jit, compiler_options=QUICK)
    def step(weights, cache, x, positions, visible, column):
        blocks = unstacked_blocks(pair.config.decoder, weights.layers)
        return weights.model.decoder.decode(blocks, x, positions, visible, cache, column)

    hidden, cache = prefill(pair.jax.params)
    weights = decode_weights(pair.config, Compute(), pair.jax.params)
    parts = [hidden]
    for i in range(4, 11):
        seen = np.pad(visible[:, i], ((0, 0), (0, columns - 11)))
        hidden, cache = step(weights, cache, x[:, i], positions[:, i], seen, i)
        parts.append(hidden[:, None])
    ours = np.concatenate(parts, axis=1)[PADDING != 0]
    uncached = np.asarray(jax.jit(lambda p: decode(bind(pair.config, p), x))(pair.jax.params))
    assert difference(ours, uncached[PADDING != 0]) <= MODULE_TOLERANCE
    assert difference(ours, cached[PADDING != 0]) <= MODULE_TOLERANCE


def transformers_cached(model, x, prefill):
    """Hidden states [B, S, D] of transformers' decoder, the first `prefill` positions at once, then one by
    one."""
    cache, parts = transformers.DynamicCache(), []
    mask = torch.tensor(PADDING)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    bounds = [0, *range(prefill, x.shape[1] + 1)]
    with torch.no_grad():
        for begin, end in zip(bounds, bounds[1:]):
            out = model.decoder.model(
                inputs_embeds=torch.tensor(x[:, begin:end]),
                attention_mask=mask[:, :end],
                position_ids=positions[:, begin:end],
                past_key_values=cache,
                use_cache=True,
            )
            parts.append(out.last_hidden_state)
    return torch.cat(parts, dim=1).numpy()


def test_positions_past_the_longest(tmp_path):
    """Rotary frequencies are divided by length / longest position."""
    base = CONFIGS["untied"]
    config = base.replace(decoder=dataclasses.replace(base.decoder, max_positions=7))
    pair = Pair(config, tmp_path / "torch")
    pair.run(
        decode,
        lambda x: pair.torch.decode(x, torch.tensor(PADDING)),
        [normal(2, 11, config.decoder.width)],
        weight=PADDING[..., None],
    )


class Batch:
    """Left-padded conversations whose samples have different lengths and numbers of regions; every answer is
    the last four tokens."""

    def __init__(self, config, regions=(2, 0, 5), seed=0):
        rng = np.random.default_rng(seed)
        vocab = config.decoder.vocab_size
        rows = []
        for count in regions:
            pairs = [[*rng.integers(3, vocab - 3, 2), vocab - 2, vocab - 1] for _ in range(count)]
            rows.append(
                np.concatenate(
                    [
                        rng.integers(3, vocab - 3, 2),
                        np.full(config.image_tokens, vocab - 3),
                        *pairs,
                        rng.integers(3, vocab - 3, 7),
                    ]
                ).astype(np.int32)
            )
        length = max(map(len, rows))
        self.ids = np.full((len(rows), length), 2, np.int32)
        self.mask = np.zeros_like(self.ids)
        self.targets = np.full_like(self.ids, -100)
        for i, row in enumerate(rows):
            self.ids[i, length - len(row) :] = row
            self.mask[i, length - len(row) :] = 1
        self.targets[:, -5:-1] = self.ids[:, -4:]
        self.images, self.depths = pictures(config, len(rows), 1), pictures(config, len(rows), 2)
        self.masks = [rng.random((31, 23, count)) < 0.3 for count in regions]

    @property
    def arguments(self):
        return self.ids, self.mask, self.images, self.depths, self.masks


@pytest.mark.parametrize("regions", [(2, 0, 5), None], ids=["regions", "rgb_only"])
def test_composition(pair, regions):
    batch = Batch(pair.config, regions or (2, 0, 5))
    arguments = batch.arguments if regions else batch.arguments[:3]
    ours, theirs = pair.jax.forward(*arguments), pair.torch.forward(*arguments)
    assert theirs.keys() <= ours.keys()
    valid = batch.mask != 0
    for name, expected in theirs.items():
        got = ours[name]
        if name in ("hidden", "logits"):
            got, expected = got[valid], expected[valid]
        assert difference(got, expected) <= (LOGITS_TOLERANCE if name == "logits" else MODULE_TOLERANCE), name


def test_loss_and_its_gradients(pair):
    """To every parameter of the model and to both pictures; layers scanned in one configuration, unrolled in
    the other."""
    batch = Batch(pair.config)
    images, depths = (torch.tensor(x, requires_grad=True) for x in (batch.images, batch.depths))
    pair.torch.network.zero_grad()
    logits = pair.torch.outputs(batch.ids, batch.mask, images, depths, batch.masks)["logits"]
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(batch.targets, dtype=torch.int64).flatten()
    )
    expected.backward()
    compute = Compute(scan_layers=not pair.config.decoder.tied_head)
    arrays = pair.jax._batch(*batch.arguments)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both(params, images, depths):
        def loss(params, images, depths):
            out = bind(pair.config, params, compute)({**arrays, "images": images, "depths": depths})
            sums, counts = loss_sums(out["logits"], batch.targets)
            return sums.sum() / counts.sum()

        return jax.value_and_grad(loss, argnums=(0, 1, 2))(params, images, depths)

    loss, (gradients, *of_pictures) = both(pair.jax.params, arrays["images"], arrays["depths"])
    np.testing.assert_allclose(float(loss), expected.item(), rtol=1e-5)
    assert_same_gradients(pair.config, gradients, pair.torch.gradients())
    for got, tensor in zip(of_pictures, (images, depths)):
        assert difference(np.asarray(got)[:, 0], tensor.grad.numpy()) <= GRADIENT_TOLERANCE
    pair.torch.network.zero_grad()


# Relative norm of the error of bfloat16 outputs; one rounding is 2^-9 = 0.002, and the sharp attention of the
# random decoder multiplies it: PyTorch's own logits are 0.05 to 0.08 off.
BFLOAT16_TOLERANCE = {
    "vision_features_rgb": 0.03,
    "image_tokens": 0.03,
    "rgb_refined": 0.03,
    "region_depth": 0.01,
    "hidden": 0.08,
    "logits": 0.08,
}


@pytest.mark.parametrize(("name", "scan"), [("untied", True), ("tied", False)])
def test_bfloat16_is_as_exact_as_pytorch(tmp_path, name, scan):
    """Against float32 PyTorch, our error stays below a fixed bound and is no larger than PyTorch's in
    bfloat16."""
    pair = Pair(CONFIGS[name], tmp_path / "torch")
    batch = Batch(pair.config)
    valid = batch.mask != 0
    exact = pair.torch.forward(*batch.arguments)
    pair.torch.dtype = torch.bfloat16
    pair.torch.network.to(torch.bfloat16)
    theirs = pair.torch.forward(*batch.arguments)
    compute = Compute(dtype="bfloat16", scan_layers=scan)
    ours = dataclasses.replace(pair.jax, compute=compute).forward(*batch.arguments)

    def error(out, output):
        got, expected = out[output], exact[output]
        if output in ("hidden", "logits"):
            got, expected = got[valid], expected[valid]
        return np.linalg.norm(got - expected) / np.linalg.norm(expected)

    for output, bound in BFLOAT16_TOLERANCE.items():
        assert error(ours, output) <= min(bound, 1.1 * error(theirs, output)), output


def test_greedy_answers(pair):
    batch = Batch(pair.config, regions=(1, 3, 0, 6), seed=3)
    np.testing.assert_array_equal(
        pair.jax.generate(*batch.arguments, max_new_tokens=24),
        pair.torch.generate(*batch.arguments, max_new_tokens=24, eos_id=pair.jax.eos_id),
    )
