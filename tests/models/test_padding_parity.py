"""The same question gets the logits that PyTorch gives it alone and unpadded, however it is padded or
packed."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("torch")

from pycocotools import mask as coco

from convert.torch_model import random_torch
from smolrgpt_jax import load
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.masks import RLE, decode, resample_rle
from smolrgpt_jax.data.records import Picture, Question
from smolrgpt_jax.data.rows import PackedPicture, RowShape, TokenisedQuestions, empty_batch, fill_text
from smolrgpt_jax.models.smolrgpt import bind, loss_sums

LOGITS_TOLERANCE = 1e-4
TOKENIZER = ChatTokenizer.load(Path(__file__).parents[1] / "data_files" / "text" / "tokenizer")
CONFIG = SmolRGPTConfig(
    vision=VisionConfig(width=24, mlp_width=36, heads=2, layers=2, patch_size=8, image_size=48),
    decoder=DecoderConfig(width=48, mlp_width=40, heads=6, kv_heads=3, layers=3, vocab_size=TOKENIZER.vocab_size),
)
PROMPTS = [
    ("Is the pallet <mask> left of the pallet <mask>?", "[Region 0] is left of [Region 1].", [0, 1]),
    ("How many pallets are in <mask>?", "There are 3 pallets.", [2]),
    ("Which of <mask> <mask> <mask> <mask> is empty?", "[Region 2] is empty.", [3, 0, 2, 1]),
    ("Describe the picture.", "A warehouse with shelves and a transporter.", []),
]


def region(rng: np.random.Generator) -> RLE:
    mask = (rng.random((45, 80)) < 0.2).astype(np.uint8)
    return RLE(45, 80, coco.encode(np.asfortranarray(mask))["counts"])


class Questions:
    """Two pictures; the first carries three of the questions."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        size = CONFIG.vision.image_size
        self.images, self.depths = rng.uniform(-1, 1, (2, 2, size, size, 3)).astype(np.float32)
        self.owners = [0, 0, 0, 1]
        regions = [[region(rng) for _ in range(4)] for _ in range(2)]
        self.questions = [
            Question(str(i), "distance", text, answer, None, tuple(regions[owner][r] for r in used))
            for i, (owner, (text, answer, used)) in enumerate(zip(self.owners, PROMPTS))
        ]
        self.pictures = [
            Picture(
                str(p),
                Path(f"{p}.png"),
                Path(f"{p}_depth.png"),
                tuple(q for q, owner in zip(self.questions, self.owners) if owner == p),
            )
            for p in range(2)
        ]
        prefix = TOKENIZER.prefix(CONFIG.image_tokens)
        encoded = [TOKENIZER.question(q.prompt, q.answer) for q in self.questions]
        self.ids = [np.concatenate([prefix, ids]) for ids, _ in encoded]
        self.answers = [len(prefix) + start for _, start in encoded]
        self.prefix = len(prefix)

    def arguments(self, i: int) -> tuple:
        """One question alone, unpadded: the arguments of `forward`."""
        ids = self.ids[i][None]
        dense = [decode(r) for r in self.questions[i].regions]
        masks = np.stack(dense, -1) if dense else np.zeros((45, 80, 0), np.uint8)
        owner = slice(self.owners[i], self.owners[i] + 1)
        return ids, np.ones_like(ids), self.images[owner], self.depths[owner], [masks]

    def targets(self, i: int) -> np.ndarray:
        targets = np.full(len(self.ids[i]), -100, np.int32)
        targets[self.answers[i] - 1 : -1] = self.ids[i][self.answers[i] :]
        return targets


@pytest.fixture(scope="module")
def questions():
    return Questions()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("padding") / "torch"
    theirs = random_torch(CONFIG, 5)
    theirs.save(folder)
    return load(folder), theirs


@pytest.fixture(scope="module")
def expected(models, questions):
    """Every question's logits from PyTorch, alone and unpadded: float32[S, vocab] each."""
    return [models[1].forward(*questions.arguments(i))["logits"][0] for i in range(4)]


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= LOGITS_TOLERANCE * np.abs(theirs).max()


def padded(questions: Questions, length: int) -> tuple:
    """All questions in one batch; padding holds the eos token, as the release pads."""
    ids = np.full((4, length), TOKENIZER.pad_id, np.int32)
    mask = np.zeros_like(ids)
    for row, own in enumerate(questions.ids):
        span = slice(length - len(own), length)
        ids[row, span], mask[row, span] = own, 1
    parts = [questions.arguments(i) for i in range(4)]
    images, depths = (np.concatenate([p[k] for p in parts]) for k in (2, 3))
    return ids, mask, images, depths, [p[4][0] for p in parts]


