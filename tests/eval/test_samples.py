from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image

import smolrgpt_jax.generation.answers
from eval.answering.samples import draw
from eval.report.html import shown_question
from eval.report.overlay import colour_of, draw_question
from eval.samples import main
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.checkpoint.load import tokenizer_files
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.images import load_rgb
from smolrgpt_jax.data.prepared.reader import read_prepared
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.records import Picture, Question
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.generation.answers import GeneratedAnswer
from smolrgpt_jax.models.smolrgpt import abstract_params

TINY = SmolRGPTConfig(
    vision=VisionConfig(width=32, mlp_width=64, heads=2, layers=1, patch_size=16, image_size=64),
    decoder=DecoderConfig(width=32, mlp_width=64, heads=2, kv_heads=1, layers=1, vocab_size=640),
)
TOKENIZER = "configs/demo_tokenizer"


@pytest.fixture
def captions(warehouse):
    """A caption of each picture of the warehouse's val, with the ids of its left_right questions."""
    records = [
        {
            "id": f"{number + 100:06d}-left_right",
            "image": f"{number + 100:06d}.png",
            "conversations": [
                {"from": "human", "value": "<image>\nDescribe the picture."},
                {"from": "gpt", "value": f"Caption <b>{number}</b>."},
            ],
        }
        for number in range(7)
    ]
    (warehouse / "captions.json").write_text(json.dumps(records), encoding="utf-8")
    return {"format": "captions", "root": str(warehouse), "annotations": "captions.json", "images": "val/images"}


@pytest.fixture
def questions(warehouse):
    return {"format": "warehouse", "root": str(warehouse), "split": "val"}


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(1)
    shapes = abstract_params(TINY)
    return {name: 0.3 * rng.normal(size=shape.shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def checkpoint(tmp_path, params, captions, questions):
    """A random model that says it was trained on questions and validated with captions."""
    run = {
        "seed": 3,
        "data": {"sources": {"questions": questions}, "depth_mode": "training"},
        "validation_sources": {"captions": captions},
    }
    meta = checkpoints.Meta(
        TINY,
        tokenizer_files(ChatTokenizer.load(TOKENIZER)),
        run={"run": run, "stage": "connector_alignment", "step": 40},
    )
    checkpoints.save(tmp_path / "checkpoint", params, meta)
    return tmp_path / "checkpoint"


@pytest.fixture
def told(monkeypatch, loaded_model):
    """A model that answers with the truth, except for the last question, whose answer is cut off."""

    def answer(model, pictures, options):
        asked = [question for picture in pictures for question in picture.questions]
        found = {question.id: GeneratedAnswer(question.answer) for question in asked}
        return found | {asked[-1].id: GeneratedAnswer("Who knows?", cut_off=True)}

    monkeypatch.setattr(smolrgpt_jax.generation.answers, "generate_answers", answer)


def read(out) -> tuple[dict, str]:
    return json.loads((out / "samples.json").read_text()), (out / "report.html").read_text(encoding="utf-8")


def test_captions_without_depth_are_answered_as_the_model_answers_them_alone(checkpoint, warehouse, tmp_path):
    main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--max_new_tokens", "9"])
    found, page = read(tmp_path / "out")
    samples = found["samples"]
    assert len(samples) == 7 and {sample["regions"] for sample in samples} == {0}
    model = load(checkpoint)
    chat = model.tokenizer
    prompt = np.concatenate([chat.prefix(TINY.image_tokens), chat.question("Describe the picture.")[0]])[None]
    for sample in samples[:2]:
        image = load_rgb(warehouse / "val" / "images" / f"{sample['image']}.png", 64)
        ids = model.generate(prompt, np.ones_like(prompt), image[None], max_new_tokens=9)
        assert sample["answer"] == chat.decode(ids[0]) != ""
        assert sample["truth"] == f"Caption <b>{int(sample['image']) - 100}</b>."
    assert page.count("RGB only") == 7 and "stage connector_alignment, step 40" in page


@pytest.mark.parametrize(
    ("arguments", "sources"),
    [
        ([], {"captions"}),
        (["--training_data"], {"questions"}),
        (["--config", "{config}"], {"mine"}),
        (["--config", "{config}:other"], {"other"}),
        (["--source", "format=warehouse,root={data},split=val"], {"{data}/val"}),
    ],
)
def test_the_sources_are_those_of_the_run_or_those_given(
    checkpoint, questions, warehouse, told, tmp_path, arguments, sources
):
    config = tmp_path / "config.py"
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(name='mine'):\n"
        f"    source = {questions!r}\n"
        "    return ConfigDict({'validation_sources': {}, 'data': {'sources': {name: source}, 'depth_mode': 'training'}})\n"
    )
    places = {"config": config, "data": warehouse}
    main(
        ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]
        + [argument.format(**places) for argument in arguments]
    )
    found = read(tmp_path / "out")[0]["samples"]
    assert {sample["source"] for sample in found} == {name.format(**places) for name in sources}


