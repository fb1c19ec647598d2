"""The command that fits confidences on one split and tries them on another."""

from __future__ import annotations

import json

import pytest

from eval import confidence
from eval.answering import asking
from eval.scoring import confidence as scoring
from smolrgpt_jax.generation import likelihood


@pytest.fixture
def nothing_is_asked(monkeypatch, loaded_model):
    def answer(*given):
        raise AssertionError("asked before everything was looked at")

    monkeypatch.setattr(asking, "answer_questions", answer)


@pytest.fixture
def half_right(monkeypatch, loaded_model):
    """Every second answer of a category is right and likely, the others are neither."""
    likely = {}

    def answer(model, pictures, options):
        questions = [question for picture in pictures for question in picture.questions]
        likely.update({question.id: -0.1 if (n + n // 4) % 2 else -5.0 for n, question in enumerate(questions)})
        return [question.answer if (n + n // 4) % 2 else "I do not know." for n, question in enumerate(questions)]

    monkeypatch.setattr(asking, "answer_questions", answer)
    monkeypatch.setattr(likelihood, "log_likelihoods", lambda model, pictures, answers, **how: dict(likely))
    monkeypatch.setattr("smolrgpt_jax.checkpoint.fingerprint.params_fingerprint", lambda params: "f1")


def run(warehouse, out, *more):
    confidence.main(["--checkpoint", "any", "--data", str(warehouse), "--out", str(out), *more])
    return json.loads(out.read_text(encoding="utf-8"))


def test_the_surest_half_is_right(half_right, warehouse, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "GROUP", 1)
    found = run(warehouse, tmp_path / "sure.json", "--fit", "train", "--split", "val")
    assert found["checkpoint_fingerprint"] == "f1" and (found["fitted_on"], found["tried_on"]) == ("train", "val")
    every = found["scores"]["all questions"]
    assert every["coverage"]["50%"] == 100 and every["coverage"]["100%"] == 50
    assert all(sure[0] < 0.5 < sure[-1] for _, sure in found["fits"].values())
    assert f"| all questions | 28 | {every['error']:.1f} % | 100.0 %" in capsys.readouterr().out


def test_a_category_that_nothing_was_fitted_on_is_told(nothing_is_asked, warehouse, tmp_path):
    file = warehouse / "train.json"
    records = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps([r for r in records if r["category"] != "mcq"]), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        run(warehouse, tmp_path / "sure.json", "--fit", "train", "--split", "val")
    assert "has no question of mcq, nothing to fit on" in str(stopped.value)
    assert not (tmp_path / "sure.json").exists()


def test_a_category_of_which_nothing_could_be_answered_is_told(half_right, warehouse, tmp_path, monkeypatch):
    likely, given = likelihood.log_likelihoods, []

    def without_mcq_at_first(*args, **how):
        given.append(how)
        return {id: value for id, value in likely(*args, **how).items() if len(given) > 1 or "mcq" not in id}

    monkeypatch.setattr(likelihood, "log_likelihoods", without_mcq_at_first)
    with pytest.raises(SystemExit, match="train.json has no question of mcq, nothing to fit on"):
        run(warehouse, tmp_path / "sure.json", "--fit", "train", "--split", "val")


def test_a_split_without_published_answers_is_told(nothing_is_asked, warehouse, tmp_path):
    file = warehouse / "val.json"
    records = json.loads(file.read_text(encoding="utf-8"))
    plain = [{name: value for name, value in r.items() if name != "normalized_answer"} for r in records]
    file.write_text(json.dumps(plain), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        run(warehouse, tmp_path / "sure.json", "--fit", "train", "--split", "val")
    assert "val.json: has questions without a published answer" in str(stopped.value)


def test_both_splits_are_read_before_any_question_is_asked(nothing_is_asked, warehouse, tmp_path):
    with pytest.raises(SystemExit, match="nowhere.json: cannot be read"):
        run(warehouse, tmp_path / "sure.json", "--fit", "val", "--split", "nowhere")