def test_no_padding(models, questions, expected):
    assert_close(models[0].forward(*questions.arguments(2))["logits"][0], expected[2])


@pytest.mark.parametrize("extra", [0, 37])
def test_left_padding(models, questions, expected, extra):
    arguments = padded(questions, max(map(len, questions.ids)) + extra)
    logits = models[0].forward(*arguments)["logits"]
    for i, theirs in enumerate(expected):
        assert_close(logits[i, -len(theirs) :], theirs)


def test_what_padding_holds_does_not_matter(models, questions, expected):
    """Not even image and mask tokens, which then take no feature."""
    ids, mask, *rest = padded(questions, max(map(len, questions.ids)) + 37)
    rng = np.random.default_rng(1)
    vocab = CONFIG.decoder.vocab_size
    ids = np.where(mask == 0, rng.integers(vocab - 5, vocab, ids.shape), ids)
    logits = models[0].forward(ids, mask, *rest)["logits"]
    for i, theirs in enumerate(expected):
        assert_close(logits[i, -len(theirs) :], theirs)


@functools.partial(jax.jit, static_argnums=0)
def logits_of(config, params, batch):
    return bind(config, params)(batch)["logits"]


@pytest.mark.parametrize(
    "row",
    [((0, (0, 1, 2)), (1, (0,))), ((1, (0,)), (0, (2, 0))), ((0, (1,)), (0, (0,)))],
    ids=["all", "another_order", "one_picture_twice"],
)
def test_packed_rows(models, questions, expected, row):
    """Logits of every question in a packed row, and the row's loss."""
    model = models[0]
    shape = RowShape(280, 2, 4, CONFIG.image_tokens, CONFIG.vision.image_size, CONFIG.mask_grid)
    packed = tuple(PackedPicture(picture, chosen) for picture, chosen in row)
    batch = empty_batch(1, shape, TOKENIZER.pad_id)
    tokenised = TokenisedQuestions(questions.pictures, TOKENIZER)
    regions = fill_text({k: v[0] for k, v in batch.items()}, packed, questions.pictures, tokenised, shape)
    for place, (own, part) in enumerate(zip(regions, packed)):
        batch["images"][0, place] = questions.images[part.picture]
        batch["depths"][0, place] = questions.depths[part.picture]
        for slot, r in enumerate(own):
            batch["region_masks"][0, place, slot] = resample_rle(r, CONFIG.mask_grid)
    logits = np.asarray(logits_of(model.config, model.params, batch))[0, :, : CONFIG.decoder.vocab_size]
    order = [number if picture == 0 else 3 for picture, chosen in row for number in chosen]
    sums = counts = 0.0
    for number, i in enumerate(order):
        assert_close(logits[batch["question_ids"][0] == number + 1], expected[i][questions.prefix :])
        s, n = loss_sums(expected[i][None], questions.targets(i)[None])
        sums, counts = sums + float(s[0]), counts + float(n[0])
    s, n = loss_sums(logits[None], batch["targets"])
    assert float(n[0]) == counts
    np.testing.assert_allclose(float(s[0]), sums, rtol=1e-5)


def test_answers_to_padded_questions(models, questions):
    """Greedy tokens of a left-padded batch are those of PyTorch for every question alone."""
    prompts = [ids[:end] for ids, end in zip(questions.ids, questions.answers)]
    ours, theirs = models
    length = max(map(len, prompts)) + 3
    ids = np.stack([np.pad(p, (length - len(p), 0), constant_values=TOKENIZER.pad_id) for p in prompts])
    mask = np.stack([np.arange(length) >= length - len(p) for p in prompts]).astype(np.int32)
    parts = [questions.arguments(i) for i in range(4)]
    images, depths = (np.concatenate([p[k] for p in parts]) for k in (2, 3))
    generated = ours.generate(ids, mask, images, depths, [p[4][0] for p in parts], max_new_tokens=20)
    for i, prompt in enumerate(prompts):
        alone = theirs.generate(
            prompt[None], np.ones((1, len(prompt)), int), *parts[i][2:], max_new_tokens=20, eos_id=ours.eos_id
        )
        np.testing.assert_array_equal(generated[i], alone[0])
