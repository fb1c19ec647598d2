from __future__ import annotations

import builtins
import json
import socket
import sys

import pytest

from eval.answering.one_picture import Answer
from eval.command_line import listen
from eval.page import app as page
from eval.page.__main__ import main, read_examples
from eval.page.exchange import values_of

OFFERED = "page: http://"


@pytest.fixture
def served(monkeypatch):
    """Replaces the page by one that records what it is to show."""
    calls = []
    monkeypatch.setattr(page, "serve", lambda *arguments: calls.append(arguments))
    return calls


def test_it_listens_before_it_says_where(small_checkpoint, warehouse, served, capsys):
    main(["--checkpoint", str(small_checkpoint), "--data", str(warehouse), "--max_new_tokens", "7"])
    ((listening, (answerer,), examples, depth_model),) = served
    with listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert f"{OFFERED}127.0.0.1:{port}/" in capsys.readouterr().out
    assert answerer.model.tokenizer is not None and depth_model is None
    assert (answerer.title, answerer.name, answerer.max_new_tokens) == (str(small_checkpoint), "small", 7)
    assert len(examples) == 7 and sum(len(picture.questions) for picture in examples) == 28


def test_confidences_are_of_the_first_model_alone(small_checkpoint, served, tmp_path, monkeypatch):
    monkeypatch.setattr("smolrgpt_jax.checkpoint.fingerprint.params_fingerprint", lambda params: "f1")
    file = tmp_path / "sure.json"
    file.write_text(json.dumps({"checkpoint_fingerprint": "f1", "fits": {"count": [[-1], [0.5]]}}), encoding="utf-8")
    both = ["--checkpoint", str(small_checkpoint), "--second", str(small_checkpoint)]
    main([*both, "--confidence", str(file)])
    ((listening, (first, second), *_),) = served
    listening.close()
    assert first.confidence.fits == {"count": [[-1], [0.5]]} and second.confidence is None


def test_how_sure_an_answer_is_stands_below_it():
    shown = values_of(Answer("three", "count", 3, (), confidence=0.931), 3)
    assert "<dt>truth</dt><dd>3</dd></div><div><dt>confidence</dt><dd>0.93, sure</dd>" in shown
    assert "confidence" not in values_of(Answer("three", "count", 3, ()), 3)


def test_bad_records_are_left_out_and_named(warehouse, capsys):
    (warehouse / "val/images/000103.png").unlink()
    assert len(read_examples(warehouse, "val")) == 6
    assert "4 bad records left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--checkpoint", "nowhere"], "nowhere: no such checkpoint"),
        (["--checkpoint", "{checkpoint}", "--data", "nowhere"], "val.json: cannot be read"),
        (["--checkpoint", "{golden}"], "brings no tokenizer"),
        (["--checkpoint", "{checkpoint}", "--port", "{taken}"], "cannot be listened at"),
        (["--checkpoint", "{checkpoint}", "--port", "99999"], "99999 cannot be listened at"),
    ],
)
def test_bad_input_ends_with_one_sentence(small_checkpoint, golden, served, capsys, arguments, message):
    with listen("127.0.0.1", 0)[0] as taken:
        known = {"checkpoint": small_checkpoint, "golden": golden.folder, "taken": taken.getsockname()[1]}
        with pytest.raises(SystemExit) as stop:
            main([argument.format(**known) for argument in arguments])
    text = str(stop.value)
    assert text.startswith("error: ") and message in text and "\n" not in text
    assert not served and OFFERED not in capsys.readouterr().out


def test_without_nicegui_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("eval.page.", "nicegui"))]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name.split(".")[0] == "nicegui":
            raise ModuleNotFoundError("No module named 'nicegui'", name="nicegui")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SystemExit, match=r"needs NiceGUI .*project's root: pip install -e '\.\[demo\]'"):
        main(["--checkpoint", "anywhere"])


def test_without_the_extra_of_estimated_depth_it_says_so_before_it_reads_the_checkpoint(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match=r"needs the package torch: pip install -e '\.\[assist\]'"):
        main(["--checkpoint", "nowhere", "--depth_model", "some/model"])
