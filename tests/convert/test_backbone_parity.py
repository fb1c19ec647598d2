"""The backbones against transformers' own models as its users run them: default initialisation, attention and
generation."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")  # which imports a model when it is named

from convert.torch_model import random_torch
from smolrgpt_jax import load
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.models.smolrgpt import bind

MODULE_TOLERANCE = 1e-5
NEW_TOKENS = 50
# The published model's proportions: four patches of 16 per side, 15 query heads on 5 key-value heads, a tied
# head.
CONFIG = SmolRGPTConfig(
    vision=VisionConfig(width=96, mlp_width=384, heads=6, layers=4, patch_size=16, image_size=64),
    decoder=DecoderConfig(width=120, mlp_width=320, heads=15, kv_heads=5, layers=5, vocab_size=515),
)


def difference(ours, theirs) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(np.float64) - theirs).max() / np.abs(theirs).max())


@pytest.fixture(scope="module")
def siglip():
    v = CONFIG.vision
    torch.manual_seed(0)
    return transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(
            hidden_size=v.width,
            intermediate_size=v.mlp_width,
            num_hidden_layers=v.layers,
            num_attention_heads=v.heads,
            image_size=v.image_size,
            patch_size=v.patch_size,
            vision_use_head=False,
        )
    ).eval()


@pytest.fixture(scope="module")
def llama():
    d = CONFIG.decoder
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=d.vocab_size,
            hidden_size=d.width,
            intermediate_size=d.mlp_width,
            num_hidden_layers=d.layers,
            num_attention_heads=d.heads,
            num_key_value_heads=d.kv_heads,
            max_position_embeddings=d.max_positions,
            rms_norm_eps=d.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": d.rope_base},
            tie_word_embeddings=True,
            initializer_range=0.12,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    ).eval()


@pytest.fixture(scope="module")
def model(siglip, llama, tmp_path_factory):
    """Our model with both backbones' weights."""
    folder = tmp_path_factory.mktemp("backbones") / "torch"
    composed = random_torch(CONFIG, 0)
    composed.vision.load_state_dict(siglip.state_dict())
    composed.decoder.load_state_dict(llama.state_dict())
    composed.save(folder)
    return load(folder)


def first_layers(model, tower, part, layers):
    """Our model cut after some layers of one tower."""
    config = model.config.replace(**{part: dataclasses.replace(getattr(model.config, part), layers=layers)})
    blocks = f"{tower}/blocks/"
    return config, {n: v[:layers] if n.startswith(blocks) else v for n, v in model.params.items()}


@pytest.mark.parametrize("layers", [1, 3, 4])
def test_hidden_states_of_siglip(model, siglip, layers):
    """After every number of layers, with the final norm."""
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        states = siglip(torch.tensor(images.transpose(0, 3, 1, 2)), output_hidden_states=True).hidden_states
        expected = siglip.post_layernorm(states[layers]).numpy()
    config, params = first_layers(model, "vision_encoder", "vision", layers)
    ours = jax.jit(lambda p: bind(config, p).vision_encoder(images))(params)
    assert difference(np.asarray(ours), expected) <= MODULE_TOLERANCE


def text(rows=3, length=20):
    """Left-padded random text: ids, mask."""
    rng = np.random.default_rng(1)
    ids = rng.integers(3, CONFIG.decoder.vocab_size - 3, (rows, length))
    mask = (np.arange(length) >= np.array([[0], [7], [13]])).astype(np.int64)
    return np.where(mask, ids, 2), mask


def no_pictures(rows=3):
    return np.zeros((rows, CONFIG.vision.image_size, CONFIG.vision.image_size, 3), np.float32)


@pytest.mark.parametrize("layers", [1, 4, 5])
def test_hidden_states_of_llama(model, llama, layers):
    ids, mask = text()
    positions = np.maximum(mask.cumsum(1) - 1, 0)
    with torch.no_grad():
        # The last of transformers' hidden states is already normed.
        out = llama.model(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            position_ids=torch.tensor(positions),
            output_hidden_states=True,
        )
        last = layers == CONFIG.decoder.layers
        expected = out.last_hidden_state if last else llama.model.norm(out.hidden_states[layers])
    config, params = first_layers(model, "decoder", "decoder", layers)
    ours = dataclasses.replace(model, config=config, params=params).forward(ids, mask, no_pictures())
    ours = ours["hidden"]
    assert difference(ours[mask != 0], expected.numpy()[mask != 0]) <= MODULE_TOLERANCE


def assert_varied(ids):
    """Answers that repeat one token would hide errors."""
    assert min(len(set(row)) for row in ids.tolist()) >= NEW_TOKENS // 5


def test_greedy_text_equals_transformers(model, llama):
    ids, mask = text()
    with torch.no_grad():
        expected = llama.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=model.eos_id,
            pad_token_id=model.eos_id,
        )[:, ids.shape[1] :].numpy()
    assert_varied(expected)
    ours = model.generate(ids, mask, no_pictures(), max_new_tokens=NEW_TOKENS)
    np.testing.assert_array_equal(ours, expected)


def test_greedy_answers_with_pictures_equal_pytorch(tmp_path):
    """Fifty tokens about pictures with regions, and the answer depends on the picture."""
    theirs = random_torch(CONFIG, 1)
    theirs.save(tmp_path / "torch")
    ours = load(tmp_path / "torch")
    ids, mask = text()
    image, rgb, depth = (CONFIG.decoder.vocab_size - n for n in (3, 2, 1))
    picture = np.full((3, CONFIG.image_tokens), image)
    ids = np.concatenate([ids[:, :14], picture, ids[:, 14:], [[rgb, depth, 9]] * 3], axis=1)
    mask = np.pad(mask, ((0, 0), (0, CONFIG.image_tokens + 3)), constant_values=1)
    rng = np.random.default_rng(2)
    images, depths = rng.uniform(-1, 1, (2, 3, 64, 64, 3)).astype(np.float32)
    masks = [rng.random((50, 70, 1)) < 0.4 for _ in range(3)]
    expected = theirs.generate(ids, mask, images, depths, masks, NEW_TOKENS, ours.eos_id)
    assert_varied(expected)
    np.testing.assert_array_equal(ours.generate(ids, mask, images, depths, masks, max_new_tokens=NEW_TOKENS), expected)
    other = ours.generate(ids, mask, images[::-1], depths, masks, max_new_tokens=NEW_TOKENS)
    assert (other != expected).any()
