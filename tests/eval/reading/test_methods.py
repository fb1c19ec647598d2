from __future__ import annotations

import json

import pytest

import eval.reading.methods as module
from eval.command_line import command_line
from eval.normalize import main, read_answers
from eval.reading.methods import build_methods, read_closings, read_values, router_method
from smolrgpt_jax.errors import DataError

SIDE = "Is the pallet <mask> to the left or right of the pallet <mask>?"


class FakeRouter:
    """Takes a text's category from a table."""

    def __init__(self, table: dict[str, str], kind: str):
        self.table, self.kind = table, kind

    def categories(self, texts, *, progress=False):
        return [self.table[text] for text in texts]


def item(name: str, category: str, question: str, answer: str, truth=None, **more) -> dict:
    fields = {"id": name, "image": "a.png", "category": category, "question": question, "answer": answer}
    return {**fields, **more, "truth": truth}


@pytest.fixture
def items():
    return [
        item("a", "left_right", SIDE, "The pallet [Region 0] is to the left.", "left"),
        item("b", "count", "How many?", "There are two pallets.", 2),
        item("c", "distance", "How far?", "They are 3.5 m apart.", 4.0),
        item("d", "count", "How many?", "unclear", 1),
    ]


@pytest.fixture
def routers(monkeypatch):
    """Routers by folder name: one of questions, one of answers that takes every answer for a count."""
    questions = {SIDE: "left_right", "How many?": "count", "How far?": "distance"}
    known = {
        "questions": FakeRouter(questions, "question"),
        "answers": FakeRouter(dict.fromkeys(["x", "There are two pallets."], "count"), "answer"),
        "wrong": FakeRouter(dict.fromkeys(questions, "mcq"), ""),
    }
    monkeypatch.setattr("smolrgpt_jax.router.classify.load_router", lambda folder: known[folder])
    return known


def test_the_first_method_scores_and_the_values_of_all_are_kept(items):
    methods = {"rules": module.read_by_rules, "fixed": lambda found: [1] * len(found)}
    predictions = read_values(items, methods)
    assert [row["normalized_answer"] for row in predictions] == ["left", 2, 3.5, None]
    assert predictions[2]["values"] == {"rules": 3.5, "fixed": 1}
    assert list(predictions[0])[-3:] == ["normalized_answer", "values", "truth"]
    assert "values" not in read_values(items, {"fixed": methods["fixed"]})[0]


def test_a_router_of_questions_chooses_what_the_rules_read(items, routers):
    assert router_method(["questions"])(items) == ["left", 2, 3.5, None]
    # A region's number is no side.
    assert router_method(["wrong"])(items) == [None, 2, None, None]
    unpublished = [{**row, "category": ""} for row in items]
    assert router_method(["wrong"])(unpublished)[0] == 0


def test_with_a_router_of_answers_a_mismatch_falls_back_as_in_the_published_pipeline(items, routers):
    table = {row["answer"]: "count" for row in items}
    routers["answers"].table = table
    assert router_method(["questions", "answers"])(items) == ["left", 2, 1.0, None]
    table[items[0]["answer"]] = "left_right"
    items[0]["answer"], table["to the right"] = "to the right", "distance"
    assert router_method(["questions", "answers"])(items)[0] == "left"


def test_routers_in_the_wrong_order_are_refused(routers):
    with pytest.raises(DataError, match="answers is a router of answers, expected one of questions"):
        router_method(["answers", "questions"])


def test_closings_are_read_as_values(items):
    closed = [{**row, "closing": value} for row, value in zip(items, ("left", "2", "3.50", None))]
    assert read_closings(closed) == ["left", 2, 3.5, None]
    assert read_closings([{**closed[1], "category": ""}]) == [2]
    with pytest.raises(DataError, match="no answer is closed"):
        read_closings(items)


def parse(tmp_path, *words):
    args = command_line("eval.methods", "").parse_args(words)
    args.out = tmp_path / "out"
    return args


def test_the_command_line_names_methods_in_order_and_each_once(tmp_path, routers):
    assert list(build_methods(parse(tmp_path))) == ["rules"]
    words = ["--answers", "router", "rules", "closing", "router", "--router", "questions"]
    args = parse(tmp_path, *words)
    args.router = ["questions"]
    assert list(build_methods(args)) == ["router", "rules", "closing"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--answers", "router"], "needs --router"),
        (["--answers", "router", "--router", "a", "b", "c"], "one or two folders"),
        (["--answers", "server", "--server", "http://localhost/v1"], "needs --server URL and --server_model"),
        (["--answers", "server", "--server_model", "m"], "needs --server URL and --server_model"),
        (["--answers", "server", "--server", "x", "--server_model", "m", "--server_retries", "-1"], "retries"),
    ],
)
def test_missing_options_are_named(tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        build_methods(parse(tmp_path, *words))


def write(tmp_path, records):
    file = tmp_path / "answers.json"
    file.write_text(records if isinstance(records, str) else json.dumps(records), encoding="utf-8")
    return file


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture
def fixed(monkeypatch):
    """Makes "closing" a method that answers left or 2."""
    monkeypatch.setattr(
        module, "read_closings", lambda rows: ["left" if r["category"] == "left_right" else 2 for r in rows]
    )


def test_the_command_reads_predictions_again_and_reports_the_agreement(tmp_path, items, fixed, capsys):
    stale = [{**row, "normalized_answer": 9, "values": {"rules": 9}} for row in items]
    arguments = ["--predictions", str(write(tmp_path, stale)), "--out", str(tmp_path / "out")]
    main([*arguments, "--answers", "closing", "rules"])
    predictions, metrics = read(tmp_path / "out", "predictions.json"), read(tmp_path / "out", "metrics.json")
    assert [row["normalized_answer"] for row in predictions] == ["left", 2, 2, 2]
    assert predictions[3]["values"] == {"closing": 2, "rules": None}
    assert metrics["count"] == 50 and metrics["agreement"]["all"]["agree"] == 2
    assert metrics["agreement"]["scores"]["rules"]["unreadable"] == 1
    assert metrics["readability"]["count"]["questions"] == 2
    assert read(tmp_path / "out", "submission.json")[1] == {"id": "b", "normalized_answer": 2}
    printed = capsys.readouterr().out
    assert "closing and rules              4       50.00" in printed and "4 questions" in printed


def test_without_truths_a_submission_and_the_agreement_are_written(tmp_path, items, fixed, capsys):
    bare = [{**row, "category": "", "truth": None} for row in items]
    annotations = tmp_path / "test.json"
    annotations.write_text(json.dumps([{"id": name} for name in "dcxba"]))
    main(
        ["--predictions", str(write(tmp_path, bare)), "--out", str(tmp_path / "out")]
        + ["--answers", "rules", "closing", "--annotations", str(annotations)]
    )
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "agreement.json",
        "predictions.json",
        "submission.json",
    ]
    assert read(tmp_path / "out", "submission.json") == [
        {"id": "d", "normalized_answer": -99},
        {"id": "c", "normalized_answer": 3.5},
        {"id": "x", "normalized_answer": -99},
        {"id": "b", "normalized_answer": 2},
        {"id": "a", "normalized_answer": "left"},
    ]
    assert "4 questions without published answers, 1 answers unreadable" in capsys.readouterr().out


