"""A small random model that answers at various lengths, and procedural questions for it."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.images import load_depth, load_rgb
from smolrgpt_jax.data.masks import decode
from smolrgpt_jax.data.prompts import plan_prompts, prompt_shape
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.generation.engine import AnswerOptions, answer_prompts
from smolrgpt_jax.model import Model
from smolrgpt_jax.models.smolrgpt import abstract_params
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse

TOKENIZER = Path(__file__).parents[1] / "data_files" / "text" / "tokenizer"


def small_model() -> Model:
    """Random weights; the head is large, so that the best token leads clearly, and largest for the end of the answer.

    Tokens that stand for features are never written: `Model.forward` takes no more of them than there are features.
    """
    tokenizer = ChatTokenizer.load(TOKENIZER)
    config = SmolRGPTConfig(
        vision=VisionConfig(width=32, mlp_width=64, heads=2, layers=1, patch_size=8, image_size=32),
        decoder=DecoderConfig(
            width=48, mlp_width=96, heads=4, kv_heads=2, layers=2, vocab_size=tokenizer.vocab_size, tied_head=False
        ),
    )
    rng = np.random.default_rng(9)
    params = {}
    for name, shape in abstract_params(config).items():
        stddev = 0.5 if name in ("decoder/token_embedding", "decoder/head") else 0.15
        value = rng.normal(0, stddev, shape.shape) + name.endswith("scale")
        params[name] = jnp.asarray(value, jnp.float32)
    never = np.array([tokenizer.image_id, tokenizer.mask_rgb_id, tokenizer.mask_depth_id])
    params["decoder/head"] = params["decoder/head"].at[tokenizer.eos_id].multiply(2.0).at[never].set(0.0)
    return Model(config, params, tokenizer)


@pytest.fixture(scope="session")
def model() -> Model:
    return small_model()


def small_warehouse(folder: Path) -> Path:
    """Writes procedural questions into a new folder, and returns it."""
    config = WarehouseConfig(scenes=5, val_scenes=0, test_scenes=0, seed=3, width=96, height=54, max_pallets=5)
    make_warehouse(folder, config, workers=1)
    return folder


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory) -> Path:
    return small_warehouse(tmp_path_factory.mktemp("generation") / "data")


@pytest.fixture(scope="session")
def pictures(warehouse) -> list[Picture]:
    return read_warehouse(warehouse, "train")


def answer_each(model: Model, pictures: list[Picture], max_new_tokens: int, **options) -> dict[str, np.ndarray]:
    """The simple path: one question with its own picture per row, left-padded, `Model.generate`: {id: int32[N]}."""
    names, arrays = _rows(model, pictures, {})
    generated = model.generate(*arrays, max_new_tokens=max_new_tokens, **options)
    return dict(zip(names, generated, strict=True))


def teacher_forced(model: Model, pictures: list[Picture], answers: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Logits float32[N, vocabulary] of each answer's tokens from one forward pass, without any cache."""
    names, arrays = _rows(model, pictures, answers)
    logits = model.forward(*arrays)["logits"]
    return {name: row[-len(answers[name]) - 1 : -1] for name, row in zip(names, logits, strict=True) if answers[name]}


def _rows(
    model: Model, pictures: list[Picture], answers: dict[str, list[int]]
) -> tuple[list[str], tuple[np.ndarray | list[np.ndarray], ...]]:
    """Question ids, and the arguments of `Model.forward`: prompts with answers behind them, if any, left-padded."""
    size, tokenizer = model.config.vision.image_size, model.tokenizer
    asked = [(picture, question) for picture in pictures for question in picture.questions]
    prefix = tokenizer.prefix(model.config.image_tokens)
    prompts = [
        np.concatenate([prefix, tokenizer.question(q.prompt)[0], np.array(answers.get(q.id, []), np.int32)])
        for _, q in asked
    ]
    longest = max(map(len, prompts))
    arrays = (
        np.stack([np.pad(p, (longest - len(p), 0), constant_values=tokenizer.pad_id) for p in prompts]),
        np.stack([np.arange(longest) >= longest - len(p) for p in prompts]),
        np.stack([load_rgb(picture.image, size) for picture, _ in asked]),
        np.stack([load_depth(picture.depth, size) for picture, _ in asked]),
        [np.stack([decode(region) for region in q.regions], axis=-1) for _, q in asked],
    )
    return [question.id for _, question in asked], arrays


def answer_ids(
    model: Model, pictures: list[Picture], options: AnswerOptions, lengths: dict[str, int] | None = None, **planned
) -> dict[str, list[int]]:
    """The engine's ids of all answers."""
    prompts = plan_prompts(pictures, model.tokenizer, prompt_shape(model.config), **planned)
    answers = {}
    for finished in answer_prompts(model, prompts, options, lengths):
        assert not answers.keys() & finished.keys(), "a question was answered twice"
        answers |= {name: ids.tolist() for name, ids in finished.items()}
    return answers
