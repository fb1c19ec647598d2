"""Confidences by the file that `smolrgpt confidence` writes."""

from __future__ import annotations

import json

import pytest

from eval.answering.confidences import Confidences
from eval.scoring.confidence import confidence
from smolrgpt_jax.checkpoint.fingerprint import params_fingerprint
from smolrgpt_jax.errors import DataError
from tests.eval.conftest import FakeModel

FITS = {"left_right": [[-2.0, -1.0, -0.1], [0.5, 0.7, 0.9]], "distance": [[-1.0], [0.25]]}


def written(folder, **changes):
    file = folder / "sure.json"
    whole = {"checkpoint_fingerprint": "f1", "fitted_on": "val", "fits": FITS, "scores": {}} | changes
    file.write_text(json.dumps(whole), encoding="utf-8")
    return file


def test_a_category_has_its_own_function(tmp_path):
    sure = Confidences.read(written(tmp_path))
    assert sure("left_right", -1.5) == confidence(-1.5, FITS["left_right"]) == pytest.approx(0.6)
    assert sure("distance", -0.5) == sure("distance", -9.0) == 0.25


@pytest.mark.parametrize("category", [None, "", "count"])
def test_a_question_of_no_known_category_has_none(tmp_path, category):
    assert Confidences.read(written(tmp_path))(category, -0.5) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint_fingerprint": None},
        {"fits": None},
        {"fits": [[[-1.0], [0.8]]]},
        {"fits": {"count": 0.8}},
        {"fits": {"count": [0.8, 2.0]}},
        {"fits": {"count": [[], []]}},
        {"fits": {"count": [[-1.0], [0.5, 0.6]]}},
        {"fits": {"count": [[-1.0, -2.0], [0.5, 0.6]]}},
        {"fits": {"count": [[-1.0], [1.1]]}},
        {"fits": {"count": [[-1.0], ["2"]]}},
        {"fits": {"count": [[float("nan")], [0.5]]}},
        {"fits": {"count": [[-1.0], [True]]}},
    ],
)
def test_another_file_is_told(tmp_path, changes):
    file = written(tmp_path, **changes)
    with pytest.raises(DataError) as error:
        Confidences.read(file)
    assert str(error.value).startswith(f"{file}: is no file of `smolrgpt confidence`")


def test_what_is_no_json_object_is_told(tmp_path):
    for text, sentence in (
        ("[]", "expected a JSON object"),
        ("", "is not valid JSON"),
        ("\x89PNG", "is not valid JSON"),
    ):
        (tmp_path / "other").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=sentence):
            Confidences.read(tmp_path / "other")
    with pytest.raises(DataError, match="nowhere.json: cannot be read"):
        Confidences.read(tmp_path / "nowhere.json")


def test_the_file_of_another_model_is_told(tmp_path):
    model = FakeModel()
    own = params_fingerprint(model.params)
    sure = Confidences.read(written(tmp_path, checkpoint_fingerprint=own))
    assert sure.of(model) is sure
    with pytest.raises(DataError, match=f"sure.json: is of a model with the fingerprint f1, this one has {own}"):
        Confidences.read(written(tmp_path)).of(model)
