"""The Python call for one picture, against the path that answers whole data sets."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from eval.answering.confidences import Confidences
from eval.answering.one_picture import answer, read_answer, stream_answer
from smolrgpt_jax import load
from smolrgpt_jax.data.masks import box_mask, decode, encode, resample
from smolrgpt_jax.data.regions import read_regions
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import CheckpointError, DataError
from smolrgpt_jax.generation.answers import generate_answers
from smolrgpt_jax.generation.engine import AnswerOptions
from smolrgpt_jax.generation.likelihood import log_likelihoods

FAR = "How far is the pallet <mask> from the pallet <mask>?"
# The same everywhere: a program is compiled for each longest answer.
NEW_TOKENS = 6
BOXES = [(4, 5, 40, 50), (60, 20, 90, 55)]


@pytest.fixture(scope="module")
def model(small_checkpoint):
    return load(small_checkpoint)


@pytest.fixture
def files(warehouse):
    """Paths of one picture and its depth, whose pixels are not all alike."""
    drawn = np.random.default_rng(3).integers(0, 256, (60, 96, 4), dtype=np.uint8)
    paths = (warehouse / "val/images/000100.png", warehouse / "val/depths/000100_depth.png")
    Image.fromarray(drawn[..., :3]).save(paths[0])
    Image.fromarray(drawn[..., 3]).save(paths[1])
    return paths


def test_answers_equal_those_of_the_evaluation(model, warehouse, files):
    picture = read_warehouse(warehouse, "val")[0]
    picture = dataclasses.replace(picture, questions=picture.questions[::3])  # both of two regions
    given = generate_answers(model, [picture], AnswerOptions(1, NEW_TOKENS, progress=False))
    expected = {name: said.text for name, said in given.items()}
    assert any(expected.values())
    assert len(set(expected.values())) == len(expected)
    for question in picture.questions:
        call = {"depth": files[1], "masks": question.regions, "max_new_tokens": NEW_TOKENS}
        assert answer(model, files[0], question.prompt, **call).text == expected[question.id]
        *_, streamed = stream_answer(model, files[0], question.prompt, **call)
        assert streamed == expected[question.id]


def test_the_model_gets_the_regions_in_their_order(model, files, monkeypatch):
    prompts = []
    whole = type(model).generate
    monkeypatch.setattr(type(model), "generate", lambda self, **prompt: prompts.append(prompt) or whole(self, **prompt))
    answer(model, files[0], FAR, depth=files[1], boxes=BOXES, max_new_tokens=NEW_TOKENS)
    (masks,) = prompts[0]["masks"]
    for index, box in enumerate(BOXES):
        expected = resample(box_mask(box, 60, 96), model.config.mask_grid)
        np.testing.assert_array_equal(masks[..., index], expected)
    assert not masks[..., len(BOXES) :].any()


def test_a_stream_grows_token_by_token(model, files):
    texts = list(stream_answer(model, files[0], FAR, depth=files[1], boxes=BOXES, max_new_tokens=NEW_TOKENS))
    # One text per token, and one more where the answer ends within a character.
    assert 1 < len(texts) <= NEW_TOKENS + texts[-1].endswith("\ufffd")
    assert all(now.startswith(before) for before, now in zip(texts, texts[1:]))


@pytest.mark.parametrize(("longest", "cut_off"), [(NEW_TOKENS, True), (120, False)])
def test_a_stream_ends_with_the_answer(model, files, longest, cut_off):
    call = {"depth": files[1], "boxes": BOXES, "max_new_tokens": longest}
    texts = stream_answer(model, files[0], FAR, **call)
    with pytest.raises(StopIteration) as end:
        while True:
            next(texts)
    assert end.value.value == answer(model, files[0], FAR, **call)
    assert end.value.value.cut_off is cut_off


class Likelihoods(Confidences):
    """Tells what it is called with."""

    def __call__(self, category, likelihood):
        return likelihood


def test_the_confidence_is_of_the_likelihood_that_it_was_fitted_to(model, warehouse, files, monkeypatch):
    picture = read_warehouse(warehouse, "val")[0]
    question = picture.questions[3]
    text = "The pallet [Region 0] is 2.50 meters away from the pallet [Region 1]."
    monkeypatch.setattr(type(model.tokenizer), "decode", lambda self, ids: text)
    expected = log_likelihoods(model, [dataclasses.replace(picture, questions=(question,))], {question.id: text})
    call = {"depth": files[1], "masks": question.regions, "max_new_tokens": NEW_TOKENS}
    sure = Likelihoods(files[0], "f1", {"distance": ([-1.0], [0.5])})
    found = answer(model, files[0], question.prompt, **call, confidence=sure)
    assert found.confidence == pytest.approx(expected[question.id], rel=1e-4)
    texts = stream_answer(model, files[0], question.prompt, **call, confidence=sure)
    with pytest.raises(StopIteration) as end:
        while True:
            next(texts)
    assert end.value.value == found
    assert answer(model, files[0], question.prompt, **call).confidence is None
    unknown = dataclasses.replace(sure, fits={"count": ([-1.0], [0.5])})
    assert answer(model, files[0], question.prompt, **call, confidence=unknown).confidence is None


def test_an_answer_that_cannot_be_read_has_no_confidence(model, files):
    call = {"depth": files[1], "boxes": BOXES, "max_new_tokens": NEW_TOKENS}
    found = answer(model, files[0], FAR, **call, confidence=Likelihoods(files[0], "f1", {"distance": ([-1.0], [0.5])}))
    assert found.category == "distance" and found.normalized_answer is None and found.confidence is None


def test_every_way_to_give_picture_and_regions_is_the_same(model, files, tmp_path):
    image, depth = (np.array(Image.open(path)) for path in files)
    arrays = [np.zeros((60, 96), bool) for _ in BOXES]
    for array, (x1, y1, x2, y2) in zip(arrays, BOXES):
        array[y1:y2, x1:x2] = True
    for index, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{index}.png")
    rles = [encode(array) for array in arrays]
    records = [{"size": [60, 96], "counts": rle.counts.decode("ascii")} for rle in rles]
    opened = [Image.open(path) for path in files]
    found = [
        answer(model, files[0], FAR, depth=files[1], boxes=BOXES, max_new_tokens=NEW_TOKENS),
        answer(model, image, FAR, depth=depth, masks=arrays, max_new_tokens=NEW_TOKENS),
        answer(model, opened[0], FAR, depth=opened[1], masks=records, max_new_tokens=NEW_TOKENS),
        answer(
            model,
            files[0],
            FAR,
            depth=files[1],
            masks=[tmp_path / "0.png", tmp_path / "1.png"],
            max_new_tokens=NEW_TOKENS,
        ),
    ]
    assert all(np.array_equal(decode(region), array) for region, array in zip(found[0].regions, arrays))
    assert found == [found[0]] * 4


def test_a_question_without_regions_needs_no_depth(model, files):
    found = answer(model, files[0], "What is in the picture?", max_new_tokens=NEW_TOKENS)
    assert found.category is None and found.normalized_answer is None and found.regions == ()


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (3000, 2)])
def test_pictures_of_odd_sizes_are_answered(model, size):
    image = np.full((*size, 3), 90, np.uint8)
    boxes = [(0, 0, size[1], size[0])] * 2
    found = answer(model, image, FAR, depth=image[..., 0], boxes=boxes, max_new_tokens=NEW_TOKENS)
    assert decode(found.regions[0]).all()


def test_the_value_is_read_from_the_text():
    found = read_answer(FAR, "The pallet [Region 0] is 2.50 meters away from the pallet [Region 1].")
    assert (found.category, found.normalized_answer) == ("distance", 2.5)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depth": None}, "needs the depth picture"),
        ({"boxes": [(4, 5, 40, 50)]}, "2 <mask> but 1 mask"),
        ({"boxes": None}, "2 <mask> but 0 masks"),
        ({"boxes": None, "masks": [{"size": [60, 96], "counts": [60 * 96]}] * 2}, "mask 0 marks no pixel"),
        ({"question": "", "boxes": None}, "the question is empty"),
        ({"question": "Is <mask> left of <|image|> <mask>?"}, "holds <|image|>"),
        ({"question": FAR + " " + "very far " * 5000}, "tokens with its picture"),
        ({"image": np.zeros((60, 96, 3), np.float32)}, "an array float32[60, 96, 3] is no picture"),
        ({"depth": np.zeros((60, 96, 2), np.uint16)}, "or, of depth and masks, numbers [H, W]"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(model, changes, message):
    call = {
        "image": np.zeros((60, 96, 3), np.uint8),
        "question": FAR,
        "depth": np.zeros((60, 96), np.uint8),
        "boxes": BOXES,
    } | changes
    with pytest.raises(ValueError) as error:
        answer(model, call.pop("image"), call.pop("question"), **call)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "masks, boxes, message",
    [
        ([np.ones((30, 96), bool)], None, "mask 0 is 96x30 pixels (width x height) but the upright picture is 96x60"),
        ([vars(encode(np.ones((60, 90)))) | {"size": [60, 90]}], None, "mask 0 is 90x60"),
        ([np.zeros((60, 96), bool)], None, "mask 0 marks no pixel"),
        ([np.ones((60, 96, 1), bool)], None, "an array bool[60, 96, 1] is no picture"),
        ([np.ones((60, 96), bool), {"size": [60, 96]}], None, "mask 1 is unreadable"),
        ([np.ones((60, 96), bool)], [(0, 0, 5, 5)], "both as masks and as boxes"),
        (None, [(100, 5, 120, 9)], "box 100,5,120,9 is not"),
        (None, [(9, 5, 9, 30)], "box 9,5,9,30 is not"),
        (None, [(30, 5, 9, 30)], "with x1 < x2"),
        (None, [(1, 2, 3)], "box 1,2,3 is not"),
        (None, [(0, 0, float("nan"), 4)], "inside the picture of 96x60 pixels"),
    ],
)
def test_regions_that_do_not_fit_the_picture_are_named(masks, boxes, message):
    with pytest.raises(DataError) as error:
        read_regions(masks, boxes, (60, 96))
    assert message in str(error.value)


def test_a_model_without_tokenizer_is_refused(model, files):
    with pytest.raises(ValueError, match="no tokenizer"):
        answer(dataclasses.replace(model, tokenizer=None), files[0], "What is it?")


def test_a_checkpoint_without_depth_connector_is_named_on_loading(golden, tmp_path):
    """Such a checkpoint has nothing to make regions of; it is refused before any question."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "rgb_only"
    shutil.copytree(golden.folder, folder)
    tensors = load_file(folder / "model.safetensors")
    lost = [name for name in tensors if "depth" in name and "refiner" not in name]
    assert lost
    save_file({name: value for name, value in tensors.items() if name not in lost}, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        load(folder)
    assert lost[0] in str(error.value)
