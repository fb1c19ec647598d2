"""The benchmark, answered by a server."""

from __future__ import annotations

import json
import shutil

import pytest

from eval.warehouse import main
from tests.eval.fake_server import FakeServer
from tests.eval.serving.conftest import KEY, NEW_TOKENS, serving


def evaluate(url: str, data, out, *more: str) -> list[dict]:
    main(["--served", f"{url}/v1", "--data", str(data), "--out", str(out), "--batch_size", "8", *more])
    return json.loads((out / "predictions.json").read_text(encoding="utf-8"))


def test_predictions_are_those_of_the_checkpoint(small_engine, small_checkpoint, warehouse, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOLRGPT_API_KEY", KEY)
    how = ["--data", str(warehouse), "--out", str(tmp_path / "own"), "--max_new_tokens", str(NEW_TOKENS)]
    main(["--checkpoint", str(small_checkpoint), *how])
    with serving(small_engine, queue=1) as served:  # which refuses some of them at first
        found = evaluate(served.url, warehouse, tmp_path / "served")
    own = json.loads((tmp_path / "own/predictions.json").read_text(encoding="utf-8"))
    assert len(found) == 28 and found == own
    metrics = json.loads((tmp_path / "served/metrics.json").read_text(encoding="utf-8"))
    assert metrics["checkpoint_fingerprint"] == "f1"


def test_an_interrupted_run_goes_on_from_its_answers(small_engine, warehouse, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOLRGPT_API_KEY", KEY)
    with serving(small_engine) as served:
        whole = evaluate(served.url, warehouse, tmp_path / "whole")
        monkeypatch.setattr("eval.answering.warehouse.write_results", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(served.url, warehouse, tmp_path / "out")
        monkeypatch.undo()
        monkeypatch.setenv("SMOLRGPT_API_KEY", KEY)
        monkeypatch.setattr(small_engine, "step", lambda _: 1 / 0)
        assert evaluate(served.url, warehouse, tmp_path / "out") == whole
    assert not list(tmp_path.glob(".out.journal*"))


def test_what_the_server_cannot_read_counts_as_wrong(small_engine, warehouse, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SMOLRGPT_API_KEY", KEY)
    picture = warehouse / "val/images/000103.png"
    shutil.copyfile(picture, tmp_path / "whole.png")
    picture.write_bytes(picture.read_bytes()[:-40])
    with serving(small_engine) as served:
        found = evaluate(served.url, warehouse, tmp_path / "out")
    assert sum(item["answer"] == "" for item in found) == 4
    assert "record '000103-left_right': picture messages[0].content[0] is truncated" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--served", "http://127.0.0.1:9/v1"], r"http://127.0.0.1:9/v1 cannot be asked \("),
        (
            ["--served", "http://127.0.0.1:9/v1", "--answers", "vote"],
            "a server or an export answers questions as they stand",
        ),
        (["--served", "http://127.0.0.1:9/v1", "--checkpoint", "any"], "2"),
        ([], "2"),
    ],
)
def test_bad_input_ends_with_one_sentence(warehouse, tmp_path, more, sentence):
    with pytest.raises(SystemExit, match=sentence):
        main(["--data", str(warehouse), "--out", str(tmp_path / "out"), *more])


def test_a_wrong_key_is_told(small_engine, warehouse, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOLRGPT_API_KEY", "wrong")
    with serving(small_engine) as served:
        with pytest.raises(SystemExit, match="refuses with HTTP 401: .*the API key is missing or wrong"):
            evaluate(served.url, warehouse, tmp_path / "out")


def test_confidences_that_the_server_tells_stand_with_its_answers(warehouse, tmp_path, monkeypatch):
    said = {"left or right": ("left", 0.9), "How far": ("No idea.", 0.4), "Which": ("Region 1", "high")}
    fake = FakeServer()
    fake.listed = json.dumps({"data": [{"id": "small", "object": "model", "created": 1, "owned_by": "us"}]})

    def answer(number, body):
        text = body["messages"][0]["content"][-1]["text"]
        content, sure = next((told for words, told in said.items() if words in text), ("Two.", None))
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        return 200, {}, json.dumps({"choices": [choice | ({"confidence": sure} if sure else {})]})

    fake.reply = answer
    try:
        monkeypatch.setattr("eval.answering.warehouse.write_results", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(fake.url.removesuffix("/v1"), warehouse, tmp_path / "out")
        monkeypatch.undo()
        asked = len(fake.requests)
        found = evaluate(fake.url.removesuffix("/v1"), warehouse, tmp_path / "out")
        assert len(fake.requests) == asked == 28, "those that were kept have theirs, too"
    finally:
        fake.close()
    sure = {item["category"]: item["confidence"] for item in found}
    assert sure == {"left_right": 0.9, "count": None, "mcq": None, "distance": None}
    metrics = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))
    assert metrics["confidence"]["left_right"]["bins"][0]["confidence"] == pytest.approx(90)
    assert "Right as often as the confidence says" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
