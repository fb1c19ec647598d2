from __future__ import annotations

import math

import pytest

from smolrgpt_jax.training.selection import Selection


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
    again = Selection("validation_loss", patience=2).restored(selection.state())
    assert not again.add(2, {"validation_loss": 2.1}) and again.exhausted and again.best_step == 0
    endless = Selection("validation_loss", patience=0).restored(again.state())
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