def test_equal_ids_of_two_sources_keep_their_own_answers(checkpoint, captions, warehouse, told, tmp_path):
    fields = ",".join(f"{name}={value}" for name, value in captions.items())
    main(
        ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--count", "99"]
        + ["--source", fields, "--source", f"format=warehouse,root={warehouse},split=val"]
    )
    samples = read(tmp_path / "out")[0]["samples"]
    assert len(samples) == 7 + 28
    assert len({sample["id"] for sample in samples}) == 28
    assert len({sample["truth"] for sample in samples}) > 12
    assert [sample["answer"] for sample in samples[:-1]] == [sample["truth"] for sample in samples[:-1]]


def test_the_page_shows_pictures_regions_answer_truth_and_verdict(checkpoint, told, tmp_path):
    main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--training_data", "--count", "8"])
    found, page = read(tmp_path / "out")
    samples = found["samples"]
    assert [sample["right"] for sample in samples] == [True] * 7 + [False]
    assert page.count("✓ right") == 7 and page.count("✗ wrong") == 1
    assert [sample["cut_off"] for sample in samples] == [False] * 7 + [True]
    assert page.count("cut off at the longest length") == 1
    assert page.count('src="data:image/jpeg;base64,') == 8
    assert "http:" not in page and "https:" not in page and "url(" not in page
    assert re.search(r'Is the pallet <span class="chip" style="--c:rgb\(\d+,\d+,\d+\)">0</span> to the left', page)
    for sample in samples:
        assert sample["answer"] in page and sample["truth"] in page
    assert "7 of 8 answers with a normalised value are right" in page


def test_texts_are_escaped(checkpoint, told, tmp_path):
    main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")])
    page = read(tmp_path / "out")[1]
    assert "Caption &lt;b&gt;0&lt;/b&gt;." in page and "<b>0" not in page


def test_an_undecodable_picture_is_left_out_and_named(checkpoint, warehouse, tmp_path, capsys):
    broken = warehouse / "val" / "images" / "000103.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--max_new_tokens", "2"])
    found, page = read(tmp_path / "out")
    assert len(found["samples"]) == 6 == page.count("<article")
    assert len(found["left_out"]) == 1 and "000103.png" in found["left_out"][0]
    assert "000103.png" in page.partition("Left out")[2] and "1 bad record left out" in capsys.readouterr().out


def pictures(categories: dict[str, int], number: int = 6) -> list[Picture]:
    return [
        Picture(
            f"{place}",
            place,
            None,
            tuple(
                Question(f"{place}-{category}-{i}", category, "?", "!", None)
                for category, times in categories.items()
                for i in range(times)
            ),
        )
        for place in range(number)
    ]


