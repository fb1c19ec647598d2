from __future__ import annotations

import json
import re
import shutil

import pytest

from eval.answering.bench import evaluate as evaluate_bench
from eval.answering.warehouse import evaluate
from eval.leaderboard import main
from eval.scoring.blind import BlindBaseline, read_training_questions
from eval.scoring.standings import make_table, question_sets, read_finished
from smolrgpt_jax.data.sources.formats import read_bench, read_warehouse
from smolrgpt_jax.errors import DataError
from tests.eval.conftest import write_warehouse
from tests.eval.report.test_html import Page


def answers(right):
    """Answers the questions of which right(number, question) says so as published, all others with nothing."""

    def answer(pictures):
        asked = [question for picture in pictures for question in picture.questions]
        return [question.answer if right(number, question) else "" for number, question in enumerate(asked)]

    return answer


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of runs that know all, all but every third question, and no count."""
    folder = tmp_path_factory.mktemp("runs")
    warehouse = write_warehouse(tmp_path_factory.mktemp("data"))
    blind = BlindBaseline(read_training_questions(warehouse / "train.json"))
    pictures = read_warehouse(warehouse, "val")
    for name, right in (
        ("no_count", lambda _, question: question.category != "count"),
        ("all", lambda *_: True),
        ("thirds", lambda number, _: number % 3),
    ):
        info = {"command": f"python -m {name}", "checkpoint": name, "parameters": 1234567, "data": warehouse}
        evaluate(pictures, answers(right), folder / name, blind=blind, run_info=info)
    return folder


@pytest.fixture
def runs(made, tmp_path):
    """Those runs, not by their scores."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return [tmp_path / name for name in ("no_count", "all", "thirds")]


def edit(file, change):
    found = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(change(found)), encoding="utf-8")


def test_runs_are_sorted_and_have_the_scores_of_their_metrics(runs):
    (set_,) = question_sets(read_finished(runs))
    table = make_table(set_)
    assert [row["run"].name for row in table["rows"]] == ["all", "no_count", "thirds"]
    assert (table["questions"], table["pictures"], table["first"]) == (28, 7, "S1")
    for row in table["rows"]:
        metrics = json.loads((runs[0].parent / row["run"].name / "metrics.json").read_text())
        for name in ("S1", "left_right", "count", "mcq", "distance"):
            assert row["scores"][name] == pytest.approx(metrics[name]), name
            assert row["intervals"][name] == pytest.approx(metrics["intervals"][name]), name
        assert row["unreadable"] == metrics["unreadable"] and row["parameters"] == 1234567 and row["per_second"] > 0
    (blind,) = table["blind"]
    assert blind["scores"]["S1"] == metrics["blind_S1"] and len(blind["runs"]) == 3


def test_how_far_a_run_is_behind_is_paired(runs):
    best, second, third = make_table(question_sets(read_finished(runs))[0])["rows"]
    assert best["behind"] is None
    assert second["behind"]["difference"] == -25 and second["behind"]["interval"] == [-25, -25]
    assert second["behind"]["p"] == pytest.approx(2 / 2**7)
    low, high = third["behind"]["interval"]
    assert low < third["behind"]["difference"] < high < 0


def test_kinds_are_listed_by_how_many_questions_they_part(runs):
    kinds = make_table(question_sets(read_finished(runs))[0])["kinds"]
    assert [kind["column"] for kind in kinds][0] == "count" and len(kinds) == 4
    assert kinds[0]["correct"] == [7, 0, 4] or kinds[0]["correct"] == [7, 0, 5]
    assert kinds[0]["gap"] == 7 and kinds[0]["kind"].startswith("How many pallets are present")
    assert [kind["gap"] for kind in kinds] == sorted((kind["gap"] for kind in kinds), reverse=True)


def test_the_command_prints_a_table_and_writes_a_page_that_needs_nothing(runs, tmp_path, capsys):
    main([*map(str, runs), "--out", str(tmp_path / "new/board.html")])
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert "Warehouse benchmark: 28 questions about 7 pictures" in lines
    places = [line.split()[:2] for line in lines if re.match(r"\d ", line)]
    assert places == [["1", "all"], ["2", "no_count"], ["3", "thirds"]]
    assert any(line.split()[0] == "blind" for line in lines if line.strip()) and "tables of their own" not in printed
    html = (tmp_path / "new/board.html").read_text(encoding="utf-8")
    page = Page(html)
    assert [a["data-run"] for tag, a in page.tags if "data-run" in a] == ["all", "no_count", "thirds"]
    assert "http:" not in html and "https:" not in html and "url(" not in html
    assert all(tag not in ("link", "iframe", "object") and "src" not in a for tag, a in page.tags)
    text = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    assert "Where runs differ most" in text and "1,234,567" in text and "python -m no_count" in text
    assert "-25.0 points to the first" in text and "<mask>" not in html and "&lt;mask&gt;" not in html