@pytest.mark.parametrize(
    "records, message",
    [
        ("", "is not valid JSON"),
        ("{}", "holds a JSON object, expected a list"),
        ([], "holds no question"),
        ([3], "record 0 is a number, expected a JSON object"),
        ([{"id": "a"}], "record 0 has no 'image'"),
        ([item("a", "count", "How many?", 3)], "record 'a': answer is 3, expected text"),
        ([item("a", "colour", "How many?", "3")], "unknown category 'colour'"),
        ([item("a", "count", "How many?", "3", truth="many")], "'many'"),
        ([item("a", "count", "How many?", "3")] * 2, "more than once: 'a'"),
        (
            [item("a", "count", "How many?", "3", 3), item("b", "count", "How many?", "3")],
            "'b' has no normalized answer",
        ),
    ],
)
def test_bad_answers_end_the_command_with_one_sentence_and_no_output(tmp_path, records, message):
    with pytest.raises(SystemExit) as stop:
        main(["--predictions", str(write(tmp_path, records)), "--out", str(tmp_path / "out")])
    assert str(stop.value).startswith("error: ") and message in str(stop.value)
    assert "\n" not in str(stop.value) and not (tmp_path / "out").exists()


def test_other_fields_of_answers_are_kept(tmp_path, items):
    file = write(tmp_path, [{**items[0], "closing": "left", "normalized_answer": "right"}])
    assert read_answers(file) == [{**items[0], "closing": "left"}]


def test_annotations_of_other_records_are_refused_before_anything_is_read(tmp_path, items):
    annotations = tmp_path / "other.json"
    annotations.write_text(json.dumps([{"id": name} for name in "axyz"]))
    message = "^error: 3 of 4 predictions are of no record of .*other.json: 'b', 'c', 'd'$"
    with pytest.raises(SystemExit, match=message):
        main(
            ["--predictions", str(write(tmp_path, items)), "--out", str(tmp_path / "out")]
            + ["--annotations", str(annotations)]
        )
    assert not (tmp_path / "out").exists()


def test_empty_entries_of_the_submission_are_counted(tmp_path, items, capsys):
    annotations = tmp_path / "all.json"
    annotations.write_text(json.dumps([{"id": name} for name in "abcdxyz"]))
    arguments = ["--predictions", str(write(tmp_path, items)), "--out", str(tmp_path / "out")]
    main([*arguments, "--annotations", str(annotations)])
    assert "4 of the submission's 7 entries have no value and stand as -99" in capsys.readouterr().out
    write(tmp_path, items[:3])
    main(arguments)
    assert "entries are" not in capsys.readouterr().out


def test_results_of_an_earlier_reading_do_not_stay(tmp_path, items, fixed):
    out = tmp_path / "out"
    main(["--predictions", str(write(tmp_path, items)), "--out", str(out)])
    (out / "note.txt").write_text("mine")
    (out / "report.html").write_text("of an evaluation, with other values")
    bare = [{**row, "truth": None} for row in items]
    main(["--predictions", str(write(tmp_path, bare)), "--out", str(out), "--answers", "rules", "closing"])
    names = ["agreement.json", "note.txt", "predictions.json", "submission.json"]
    assert sorted(file.name for file in out.iterdir()) == names


def test_what_was_run_stays_beside_its_answers(tmp_path, items):
    (tmp_path / "run.json").write_text('{"checkpoint": "m", "answers_read_by": "server"}')
    main(["--predictions", str(write(tmp_path, items)), "--out", str(tmp_path / "out")])
    assert read(tmp_path / "out", "run.json") == {"checkpoint": "m", "answers_read_by": "rules"}


def test_answers_that_were_cut_off_stay_counted(tmp_path, items, capsys):
    cut = [{**items[0], "cut_off": True}, *items[1:]]
    main(["--predictions", str(write(tmp_path, cut)), "--out", str(tmp_path / "out")])
    assert read(tmp_path / "out", "metrics.json")["cut_off"] == 1
    assert "1 answers were cut off at the longest length" in capsys.readouterr().out