def test_categories_and_sources_are_drawn_in_turn():
    found = {"first": pictures({"a": 9, "b": 1}), "second": pictures({"c": 3})}
    drawn = draw(found, 12, seed=0)
    times = [asked.question.category for asked in drawn]
    assert sorted(times[:3]) == sorted(times[3:6]) == ["a", "b", "c"]
    assert [times.count(category) for category in "abc"] == [4, 4, 4]


def test_new_pictures_come_before_known_ones_and_the_seed_decides():
    found = {"only": pictures({"a": 4})}
    drawn = draw(found, 6, seed=5)
    assert sorted(asked.picture.id for asked in drawn) == list("012345")
    assert draw(found, 6, seed=5) == drawn != draw(found, 6, seed=6)
    everything = draw(found, 99, seed=5)
    assert len({asked.question.id for asked in everything}) == len(everything) == 24


def test_regions_of_earlier_turns_keep_their_numbers(warehouse):
    picture = read_warehouse(warehouse, "val")[0]
    question = picture.questions[0]
    asked = dataclasses.replace(
        question, earlier=(("Where is <mask>?", "There."),), prompt="And <mask> or <i>?", answer="Here."
    )
    shown = shown_question(picture, asked)
    numbers = [re.findall(r">(\d)</span>", text) for text in (shown["earlier"][0][0], shown["prompt"])]
    assert shown["prompt"].endswith(" or &lt;i&gt;?")
    assert numbers == [["0"], ["1"]] and shown["earlier"][0][1] == "There."


def test_regions_of_prepared_data_are_drawn_where_they_were(warehouse, tmp_path):
    original = read_warehouse(warehouse, "val")
    prepare({"val": original}, tmp_path / "prepared", PrepareConfig(64, 32), workers=1)
    picture = next(p for p in read_prepared(tmp_path / "prepared", "val") if p.id == original[0].id)
    drawn = np.asarray(draw_question(picture, picture.questions[0], 320))
    with Image.open(original[0].image) as image:
        ground = np.asarray(image.convert("RGB"))[0, 0]
    # The box 6..16 x 10..22 of 96x60 pixels, stretched to a square of 320, within two cells of the masks' grid of 32.
    tinted = np.argwhere((drawn == colour_of(0)).all(-1))
    (top, left), (bottom, right) = tinted.min(0), tinted.max(0)
    np.testing.assert_allclose([left, right, top, bottom], [20, 53, 53, 117], atol=20)
    assert (np.abs(drawn[:40].astype(int) - ground) <= 3).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "{tmp}/none"], "none: no such checkpoint"),
        (["--checkpoint", "tests/data_files/tiny/checkpoint"], "records no files that it was trained on"),
        (["--config", "{tmp}/none.py"], "none.py: no such configuration"),
        (["--config", "eval/samples.py"], "eval/samples.py is no configuration of a run"),
        (["--config", "configs/demo.py:stage9"], "the demo has no stage 'stage9'"),
        (["--source", "format=warehouse,root={tmp}/none,split=val"], "val.json: cannot be read"),
        (["--source", "format=other,root={tmp}"], "data format 'other' is not one of"),
        (["--out", "{tmp}/checkpoint/meta/metadata"], "exists and is not a folder"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(checkpoint, told, tmp_path, arguments, message):
    before = sorted(tmp_path.rglob("*"))
    start = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main([*start, *(argument.format(tmp=tmp_path) for argument in arguments)])
    assert str(stop.value).startswith("error: ") and message in str(stop.value)
    assert "\n" not in str(stop.value) and sorted(tmp_path.rglob("*")) == before


def test_a_recorded_folder_that_moved_is_named(checkpoint, warehouse, told, tmp_path):
    warehouse.rename(tmp_path / "moved")
    with pytest.raises(SystemExit, match="of the run's source captions is not there .* give --source"):
        main(["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("text", ["format=captions", "root=x", "format=captions,root", "x"])
def test_an_incomplete_source_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["--checkpoint", "x", "--out", "x", "--source", text])
    assert f"{text!r} is not of the form format=...,root=..." in capsys.readouterr().err
