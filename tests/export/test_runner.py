"""The runner of an exported folder: rows and prompts of all sizes, its own preprocessing, and bad input."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from eval.answering.one_picture import answer
from smolrgpt_jax.export.exported import digest
from smolrgpt_jax.export.folder import write_export
from smolrgpt_jax.export.programs import ExportSettings
from smolrgpt_jax.export.runner import ExportedModel, main


@pytest.fixture(scope="module")
def runner(exported) -> ExportedModel:
    return ExportedModel(exported)


def prompts(golden) -> list:
    return [
        golden.outputs["prompt_ids"],
        golden.outputs["prompt_attention_mask"],
        golden.images,
        golden.depths,
        golden.masks,
    ]


def test_a_fixed_number_of_rows_is_filled_up(model, golden, tmp_path):
    settings = ExportSettings(("cpu",), batch=3, prompt_tokens=40, regions=4, new_tokens=6)
    write_export(model, tmp_path / "out", settings)
    fixed = ExportedModel(tmp_path / "out")
    *arrays, masks = prompts(golden)
    ids = fixed.generate(*(array[:2] for array in arrays), masks[:2])
    np.testing.assert_array_equal(ids, golden.outputs["greedy_ids"][:2, :6])
    with pytest.raises(ValueError, match="4 rows, the model was exported for 3"):
        fixed.generate(*arrays, masks)


def test_everything_after_eos_is_eos(runner, golden, monkeypatch):
    expected = golden.outputs["greedy_ids"].copy()
    # A token that row 0 produces early on is declared to be the end.
    eos = int(expected[0, 1])
    monkeypatch.setitem(runner.manifest["token_ids"], "eos", eos)
    for row in expected:
        ends = np.flatnonzero(row == eos)
        row[ends[0] if ends.size else len(row) :] = eos
    np.testing.assert_array_equal(runner.generate(*prompts(golden)), expected)


@pytest.mark.parametrize("region_names", [False, True])
def test_a_question_gets_the_ids_of_the_chat_format(runner, small_tokenizer, monkeypatch, region_names):
    monkeypatch.setitem(runner.manifest["chat"], "region_names", region_names)
    question = "How far is <mask> from 12 <mask>, in a picture?"
    chat = small_tokenizer.with_format(region_names=region_names)
    expected = np.concatenate([chat.prefix(16), chat.question(question)[0]])
    np.testing.assert_array_equal(runner.prompt(question), expected)


def test_the_command_line_answers_as_the_library_does(exported, model, data_files, capsys):
    folder = data_files / "real_warehouse" / "val"
    image, depth = folder / "images" / "000315.png", folder / "depths" / "000315_depth.png"
    question, boxes = "far is bcdefgab <mask> from <mask>", ["200,300,700,620", "900,300,1300,700"]
    main(
        ["--model", str(exported), "--image", str(image), "--depth", str(depth), "--boxes", *boxes]
        + ["--question", question]
    )
    corners = [[float(part) for part in box.split(",")] for box in boxes]
    expected = answer(model, image, question, depth=depth, boxes=corners, max_new_tokens=24)
    printed = capsys.readouterr()
    assert printed.out.strip() == expected.text != ""
    assert expected.cut_off and "cut off after 24 tokens" in printed.err


def test_bad_prompts_name_the_row(runner, golden):
    ids, mask, images, depths, masks = prompts(golden)
    long = np.full((4, 97), 5), np.ones((4, 97), np.int32)
    other_side = np.ascontiguousarray(mask[:, ::-1])
    many = [*masks[:1], np.zeros((8, 8, 5)), *masks[2:]]
    few = [*masks[:2], masks[2][..., :1], masks[3]]
    for arguments, message in (
        ((*long, images), "row 0 has 97 prompt tokens, the model was exported for 96"),
        ((ids, other_side, images), "row 0 is not padded on the left"),
        ((ids, mask[:, 1:], images), r"input_ids \(4, 39\) and attention_mask \(4, 38\)"),
        ((ids, mask, images[:, :32]), r"images has shape \(4, 32, 64, 3\), expected \(4, 64, 64, 3\)"),
        ((ids, mask, images, depths[:1], masks), r"depths has shape"),
        ((ids, mask, images, depths, masks[:2]), "2 mask arrays for 4 rows"),
        ((ids, mask, images, depths, many), "row 1 has 5 regions, there is place for 4"),
        ((ids, mask, images, depths, few), "row 2 has 4 RGB region tokens but only 1 features"),
    ):
        with pytest.raises(ValueError, match=message):
            runner.prefill(*arguments)
    with pytest.raises(ValueError, match="25 new tokens are asked for, the model was exported for 1 to 24"):
        runner.generate(ids, mask, images, depths, masks, max_new_tokens=25)
    with pytest.raises(ValueError, match="there is no prompt"):
        runner.generate(ids[:0], mask[:0], images[:0])


def test_no_more_tokens_are_decoded_than_the_cache_holds(runner, golden):
    state = runner.prefill(*prompts(golden))
    for _ in range(24):
        state = runner.decode(state, np.full(4, 5))
    with pytest.raises(ValueError, match="exported for answers of 24 tokens"):
        runner.decode(state, np.full(4, 5))


def lose(folder, name):
    """Takes one of the things that a manifest says out of it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest[name]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "is no exported model: no readable manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text('{"format": "x"}'), "has the format 'x'"),
        (lambda folder: (folder / "prefill.jax_export").unlink(), "prefill.jax_export is missing"),
        *(
            (lambda folder, name=name: lose(folder, name), "manifest.json is not the file that was exported")
            for name in ("platforms", "chat", "programs", "vocab_size", "sha256")
        ),
        (
            lambda folder: (folder / "parameters.safetensors").write_bytes(b"other"),
            "parameters.safetensors is not the file that was exported",
        ),
    ],
)
def test_a_damaged_folder_is_one_sentence(exported, data_files, tmp_path, damage, message):
    folder = shutil.copytree(exported, tmp_path / "folder")
    damage(folder)
    image = data_files / "real_warehouse" / "val" / "images" / "000315.png"
    with pytest.raises(SystemExit) as stop:
        main(["--model", str(folder), "--image", str(image), "--question", "abc"])
    assert str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)


