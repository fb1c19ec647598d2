from __future__ import annotations

import dataclasses
import json

import pytest

import eval.warehouse as command
import smolrgpt_jax
from eval import drawn_journal_path, journal_path, remove_journal
from eval.normalize import main as normalize_main
from eval.vote import Ballots, ballots_of, drawn_answers, elected, read_by_vote
from eval.warehouse import main, with_drawn
from smolrgpt_jax.data.records import BadRecords, DataError
from smolrgpt_jax.data.sources.warehouse import read_warehouse

SIDE = "Is the pallet <mask> to the left or right of the pallet <mask>?"


def item(category: str, question: str, answer: str, *drawn: str) -> dict:
    fields = {"id": "a", "image": "a.png", "category": category, "question": question, "answer": answer}
    return {**fields, "drawn": list(drawn), "truth": None}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["left", "right", "right"], "right"),
        # Of equally many votes the greedy answer's value wins, else the one named first.
        ([3, 2, 2, 3], 3),
        ([None, 2, 4, 4, 2], 2),
        ([None, None, 1], 1),
        ([None, None], None),
        ([0, 0, 5], 0),
        # 2.0 of the five is neither the mean (3.2) nor what most say.
        ([1.0, 9.0, 2.0, 1.0, 3.0], 2.0),
        ([1.0, None, 2.0], 1.5),
        ([0.0, 0.0, 4.0], 0.0),
    ],
)
def test_the_elected_value(values, expected):
    found = elected(values)
    assert found == expected and type(found) is type(expected)


def test_answers_are_read_one_by_one_and_elect_a_value():
    items = [
        item("left_right", SIDE, "It is left.", "It is right.", "It is right."),
        item("count", "How many?", "There are two pallets.", "unclear", "There are three pallets."),
        item(
            "distance", "How far?", "They are 3.5 m apart.", "They are 4.5 m apart.", "They are 4.0 m apart."
        ),
        {key: value for key, value in item("count", "How many?", "").items() if key != "drawn"},
    ]
    assert ballots_of(items[1]) == [2, None, 3]
    assert read_by_vote(items) == ["right", 2, 4.0, None]


def test_without_drawn_answers_there_is_no_vote():
    with pytest.raises(DataError, match="no drawn answers"):
        read_by_vote([item("count", "How many?", "There are two pallets.")])
    with pytest.raises(DataError, match="'a': drawn is 'two', expected a list of texts"):
        read_by_vote([item("count", "How many?", "two") | {"drawn": "two"}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"number": 1}, "at least 2"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": float("nan")}, "above 0"),
    ],
)
def test_impossible_ballots_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Ballots(**settings)


def test_every_question_is_asked_again_with_numbers_of_its_own(monkeypatch, warehouse, loaded_model):
    import smolrgpt_jax.generation

    pictures = read_warehouse(warehouse, "val")[:2]
    given = {}

    def generate_answers(model, pictures, **settings):
        given.update(settings, pictures=pictures)
        asked = [question for picture in pictures for question in picture.questions]
        return {question.id: question.id for question in asked[1:]}

    monkeypatch.setattr(smolrgpt_jax.generation, "generate_answers", generate_answers)
    bad = BadRecords("report")
    drawn = drawn_answers(loaded_model, pictures, Ballots(3, 0.5, seed=4), 2, 8, bad)
    ids = [question.id for picture in pictures for question in picture.questions]
    assert drawn == [["", f"{ids[0]}#2"]] + [[f"{name}#1", f"{name}#2"] for name in ids[1:]]
    sampling = given["sampling"]
    assert (sampling.temperature, sampling.top_k, sampling.top_p, given["seed"]) == (0.5, 0, 1.0, 4)
    # What could not be read was counted when the questions were asked first.
    assert given["on_bad_record"] is not bad and given["on_bad_record"].policy == "report"
    questions = given["pictures"][0].questions
    assert [question.prompt for question in questions[:2]] == [pictures[0].questions[0].prompt] * 2


