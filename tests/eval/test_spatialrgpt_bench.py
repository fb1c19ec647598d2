from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser

import pytest

import eval.spatialrgpt_bench as command
from eval.answering.bench import evaluate
from eval.reading.bench_rules import CATEGORIES, QUALITATIVE, QUANTITATIVE
from eval.spatialrgpt_bench import main
from smolrgpt_jax.data.sources.formats import read_bench

FILE = "SpatialRGPT-Bench_v1.json"


def truthful(pictures):
    return [question.answer for picture in pictures for question in picture.questions]


@pytest.fixture
def fake_model(loaded_model, monkeypatch):
    """Makes the command use a model that gives the published answers, except for the last question."""
    monkeypatch.setattr(
        command.asking, "answer_questions", lambda model, pictures, *_, **__: truthful(pictures)[:-1] + ["!!!!!!"]
    )


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_published_answers_score_everything(bench_folder, tmp_path):
    pictures = read_bench(bench_folder)
    metrics = evaluate(pictures, truthful, tmp_path / "out")
    asked = {question.category for picture in pictures for question in picture.questions}
    assert asked == set(CATEGORIES)
    assert all(value == 100 for value in metrics["qualitative"].values())
    assert all(row == {"success": 100, "error": 0} for row in metrics["quantitative"].values())
    assert metrics["unreadable"] == 0 and metrics["unreadable_truths"] == []
    assert metrics["bootstrap"]["clusters"] == len(pictures) == 3
    assert read(tmp_path / "out", "metrics.json") == metrics


def test_constant_answers_score_what_their_truth_allows(bench_folder, tmp_path):
    pictures = read_bench(bench_folder)
    metrics = evaluate(pictures, lambda asked: ["No."] * len(truthful(asked)), tmp_path / "out")
    records = [record for record in read(bench_folder, FILE)]
    for column, names in QUALITATIVE.items():
        answers = [
            record["conversations"][1]["value"]
            for record in records
            if record["qa_info"]["category"] in [f"{name}_{form}" for name in names for form in ("predicate", "choice")]
        ]
        denied = sum(answer.startswith(("No", "In fact")) for answer in answers)
        assert metrics["columns"][column]["correct"] == denied
        assert metrics["columns"][column]["questions"] == len(answers)
    assert all(metrics["columns"][column]["correct"] == 0 for column in QUANTITATIVE)


def test_the_command_writes_all_files_and_the_table(bench_folder, tmp_path, fake_model, capsys):
    main(["--checkpoint", "anywhere", "--data", str(bench_folder), "--out", str(tmp_path / "a" / "out")])
    out = tmp_path / "a" / "out"
    assert sorted(file.name for file in out.iterdir()) == [
        "metrics.json",
        "predictions.json",
        "report.html",
        "run.json",
    ]
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["out"]
    predictions, metrics = read(out, "predictions.json"), read(out, "metrics.json")
    assert metrics["questions"] == len(predictions) == len(read(bench_folder, FILE))
    assert metrics["unreadable"] == 1 and predictions[-1]["value"] is None and not predictions[-1]["right"]
    assert predictions[0]["right"] and predictions[0]["value"] == predictions[0]["truth_value"]
    assert predictions[0]["image"] in {file.name for file in (bench_folder / "images").iterdir()}
    printed = capsys.readouterr().out
    assert "qualitative" in printed and "direct_distance" in printed and "1 answers unreadable" in printed


def test_the_report_shows_both_tables_and_a_gallery(bench_folder, tmp_path, fake_model):
    main(["--checkpoint", "anywhere", "--data", str(bench_folder), "--out", str(tmp_path / "out")])
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    rows, entries = [], []

    class Page(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found = dict(attributes)
            rows.extend([found["data-column"]] if tag == "tr" and "data-column" in found else [])
            entries.extend([found["data-category"]] if tag == "article" else [])

    Page().feed(html)
    assert rows == [*QUALITATIVE, "average", *QUANTITATIVE]
    assert set(entries) == {*QUALITATIVE, *QUANTITATIVE}
    assert "GPT-4" in html and "python -m eval.spatialrgpt_bench" in html and "http" not in html


def test_a_limit_and_records_that_cannot_be_used(bench_folder, tmp_path, fake_model, capsys):
    shutil.copytree(bench_folder, tmp_path / "bench")
    records = read(bench_folder, FILE)
    records[0]["qa_info"]["category"] = "colour"
    records[1]["image_info"]["file_path"] = "gone.png"
    (tmp_path / "bench" / FILE).write_text(json.dumps(records), encoding="utf-8")
    arguments = ["--checkpoint", "anywhere", "--data", str(tmp_path / "bench"), "--out", str(tmp_path / "out")]
    main([*arguments, "--limit", "5"])
    usable = [record["id"] for record in records[2:]]
    places = [usable.index(item["id"]) for item in read(tmp_path / "out", "predictions.json")]
    assert [place * 5 // len(usable) for place in places] == [0, 1, 2, 3, 4]
    printed = capsys.readouterr().out
    assert "2 bad records left out" in printed and "colour" in printed and "gone.png" in printed


@pytest.mark.parametrize("content, message", [(None, "cannot be read"), ("[]", "holds no usable question")])
def test_bad_input_ends_with_one_sentence(tmp_path, fake_model, content, message):
    (tmp_path / "bench").mkdir()
    if content is not None:
        (tmp_path / "bench" / FILE).write_text(content)
    with pytest.raises(SystemExit) as stop:
        main(["--checkpoint", "anywhere", "--data", str(tmp_path / "bench"), "--out", str(tmp_path / "out")])
    assert str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)
    assert not (tmp_path / "out").exists()
