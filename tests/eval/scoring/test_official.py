from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.score_warehouse import main, read_ground_truth, read_predictions
from eval.scoring.official import is_correct, official_value, score
from eval.scoring.results import make_submission
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Question
from smolrgpt_jax.errors import DataError

FILES = Path(__file__).parents[2] / "data_files" / "warehouse_scores"
EXPECTED = json.loads((FILES / "expected.json").read_text(encoding="utf-8"))
ONE = '[{"id": "a", "category": "count", "normalized_answer": "2"}]'
FILE_OPTIONS = (("ground_truth", "gt.json"), ("predictions", "pred.json"), ("out", "m.json"))
TRUTH, PREDICTIONS = FILES / "ground_truth.json", FILES / "predictions.json"


def question(name: str, category: str, truth) -> Question:
    return Question(name, category, "", None, truth)


def test_the_official_numbers_come_out_to_the_last_digit():
    assert score(read_ground_truth(TRUTH)[0], read_predictions(PREDICTIONS))["official"] == EXPECTED


def test_the_command_writes_the_official_numbers_and_s1(tmp_path, capsys):
    main(
        [
            "--ground_truth",
            str(TRUTH),
            "--predictions",
            str(PREDICTIONS),
            "--out",
            str(tmp_path / "new" / "metrics.json"),
        ]
    )
    metrics = json.loads((tmp_path / "new" / "metrics.json").read_text(encoding="utf-8"))
    assert {name: metrics[name] for name in EXPECTED} == EXPECTED
    assert metrics["S1"] == EXPECTED["Final_weighted_score"]
    assert metrics["distance"] == 60.0 and metrics["questions"] == 400
    printed = capsys.readouterr().out
    assert "S1 78.05" in printed and "'be81558f2a803477' (\"\")" in printed
    low, high = metrics["intervals"]["S1"]
    assert low < metrics["S1"] < high
    pictures = {record["image"] for record in json.loads(TRUTH.read_text(encoding="utf-8"))}
    assert metrics["bootstrap"]["clusters"] == len(pictures)
    assert sum(row["questions"] for row in metrics["distance_errors"]) == metrics["Quan_distance_count"]
    assert "templates" not in metrics
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    "predicted, truth, right",
    [
        (9.0, 10.0, True),
        (11.0, 10.0, True),
        (8.99, 10.0, False),
        (11.01, 10.0, False),
        (0.0, 0.0, True),
        (0.01, 0.0, False),
        (0.0, 0.05, False),
        (None, 1.0, False),
    ],
)
def test_a_distance_is_right_within_ten_percent_and_zero_only_for_zero(predicted, truth, right):
    assert is_correct("distance", predicted, truth) is right


def test_a_missing_prediction_is_wrong_and_reported():
    questions = [question("a", "count", 2), question("b", "count", 3), question("c", "count", 3)]
    metrics = score(questions, {"a": 2, "c": "!!"})
    assert metrics["count"] == pytest.approx(100 / 3)
    assert (metrics["questions"], metrics["missing"], metrics["unreadable"]) == (3, 1, 1)


def test_a_missing_prediction_is_left_out_of_the_error_means():
    questions = [question("a", "distance", 2.0), question("b", "distance", 3.0)]
    official = score(questions, {"a": 3.0})["official"]
    assert official["Quan_distance_absrel"] == 0.5 and official["Quan_distance_rmse"] == 1.0


def test_s1_is_the_mean_over_the_categories_that_occur():
    metrics = score([question("a", "count", 2), question("b", "mcq", 1)], {"a": 2, "b": 0})
    assert metrics["S1"] == 50.0 and metrics["distance"] is None


@pytest.mark.parametrize(
    "questions, predictions, message",
    [
        ([], {}, "no question"),
        ([question("a", "count", 2)], {"a": 2, "x": 1}, "'x'"),
        ([question("a", "count", 2), question("a", "count", 2)], {"a": 2}, "occurs twice"),
        ([question("a", "count", None)], {"a": 2}, "no normalized answer"),
        ([question("a", "caption", None)], {"a": 2}, "caption"),
    ],
)
def test_unusable_input_is_an_error(questions, predictions, message):
    with pytest.raises(DataError, match=message):
        score(questions, predictions)


