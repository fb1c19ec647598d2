"""Validation during training: scores of answers, the best checkpoint, the end of patience."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import default
from eval.scoring.in_training import WAREHOUSE_SCORES, score_answers
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.config import PRESETS, Compute
from smolrgpt_jax.data.batches import Order
from smolrgpt_jax.data.records import BadRecords, Picture, Question
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.generation.answers import generate_answers
from smolrgpt_jax.generation.engine import AnswerOptions
from smolrgpt_jax.sharding import make_mesh
from smolrgpt_jax.training import run as loop
from smolrgpt_jax.training import validation
from smolrgpt_jax.training.data import read_start, row_shape
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.training.validation import Selection, Validation, draw_questions
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse
from tests.training.metrics_file import read_metrics
from tests.training.test_run import TINY, run_config

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validation") / "data"
    config = WarehouseConfig(scenes=6, val_scenes=4, test_scenes=1, width=96, height=54, max_pallets=5)
    make_warehouse(folder, config, workers=1)
    return folder


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, "tiny", TINY)


def asked(name: str, count: int, known: bool = True) -> Picture:
    one = Question(f"{name}-0", "count", "How many?", "Two.", 2 if known else None)
    questions = tuple(dataclasses.replace(one, id=f"{name}-{i}") for i in range(count))
    return Picture(name, Path(f"{name}.png"), None, questions)


def test_questions_are_drawn_alike_up_to_the_count_and_only_those_with_an_answer():
    pictures = [asked("a", 3), asked("b", 2, known=False), asked("c", 4), asked("d", 1)]
    drawn = draw_questions(pictures, 5)
    assert sum(len(picture.questions) for picture in drawn) == 5
    assert draw_questions(pictures, 5) == drawn
    assert all(question.normalized_answer is not None for picture in drawn for question in picture.questions)
    assert sum(len(picture.questions) for picture in draw_questions(pictures, 100)) == 8
    assert draw_questions([asked("b", 2, known=False)], 5) == []


def test_questions_are_drawn_from_all_of_a_sorted_set():
    drawn = draw_questions([asked(str(number), 2) for number in range(50)], 10)
    pictures = [int(picture.id) for picture in drawn for _ in picture.questions]
    assert [picture // 5 for picture in pictures] == list(range(10))


def test_what_two_sources_call_alike_is_kept_apart():
    drawn = draw_questions([asked("a", 3), asked("a", 3)], 6)
    ids = [question.id for picture in drawn for question in picture.questions]
    assert len(set(ids)) == 6
    assert score_answers(drawn, dict.fromkeys(ids[:3], "Two.") | dict.fromkeys(ids[3:], "One."))["count"] == 50.0


def test_rows_of_validation_are_spread_over_the_plan_which_is_sorted_by_size(data):
    run = run_config(data, validation_rows=3)
    start = read_start(run, STAGES[run["stage"]])
    shape = row_shape(start.config, run["data"], regions=True)
    made = Validation(run, start, Compute(), shape, make_mesh(devices=jax.devices()[:1]), BadRecords())
    total = len(made.rows[0])
    assert total > 5 and [number * 3 // total for number in made._order.chosen] == [0, 1, 2]


def test_answers_are_scored_as_by_the_benchmark(data, tmp_path):
    run = run_config(data, validation_answers=7, validation_answer_tokens=6, steps=2, validate_every=2)
    loop.train(run, tmp_path / "run", WAREHOUSE_SCORES)
    row = read_metrics(tmp_path / "run" / "metrics.csv")[-1]
    pictures = draw_questions(read_warehouse(data, "val"), 7)
    answers = generate_answers(load(tmp_path / "run"), pictures, AnswerOptions(7, 6, progress=False))
    scores = {
        name: value
        for name, value in score_answers(pictures, {name: given.text for name, given in answers.items()}).items()
        if value is not None
    }
    assert scores and "S1" in scores
    assert {name: row[name] for name in scores} == pytest.approx(scores)


def test_perfect_and_empty_answers_score_100_and_0(data):
    pictures = draw_questions(read_warehouse(data, "val"), 20)
    perfect = {q.id: q.answer for picture in pictures for q in picture.questions}
    assert score_answers(pictures, perfect)["S1"] == 100.0
    assert score_answers(pictures, {})["S1"] == 0.0


@pytest.fixture
def losses(monkeypatch):
    """Validation losses of the next run, one per validation."""
    values: list[float] = []
    monkeypatch.setattr(Validation, "__call__", lambda self, params: {"validation_loss": values.pop(0)})
    return values


def kept_steps(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_besides_the_last(data, tmp_path, losses):
    losses += [3.0, 2.0, 2.5, 2.0, 2.2] * 2
    result = loop.train(run_config(data, validate_every=1, keep=1), tmp_path / "run")
    assert result["best_step"] == 2 and not result["ended_early"]
    assert kept_steps(tmp_path / "run") == [2, 5]
    loop.train(run_config(data, validate_every=1, save_every=1, keep=9), tmp_path / "all")
    assert kept_steps(tmp_path / "all") == [1, 2, 3, 4, 5]
    expected = checkpoints.load_params(tmp_path / "all" / "checkpoints" / "2")
    for name, value in load(tmp_path / "run" / "best").params.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_patience_ends_the_run_for_good(data, tmp_path, losses, capsys):
    losses += [2.0, 3.0, 2.5]
    run = run_config(data, validate_every=1, patience=2, steps=6)
    result = loop.train(run, tmp_path / "run")
    assert (result["step"], result["ended_early"], result["stopped"]) == (3, True, False)
    assert "no better validation_loss in 2 validations than 2 at step 1" in capsys.readouterr().out
    assert kept_steps(tmp_path / "run") == [1, 3]
    again = loop.train(run, tmp_path / "run")
    assert again["step"] == 3 and again["ended_early"] and not losses
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.csv")] == [1, 2, 3]


@pytest.mark.slow
def test_a_run_stopped_between_validations_remembers_the_best(data, tmp_path, losses, monkeypatch):
    losses += [2.0, 3.0]
    write = loop.MetricsWriter.write

    def write_and_fail(self, step, values):
        write(self, step, values)
        if step == 2:
            raise KeyboardInterrupt

    run = run_config(data, validate_every=1, save_every=1, patience=3, steps=6)
    with monkeypatch.context() as patch:
        patch.setattr(loop.MetricsWriter, "write", write_and_fail)
        with pytest.raises(KeyboardInterrupt):
            loop.train(run, tmp_path / "run")
    losses += [3.0, 2.5, 2.1]
    result = loop.train(run, tmp_path / "run")
    assert (result["step"], result["best_step"], result["ended_early"]) == (4, 1, True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_answers": 4}, "config.validation_answers needs a scorer"),
        ({"patience": 2, "validation_sources": {}}, "need config.validation_sources"),
        ({"best_metric": "S1"}, "config.best_metric 'S1' is not one of validation_loss"),
        ({"validation_rows": 0}, "config.validation_rows is 0, it must be a number at least 1"),
        ({"validation_rows": -4}, "config.validation_rows is -4, it must be a number at least 1"),
        ({"validation_sources": {"q": {"format": "foo"}}}, "config.validation_sources: data format 'foo'"),
    ],
)
def test_what_cannot_be_validated_is_refused(data, tmp_path, changes, message):
    with pytest.raises(loop.RunError, match=message):
        loop.train(run_config(data, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_validation_source_without_questions_is_refused_before_training(data, tmp_path):
    (data / "empty.json").write_text("[]")
    sources = {"questions": default.warehouse(str(data), "val", "empty.json")}
    with pytest.raises(loop.RunError, match="config.validation_sources: no question that can be used"):
        loop.train(run_config(data, validation_sources=sources), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_over_no_answer_is_no_loss(monkeypatch):
    """It would be 0, which no other validation could better."""
    only = object.__new__(Validation)
    only.rows, only._order = [[0, 0, 0]], Order(2, seed=0, chosen=[0, 2])
    only._eval_step, only._mesh = lambda params, tokens: (0.0, tokens), make_mesh(devices=jax.devices()[:1])
    monkeypatch.setattr(validation, "train_batches", lambda *_, **__: (tokens for tokens in [0.0]))
    with pytest.raises(loop.RunError, match="the rows that were drawn hold no token of an answer"):
        only._loss({})


def test_without_validation_there_is_no_best(data, tmp_path):
    loop.train(run_config(data, validation_sources={}, steps=1), tmp_path / "run")
    with pytest.raises(CheckpointError, match="was not validated yet"):
        load(tmp_path / "run" / "best")


def test_of_a_loss_lower_is_better_and_of_a_score_higher():
    loss, score = Selection("validation_loss"), Selection("S1")
    values = [3.0, 2.0, 2.0, 2.5, 1.0]
    assert [loss.add(i, {"validation_loss": v}) for i, v in enumerate(values)] == [True, True, False, False, True]
    assert [score.add(i, {"S1": v}) for i, v in enumerate(values)] == [True, False, False, False, False]
    assert (loss.best, loss.best_step, score.best, score.best_step) == (1.0, 4, 3.0, 0)


def test_nan_is_never_the_best():
    selection = Selection("validation_loss")
    assert not selection.add(1, {"validation_loss": math.nan}) and selection.best_step is None
    assert selection.add(2, {"validation_loss": 5.0})


def test_patience_counts_validations_since_the_best_and_survives_a_restart():
    selection = Selection("validation_loss", patience=2)
    for step, value in enumerate([2.0, 3.0]):
        selection.add(step, {"validation_loss": value})
    assert not selection.exhausted
    again = Selection("validation_loss", 2, **selection.state())
    assert not again.add(2, {"validation_loss": 2.1}) and again.exhausted and again.best_step == 0
    endless = Selection("validation_loss", 0, **again.state())
    assert not endless.exhausted


def test_what_was_waited_for_is_said_even_if_nothing_was_a_number():
    selection = Selection("S1", patience=1)
    selection.add(1, {"S1": math.nan})
    assert selection.exhausted and str(selection) == "no S1 that is a number in 1 validations"
    selection.add(2, {"S1": 40.0})
    selection.add(3, {"S1": 39.0})
    assert str(selection) == "no better S1 in 1 validations than 40 at step 2"


def test_an_unknown_metric_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="config.best_metric 'S2' is not one of validation_loss, S1"):
        Selection("S2").add(1, {"validation_loss": 1.0, "S1": 2.0})
