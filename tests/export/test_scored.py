"""The warehouse benchmark answered by an exported folder."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

import eval.warehouse as command
from smolrgpt_jax.export.onnx_folder import OnnxSettings, write_onnx_export
from tests.export.conftest import NEW_TOKENS, PROMPT_TOKENS

ASKED = {
    "side": ("left_right", "is <mask> left of <mask>?", 2),
    "count": ("count", "how many are in <mask>?", 1),
    "alone": ("distance", "how far?", 0),
}


@pytest.fixture(scope="module")
def questions(data_files, tmp_path_factory):
    """A folder in the published layout with short questions about the real picture, and one that is too long for the export."""
    folder = shutil.copytree(data_files / "real_warehouse", tmp_path_factory.mktemp("scored") / "data")
    (real, *_) = json.loads((folder / "val.json").read_text())
    asked = ASKED | {"long": ("count", "which? " * 60 + "<mask>", 1)}
    records = [
        real
        | {"id": name, "category": category, "normalized_answer": "left" if category == "left_right" else "1"}
        | {"conversations": [{"from": "human", "value": f"<image>\n{text}"}, {"from": "gpt", "value": "1"}]}
        | {"rle": real["rle"][:masks]}
        for name, (category, text, masks) in asked.items()
    ]
    (folder / "val.json").write_text(json.dumps(records))
    return folder


def scored(questions, out, *how):
    command.main(["--data", str(questions), "--out", str(out), "--max_new_tokens", "6", *how])
    return {item["id"]: item["answer"] for item in json.loads((out / "predictions.json").read_text())}


@pytest.mark.parametrize("form", ["exported", "exported_onnx"])
def test_it_answers_as_its_checkpoint_and_tells_what_it_cannot_answer(
    form, request, model, questions, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(command.asking, "load_model", lambda *_: model)
    expected = scored(questions, tmp_path / "here", "--checkpoint", "anywhere")
    folder = request.getfixturevalue(form)
    capsys.readouterr()
    found = scored(questions, tmp_path / "there", "--exported", str(folder))
    assert len(set(expected.values())) > 1 and found == expected | {"long": ""}
    assert "'long': row 0 has" in capsys.readouterr().out
    assert json.loads((tmp_path / "there" / "run.json").read_text())["checkpoint"] == str(folder)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--max_new_tokens", "25"], "25 new tokens are asked for, the model was exported for 1 to 24"),
        (["--answers", "vote"], "a server or an export answers questions as they stand"),
        (["--dtype", "bfloat16"], None),
    ],
)
def test_what_an_export_cannot_do_is_one_sentence(exported_onnx, questions, tmp_path, more, sentence, capsys):
    with pytest.raises(SystemExit, match=f"^error: .*{sentence}" if sentence else "2"):
        scored(questions, tmp_path / "out", "--exported", str(exported_onnx), *more)
    assert sentence or "--dtype is of --checkpoint" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_answers_of_another_export_are_not_gone_on_from(exported_onnx, model, questions, tmp_path, monkeypatch):
    """The other has the same sizes and settings, and other numbers."""
    other = dataclasses.replace(model, params={name: value * 1.01 for name, value in model.params.items()})
    write_onnx_export(other, tmp_path / "other", OnnxSettings(PROMPT_TOKENS, NEW_TOKENS))
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="interrupted"):
        patch.setattr(command, "evaluate", stopped_after_answering)
        scored(questions, tmp_path / "out", "--exported", str(exported_onnx))
    with pytest.raises(SystemExit, match="^error: .*answers of another run"):
        scored(questions, tmp_path / "out", "--exported", str(tmp_path / "other"))
    scored(questions, tmp_path / "out", "--exported", str(exported_onnx))


def stopped_after_answering(pictures, ask, *_, **__):
    ask(pictures)
    raise KeyboardInterrupt


def test_a_folder_that_is_no_export_is_named(questions, tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*nothing is no exported model"):
        scored(questions, tmp_path / "out", "--exported", str(tmp_path / "nothing"))