def test_all_ids_that_differ_are_listed(tmp_path):
    truth = [{"id": name, "category": "count", "normalized_answer": 1} for name in "abc"]
    (tmp_path / "gt.json").write_text(json.dumps(truth), encoding="utf-8")
    said = [{"id": name, "normalized_answer": 1} for name in "cxy"]
    (tmp_path / "pred.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main([f"--{name}={tmp_path / file}" for name, file in FILE_OPTIONS])
    assert f"only {tmp_path / 'gt.json'} has 2 of its 3 ids ('a', 'b')" in str(stop.value)
    assert f"only {tmp_path / 'pred.json'} has 2 of its 3 ids ('x', 'y')" in str(stop.value)


def test_very_many_ids_that_differ_are_listed_in_a_file(tmp_path):
    truth = [{"id": n, "category": "count", "normalized_answer": 1} for n in range(150)]
    (tmp_path / "gt.json").write_text(json.dumps(truth), encoding="utf-8")
    said = [{"id": str(n), "normalized_answer": 1} for n in range(148, 152)]
    (tmp_path / "pred.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main([f"--{name}={tmp_path / file}" for name, file in FILE_OPTIONS])
    names = [str(tmp_path / "gt.json"), str(tmp_path / "pred.json")]
    listing = tmp_path / "m_differing_ids.json"
    assert str(stop.value) == (
        f"error: only {names[0]} has 148 of its 150 ids ('0', '1', '2', ...) and only {names[1]} has 2 of its "
        f"4 ids ('150', '151'); all are listed in {listing}"
    )
    listed = json.loads(listing.read_text(encoding="utf-8"))
    assert listed == {names[0]: [str(n) for n in range(148)], names[1]: ["150", "151"]}
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("value", ["", "far", "-", None, True, [2.0], {"value": 2.0}, "nan", "\u0662"])
@pytest.mark.parametrize("category, truth", [("count", 2), ("distance", 2.0), ("mcq", 2), ("left_right", "left")])
def test_a_prediction_that_is_no_value_is_wrong_whatever_it_is(category, truth, value):
    metrics = score([question("a", category, truth)], {"a": value})
    assert metrics[category] == 0 and metrics["unreadable"] == 1


def test_numbers_that_json_has_no_word_for_are_wrong(tmp_path):
    truth = [{"id": name, "category": "distance", "normalized_answer": 1} for name in "abc"]
    (tmp_path / "gt.json").write_text(json.dumps(truth), encoding="utf-8")
    said = "".join(f', {{"id": "{n}", "normalized_answer": {v}}}' for n, v in zip("abc", ("NaN", "-Infinity", "1e999")))
    (tmp_path / "pred.json").write_text(f"[{said[2:]}]", encoding="utf-8")
    main([f"--{name}={tmp_path / file}" for name, file in FILE_OPTIONS])
    metrics = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert (metrics["distance"], metrics["unreadable"]) == (0, 3)


def test_predictions_that_are_no_number_are_wrong_and_listed(tmp_path, capsys):
    truth = [
        {"id": name, "category": category, "normalized_answer": 1}
        for name, category in (("a", "count"), ("b", "distance"), ("c", "mcq"), ("d", "count"))
    ]
    (tmp_path / "gt.json").write_text(json.dumps(truth), encoding="utf-8")
    values = {"a": "many", "b": [1], "c": None, "d": 1}
    said = [{"id": name, "normalized_answer": value} for name, value in values.items()]
    (tmp_path / "pred.json").write_text(json.dumps(said), encoding="utf-8")
    main([f"--{name}={tmp_path / file}" for name, file in FILE_OPTIONS])
    metrics = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert (metrics["count"], metrics["mcq"], metrics["distance"]) == (50, 0, 0)
    assert metrics["unreadable"] == 3
    assert "3 predictions are unreadable and count as wrong: 'a' (\"many\"), 'b' ([1]), 'c' (null)" in (
        capsys.readouterr().out
    )


def test_published_questions_give_templates(warehouse, tmp_path):
    records = json.loads((warehouse / "val.json").read_text(encoding="utf-8"))
    said = [{"id": item["id"], "normalized_answer": item["normalized_answer"]} for item in records]
    (tmp_path / "pred.json").write_text(json.dumps(said), encoding="utf-8")
    arguments = ["--ground_truth", str(warehouse / "val.json")]
    main([*arguments, *(f"--{name}={tmp_path / file}" for name, file in FILE_OPTIONS[1:])])
    metrics = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert [(row["category"], row["correct"]) for row in metrics["templates"]] == [
        ("left_right", 7),
        ("count", 7),
        ("mcq", 7),
        ("distance", 7),
    ]
    assert metrics["bootstrap"]["clusters"] == 7


@pytest.mark.parametrize(
    "truth, predictions, message",
    [
        (ONE, '[{"id": "a", "normalized_answer": 2}, {"id": "a", "normalized_answer": 3}]', "more than once: 'a'"),
        (
            '[{"id": "a", "category": "count", "normalized_answer": "2"}, '
            '{"id": "a", "category": "count", "normalized_answer": "2"}, '
            '{"id": "b", "category": "count", "normalized_answer": "2"}, '
            '{"id": "b", "category": "count", "normalized_answer": "2"}]',
            "[]",
            "more than once: 'a', 'b'",
        ),
        (
            '[{"id": "a", "category": "count", "normalized_answer": "2"}, '
            '{"id": "b", "category": "count", "normalized_answer": "2"}]',
            '[{"id": "x", "normalized_answer": 2}, {"id": "y", "normalized_answer": 2}]',
            "has 2 of its 2 ids ('x', 'y')",
        ),
        ('[{"id": "a", "category": "count", "normalized_answer": null}]', "[]", "'a'"),
        ('[{"id": "a", "category": "colour", "normalized_answer": "red"}]', "[]", "colour"),
        (ONE, '[{"id": "b", "normalized_answer": 2}]', "'b'"),
        (ONE, '[{"id": "a"}]', "normalized_answer"),
        ('[{"id": "a", "category": "count", "normalized_answer": "two"}]', "[]", "'a'"),
        ('[{"id": "a", "category": "count"}]', "[]", "record 0"),
        ('{"id": 1}', "[]", "list of records"),
        ("[", "[]", "not valid JSON"),
        (None, "[]", "cannot be read"),
        ("", "[]", "gt.json: is not valid JSON"),
        (ONE, "", "pred.json: is not valid JSON"),
        (ONE, "[]]", "pred.json: is not valid JSON"),
        (ONE, "[" * 100_000, "pred.json: is not valid JSON"),
        (ONE, "7", "pred.json: holds a number, expected a list of records"),
        (ONE, '{"a": 2}', "pred.json: holds a JSON object, expected a list of records"),
        (
            ONE,
            '{"images": [], "annotations": []}',
            "pred.json: holds annotations of COCO (docs/own_data.md makes records of",
        ),
        (ONE, '["a"]', "pred.json: record 0 is a text, expected a JSON object"),
        (ONE, '[{"normalized_answer": 2}]', "record 0 has no 'id'"),
        (ONE, '[{"id": null, "normalized_answer": 2}]', "record 0 has the id None"),
        (ONE, '[{"id": ["a"], "normalized_answer": 2}]', "record 0 has the id ['a']"),
        (ONE, '[{"id": true, "normalized_answer": 2}]', "record 0 has the id True"),
        ("[]", "[]", "gt.json: holds no question"),
        ('[{"id": {}, "category": "count", "normalized_answer": "2"}]', "[]", "record 0 has the id {}"),
        ('[{"id": "a", "category": ["count"], "normalized_answer": "2"}]', "[]", "'a'"),
        ('[{"id": "a", "category": "count", "normalized_answer": [2]}]', "[]", "'a'"),
        ('[{"id": "a", "category": "distance", "normalized_answer": NaN}]', "[]", "'a'"),
    ],
)
def test_bad_files_end_the_command_with_one_sentence_and_no_output(tmp_path, truth, predictions, message):
    if truth is not None:
        (tmp_path / "gt.json").write_text(truth, encoding="utf-8")
    (tmp_path / "pred.json").write_text(predictions, encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "--ground_truth",
                str(tmp_path / "gt.json"),
                "--predictions",
                str(tmp_path / "pred.json"),
                "--out",
                str(tmp_path / "m.json"),
            ]
        )
    assert str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)
    assert not (tmp_path / "m.json").exists()


