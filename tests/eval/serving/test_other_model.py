"""Our own server asked as any other model is: about numbered marks, which it does not know, and by the same protocol."""

from __future__ import annotations

import json

import pytest

from eval.warehouse import main
from smolrgpt_jax.generation.online import OnlineEngine
from tests.eval.serving.conftest import KEY, serving


@pytest.fixture(scope="module")
def roomy_engine(small_model) -> OnlineEngine:
    """With room for what other models are told."""
    return OnlineEngine(small_model, 4, question_tokens=1024, answer_tokens=4, regions=8)


def test_a_server_of_ours_answers_as_another_model(roomy_engine, warehouse, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(roomy_engine) as served:
        url = f"{served.url}/v1"
        how = ["--answerer", "openai", "--server", url, "--model", "small", "--data", str(warehouse), "--limit", "6"]
        main([*how, "--out", str(tmp_path / "out")])
        with pytest.raises(SystemExit, match="is coloured, expected grey"):  # as the marks on it are
            main([*how, "--out", str(tmp_path / "depth"), "--with_depth"])
        with pytest.raises(SystemExit, match="there is no picture: send it as a data URL"):
            main([*how, "--out", str(tmp_path / "blind"), "--no_picture"])
        with pytest.raises(SystemExit, match="there is no model 'large' here"):
            main([*how, "--out", str(tmp_path / "large"), "--model", "large"])
    found = json.loads((tmp_path / "out/predictions.json").read_text(encoding="utf-8"))
    assert len(found) == 6 and all(item["answer"] for item in found)
    assert all(item["tokens"]["completion"] == 4 and item["tokens"]["prompt"] > 100 for item in found)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))
    assert metrics["tokens"]["completion"]["sum"] == 24 and metrics["cut_off"] == 6