def test_a_folder_for_other_platforms_is_one_sentence(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "folder")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["platforms"] = ["tpu"]
    manifest["sha256"]["manifest.json"] = digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="exported for tpu, the default device is of platform cpu"):
        ExportedModel(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--question", "is <mask>?"], "1 <mask> but 0 masks"),
        (["--question", "is <mask>?", "--boxes", "1,2,3,4"], "give one with --depth"),
        (["--question", "is <mask>?", "--boxes", "1,2,3", "--depth", "{depth}"], "box 1,2,3 is not x1,y1,x2,y2"),
        (["--question", "is <mask>?", "--boxes", "4,4,4,9", "--depth", "{depth}"], "box 4,4,4,9 is not x1,y1,x2,y2"),
        (["--question", "what?", "--image", "none.png"], "none.png"),
        (["--question", "what?", "--image", "{deep}"], "is of mode I;16, expected 8 bits"),
        (["--question", "is <mask>?", "--boxes", "1,2,3,4", "--depth", "{image}"], "is coloured, expected grey"),
        (["--question", "what? " * 100], "prompt tokens, the model was exported for 96"),
    ],
)
def test_bad_input_of_the_command_line_is_one_sentence(exported, data_files, tmp_path, arguments, message):
    folder = data_files / "real_warehouse" / "val"
    Image.fromarray(np.full((9, 16), 4000, np.uint16)).save(tmp_path / "deep.png")
    start = ["--model", str(exported), "--image", str(folder / "images" / "000315.png")]
    places = {
        "image": folder / "images" / "000315.png",
        "depth": folder / "depths" / "000315_depth.png",
        "deep": tmp_path / "deep.png",
    }
    with pytest.raises(SystemExit) as stop:
        main([*start, *(argument.format(**places) for argument in arguments)])
    assert str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)