@pytest.mark.filterwarnings("error")
def test_a_distance_just_below_zero_is_scored_without_a_warning():
    questions = [Question(name, "distance", "", None, truth) for name, truth in (("a", 2.0), ("b", 0.0))]
    found = score(questions, {"a": -1e-8, "b": -1e-8})
    assert (found["distance"], found["official"]["Quan_distance_a1"]) == (0, 0)


def test_long_unreadable_predictions_are_shortened(tmp_path, capsys):
    truth = [{"id": name, "category": "count", "normalized_answer": 1} for name in "ab"]
    (tmp_path / "gt.json").write_text(json.dumps(truth), encoding="utf-8")
    said = [{"id": name, "normalized_answer": "many " * 20_000} for name in "ab"]
    (tmp_path / "pred.json").write_text(json.dumps(said), encoding="utf-8")
    main([f"--{name}={tmp_path / file}" for name, file in FILE_OPTIONS])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "unreadable and count" in line]
    assert "'b' (\"many many" in line and "...)" in line and len(line) < 300


def published(category, value):
    """The published scorer's reading in plain words, for comparison."""
    if category in ("count", "distance"):
        return int(float(value)) if category == "count" else float(value)
    text = str(value).strip().lower()
    if category == "left_right":
        for side in ("left", "right"):
            if text in (side[0], side, side + " side", side + "-hand", side + " hand"):
                return side
        return text
    words = "zero one two three four five six seven eight nine ten".split()
    for word in words:
        text = text.replace(word, str(words.index(word)))
    digits = ""
    for character in text:
        if character.isdecimal():
            digits += character
        elif digits:
            break
    return digits or text