def test_runs_of_other_questions_stand_in_tables_of_their_own(runs, bench_folder, tmp_path, capsys):
    pictures = read_bench(bench_folder)
    for name, right in (("bench_all", lambda *_: True), ("bench_half", lambda number, _: number % 2)):
        evaluate_bench(pictures, answers(right), tmp_path / name)
    edit(runs[2] / "predictions.json", lambda items: items[1:])
    named = [*map(str, runs), str(tmp_path / "bench_half"), str(tmp_path / "bench_all")]
    main([*named, "--out", str(tmp_path / "board.html")])
    printed = capsys.readouterr().out
    told = (
        "Runs that answered other questions stand in tables of their own: all, no_count; thirds; bench_all, bench_half."
    )
    assert told in printed and "Warehouse benchmark: 27 questions" in printed
    html = (tmp_path / "board.html").read_text(encoding="utf-8")
    assert told in html and sum("data-set" in a for _, a in Page(html).tags) == 3


def test_a_bench_table_has_the_success_rates_of_its_metrics(bench_folder, tmp_path):
    pictures = read_bench(bench_folder)
    metrics = evaluate_bench(pictures, answers(lambda number, _: number % 3), tmp_path / "a")
    table = make_table(read_finished([tmp_path / "a"]))
    (row,) = table["rows"]
    for name in table["columns"]:
        assert row["scores"][name] == pytest.approx(metrics["columns"][name]["success"])
        assert row["intervals"][name] == pytest.approx(metrics["intervals"][name])
    correct = sum(column["correct"] for column in metrics["columns"].values())
    assert row["scores"]["all"] == pytest.approx(100 * correct / metrics["questions"]) and row["per_second"] is None


@pytest.mark.parametrize("field, value", [("truth", 99.0), ("image", "other.png"), ("category", "count")])
def test_the_same_id_of_another_question_is_another_set(runs, field, value):
    def change(items):
        item = next(item for item in items if item["category"] == "distance")
        return [{**i, field: value, "normalized_answer": 1.0} if i is item else i for i in items]

    edit(runs[0] / "predictions.json", change)
    assert [len(found) for found in question_sets(read_finished(runs))] == [1, 2]


def test_another_order_of_the_questions_is_the_same_set(runs):
    pair = [runs[0], runs[2]]
    before = make_table(question_sets(read_finished(pair))[0])
    edit(runs[2] / "predictions.json", lambda items: items[5:] + items[:5])
    (found,) = question_sets(read_finished(pair))
    after = make_table(found)
    assert before["rows"][1]["behind"] == after["rows"][1]["behind"] and before["rows"][1]["run"].name == "thirds"
    assert [row["scores"] for row in before["rows"]] == [row["scores"] for row in after["rows"]]
    assert before["kinds"] == after["kinds"]


def test_older_runs_and_single_files_are_read_and_names_stay_apart(runs, tmp_path):
    (runs[0] / "run.json").unlink()
    (runs[0] / "metrics.json").unlink()
    twin = tmp_path / "deeper/all"
    twin.parent.mkdir()
    runs[1].rename(twin)
    found = read_finished([runs[0] / "predictions.json", twin])
    table = make_table(found)
    row = next(row for row in table["rows"] if row["run"].name == "no_count")
    assert row["per_second"] is None and row["parameters"] is None and row["run"].blind == {}
    (tmp_path / "all").mkdir()
    (tmp_path / "all/predictions.json").write_text((twin / "predictions.json").read_text())
    assert [run.name for run in read_finished([twin, tmp_path / "all"])] == [str(twin), str(tmp_path / "all")]


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("predictions.json", None, "predictions.json: cannot be read"),
        ("predictions.json", "[]", "holds no question"),
        ("predictions.json", '[{"id": "a", "category": "count"}]', "has no 'image'"),
        ("predictions.json", '[{"id": "a", "category": ["count"]}]', "has no 'image'"),
        (
            "predictions.json",
            '[{"id": "a", "category": "left_choice", "image": "i", "value": "x", "truth_value": 0}]',
            "value is 'x', expected a number",
        ),
        ("run.json", "[]", "run.json: holds"),
        ("metrics.json", "{", "is not valid JSON"),
    ],
)
def test_runs_that_cannot_be_read_end_with_one_sentence(runs, tmp_path, file, content, message):
    if content is None:
        (runs[1] / file).unlink()
    else:
        (runs[1] / file).write_text(content)
    with pytest.raises(SystemExit) as stop:
        main([*map(str, runs), "--out", str(tmp_path / "board.html")])
    assert str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)
    assert not (tmp_path / "board.html").exists()


def test_a_run_named_twice_is_refused(runs):
    with pytest.raises(DataError, match="is named twice"):
        read_finished([runs[0], runs[1], runs[0] / "predictions.json"])


def test_a_single_run_is_one(runs, tmp_path, capsys):
    main([str(runs[1]), "--out", str(tmp_path / "one.html")])
    assert capsys.readouterr().out.startswith("reading 1 run, ")
    assert "1 finished evaluation</p>" in (tmp_path / "one.html").read_text(encoding="utf-8")