def test_only_questions_of_the_categories_are_asked_again(monkeypatch, warehouse, loaded_model):
    import smolrgpt_jax.generation

    pictures = read_warehouse(warehouse, "val")[:2]
    # Without published categories the wording tells.
    bare = tuple(dataclasses.replace(question, category="") for question in pictures[1].questions)
    sides = tuple(question for question in pictures[0].questions if question.category == "left_right")
    pictures = [
        dataclasses.replace(pictures[0], questions=sides),
        dataclasses.replace(pictures[1], questions=bare),
    ]
    asked = []

    def generate_answers(model, pictures, **_):
        asked.extend(pictures)
        return {question.id: question.id for picture in pictures for question in picture.questions}

    monkeypatch.setattr(smolrgpt_jax.generation, "generate_answers", generate_answers)
    ballots = Ballots(2, categories=("distance", "count"))
    drawn = drawn_answers(loaded_model, pictures, ballots, 2, 8)
    questions = [question for picture in pictures for question in picture.questions]
    expected = [
        [f"{question.id}#1"] if question.id.endswith(("-distance", "-count")) else []
        for question in questions
    ]
    assert drawn == expected and sum(map(len, drawn)) == 2
    assert [picture.id for picture in asked] == [pictures[1].id]
    assert str(ballots).startswith("2 answers (distance, count only), all but")


def test_a_model_draws_the_same_answers_in_any_company(small_checkpoint, warehouse):
    model = smolrgpt_jax.load(small_checkpoint)
    pictures = read_warehouse(warehouse, "val")[:2]
    ballots = Ballots(3, temperature=1.0, seed=2)
    drawn = drawn_answers(model, pictures, ballots, 4, 6)
    assert [len(texts) for texts in drawn] == [2] * 8
    assert sum(first != second for first, second in drawn) > 4
    assert drawn_answers(model, pictures[1:], ballots, 2, 6) == drawn[4:]
    assert drawn_answers(model, pictures, dataclasses.replace(ballots, seed=3), 4, 6) != drawn


def test_the_command_scores_the_vote_and_keeps_its_answers(
    warehouse, tmp_path, loaded_model, monkeypatch, capsys
):
    """All counts are wrong in the first answer and right in both drawn ones."""
    asked = {}

    def first(model, pictures, **settings):
        asked["first"] = settings["journal"]
        questions = [question for picture in pictures for question in picture.questions]
        return ["There are 99 pallets." if q.category == "count" else q.answer for q in questions]

    def drawn(model, pictures, ballots, **settings):
        asked["drawn"], asked["ballots"] = settings["journal"], ballots
        return [[question.answer] * 2 for picture in pictures for question in picture.questions]

    monkeypatch.setattr(command, "answer_questions", first)
    monkeypatch.setattr(command, "drawn_answers", drawn)
    out = tmp_path / "out"
    line = ["--checkpoint", "anywhere", "--data", str(warehouse), "--out", str(out)]
    main([*line, "--answers", "vote", "rules", "--vote_answers", "3", "--vote_seed", "7"])
    assert asked == {
        "first": journal_path(out),
        "drawn": drawn_journal_path(out),
        "ballots": Ballots(3, 0.7, 7),
    }
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["read_by"] == ["vote", "rules"]
    assert metrics["S1"] == 100 and metrics["agreement"]["scores"]["rules"]["count"] == 0
    predictions = json.loads((out / "predictions.json").read_text())
    count = next(row for row in predictions if row["category"] == "count")
    assert count["values"]["vote"] == count["truth"] and len(count["drawn"]) == 2
    report = (out / "report.html").read_text(encoding="utf-8")
    assert f"99, {count['truth']}, {count['truth']}" in report
    assert "3 answers, all but the first drawn at temperature 0.7, seed 7" in report
    assert "vote and rules" in capsys.readouterr().out
    # The ballots travel with the predictions.
    normalize_main(
        ["--predictions", str(out / "predictions.json"), "--answers", "vote", "--out", str(tmp_path / "b")]
    )
    assert json.loads((tmp_path / "b" / "metrics.json").read_text())["S1"] == 100


def test_a_vote_of_one_is_refused_before_the_model_is_asked(warehouse, tmp_path, loaded_model, monkeypatch):
    monkeypatch.setattr(command, "answer_questions", lambda *_, **__: pytest.fail("was asked"))
    line = ["--checkpoint", "anywhere", "--data", str(warehouse), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="at least 2 answers"):
        main([*line, "--answers", "vote", "--vote_answers", "1"])


def test_both_journals_are_removed(tmp_path):
    for path in (journal_path(tmp_path / "out"), drawn_journal_path(tmp_path / "out")):
        path.write_text("")
        path.with_name(f"{path.name}.1").write_text("another process's")
    remove_journal(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_drawn_answers_follow_the_answers_they_belong_to():
    found = with_drawn(["one", {"answer": "two", "closing": "2"}], [["a"], ["b"]])
    assert found == [{"answer": "one", "drawn": ["a"]}, {"answer": "two", "closing": "2", "drawn": ["b"]}]