SIDES = {
    "left": ("l", "L", "left", " Left\n", "left side", "left-hand", "Left-Hand", "left hand", "LEFT HAND "),
    "right": ("r", "R", "right", "right side", "right-hand", "right hand"),
}
NO_SIDES = (
    "left of the shelf",
    "leftmost",
    "left-hand side",
    "left hand side",
    "left  hand",
    "lefthand",
    "le",
    "on the left",
)


@pytest.mark.parametrize(
    ("value", "read"), [(way, side) for side in SIDES for way in SIDES[side]] + [(w, w) for w in NO_SIDES]
)
def test_few_ways_to_write_a_side_are_known_and_others_stay_as_they_stand(value, read):
    assert official_value("left_right", value) == read
    official = score([question("a", "left_right", "left")], {"a": value})["official"]
    assert official["Qual_left_right_correct"] == (read == "left")


PIECES = st.sampled_from([*"0 3 12 007 -4 2.7 1e2 nan inf".split(), "none", "eighteen", "seventeen", "Region ", "left", "L",
                          "RIGHT side", "right-hand", "left  hand", "ten", "often", "zero", " ", "", "[", "]", "up"])  # fmt: skip


@given(
    st.sampled_from(WAREHOUSE_CATEGORIES), st.lists(PIECES, max_size=3).map("".join) | st.integers(0, 20) | st.floats()
)
def test_values_are_read_as_the_published_scorer_reads_them(category, value):
    try:
        expected = published(category, value)
    except (ValueError, OverflowError):
        with pytest.raises(ValueError, match="the published scorer ends"):
            official_value(category, value)
        return
    found = official_value(category, value)
    assert found == expected or found != found and expected != expected


def test_digits_are_found_inside_words():
    questions = [question("a", "mcq", 1), question("b", "mcq", 8), question("c", "mcq", 0)]
    found = score(questions, {"a": "none", "b": "eighteen", "c": "none"})
    assert found["official"]["Qual_mcq_correct"] == 2
    assert found["mcq"] == pytest.approx(100 / 3)


def test_a_truncated_count_is_right_officially_and_not_in_s1():
    found = score([question("a", "count", 3)], {"a": 3.9})
    assert found["official"]["Quan_count_correct"] == 1 and found["count"] == 0


def test_a_null_is_the_word_none():
    questions = [question("a", "mcq", 1), question("b", "left_right", "left")]
    found = score(questions, {"a": None, "b": None})
    assert (found["official"]["Qual_mcq_correct"], found["mcq"], found["unreadable"]) == (1, 0, 2)
    assert "the distance None is no number" in score([question("a", "distance", 1.0)], {"a": None})["official"]["error"]


@pytest.mark.parametrize("category, truth", [("count", 0), ("distance", 0.0), ("mcq", 9), ("left_right", "left")])
def test_what_a_submission_holds_without_a_value_is_read_and_wrong(category, truth):
    (entry,) = make_submission([{"id": "a", "normalized_answer": None}])
    found = score([question("a", category, truth)], {"a": entry["normalized_answer"]})
    assert (found["official"]["Total_correct"], found["official"]["Total_count"], found["unreadable"]) == (0, 1, 1)


def test_where_the_published_scorer_ends_the_reason_is_told(tmp_path, capsys):
    truth = [{"id": "a", "category": "count", "normalized_answer": 1}]
    (tmp_path / "gt.json").write_text(json.dumps(truth), encoding="utf-8")
    (tmp_path / "pred.json").write_text('[{"id": "a", "normalized_answer": "several"}]', encoding="utf-8")
    main([f"--{name}={tmp_path / file}" for name, file in FILE_OPTIONS])
    told = "no official numbers: prediction 'a': the count 'several' is no number, on which the published scorer ends"
    assert told in capsys.readouterr().out
    written = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert written["S1"] == 0 and "Final_weighted_score" not in written
