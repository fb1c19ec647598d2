from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

import eval.warehouse as command
import smolrgpt_jax
from eval.answering import journal
from eval.answering.submission_prompts import SubmissionTokenizer
from eval.answering.warehouse import evaluate
from eval.normalize import main as normalize_main
from eval.score_warehouse import main as score_main
from eval.scoring.blind import BlindBaseline, read_training_questions
from eval.warehouse import main
from smolrgpt_jax.checkpoint.fingerprint import params_fingerprint
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.generation import likelihood
from smolrgpt_jax.generation.answers import GeneratedAnswer
from smolrgpt_jax.generation.engine import AnswerOptions

TOKENIZER = Path(__file__).parents[1] / "data_files" / "text" / "tokenizer"


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


def test_true_answers_score_everything(warehouse, tmp_path):
    pictures = read_warehouse(warehouse, "val")
    metrics = evaluate(
        pictures, truthful, tmp_path / "out", blind=BlindBaseline(read_training_questions(warehouse / "train.json"))
    )
    assert [metrics[name] for name in ("S1", "left_right", "count", "mcq", "distance")] == [100] * 5
    assert (metrics["questions"], metrics["unreadable"]) == (28, 0)
    # The blind baseline knows the only side, 2 of the 7 counts, 3 of the 7 regions, and 2 distances within 10 %.
    assert metrics["blind"]["left_right"] == 100
    assert metrics["blind"]["count"] == pytest.approx(200 / 7) and metrics["blind"]["mcq"] == pytest.approx(300 / 7)
    assert metrics["blind_S1"] == pytest.approx(sum(metrics["blind"].values()) / 4)
    assert read(tmp_path / "out", "metrics.json") == metrics


def test_the_command_writes_all_files(warehouse, tmp_path, fake_model, loaded_model, capsys):
    main(["--checkpoint", "anywhere", "--data", str(warehouse), "--split", "val", "--out", str(tmp_path / "a" / "out")])
    out = tmp_path / "a" / "out"
    assert sorted(file.name for file in out.iterdir()) == [
        "metrics.json",
        "predictions.json",
        "report.html",
        "run.json",
        "submission.json",
    ]
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["out"]
    metrics, predictions, submission = (read(out, f"{name}.json") for name in ("metrics", "predictions", "submission"))
    assert metrics["questions"] == 28 and metrics["unreadable"] == 1 and metrics["distance"] == pytest.approx(600 / 7)
    assert set(predictions[0]) == {"id", "image", "category", "question", "answer", "normalized_answer", "truth"}
    assert predictions[0]["image"] == "000100.png" and predictions[0]["normalized_answer"] == "left"
    assert predictions[-1]["normalized_answer"] is None
    assert submission[-1] == {"id": "000106-distance", "normalized_answer": -99}
    assert submission[3] == {"id": "000100-distance", "normalized_answer": 2.0}
    assert "28 questions, 1 answers unreadable" in capsys.readouterr().out
    assert params_fingerprint(loaded_model.params) == metrics["checkpoint_fingerprint"]
    assert metrics["checkpoint_fingerprint"] in (out / "report.html").read_text(encoding="utf-8")
    score_main(
        [
            "--ground_truth",
            str(warehouse / "val.json"),
            "--predictions",
            str(out / "submission.json"),
            "--out",
            str(tmp_path / "m.json"),
        ]
    )
    scored = read(tmp_path, "m.json")
    assert scored["S1"] == metrics["S1"] and metrics["official"].items() <= scored.items()
    assert (scored["unreadable"], metrics["official"]["Quan_distance_correct"]) == (1, 6)


def sure_file(folder, fingerprint):
    whole = {
        "checkpoint_fingerprint": fingerprint,
        "fits": dict.fromkeys(WAREHOUSE_CATEGORIES, [[-1.0, 0.0], [0.8, 0.84]]),
    }
    (folder / "sure.json").write_text(json.dumps(whole), encoding="utf-8")
    return "--confidence", str(folder / "sure.json")


def test_confidences_are_written_scored_and_reported(
    warehouse, tmp_path, fake_model, loaded_model, monkeypatch, capsys
):
    monkeypatch.setattr(likelihood, "log_likelihoods", lambda model, pictures, given, **_: dict.fromkeys(given, -0.5))
    more = sure_file(tmp_path, params_fingerprint(loaded_model.params))
    main(command_line(warehouse, tmp_path, *more))
    predictions, metrics = read(tmp_path / "out", "predictions.json"), read(tmp_path / "out", "metrics.json")
    assert [item["confidence"] for item in predictions[:-1]] == [pytest.approx(0.82)] * 27
    assert predictions[-1]["confidence"] is None, "nothing can be read"
    found = metrics["confidence"]
    assert list(found) == [*WAREHOUSE_CATEGORIES, "all questions"] and found["mcq"]["error"] == pytest.approx(
        18, abs=0.01
    )
    assert found["all questions"]["coverage"] == {"50%": 100, "80%": 100, "90%": 100, "100%": pytest.approx(2700 / 28)}
    assert "right of the surest 50% 100.0 %, of the surest 80% 100.0 %" in capsys.readouterr().out
    assert "How sure the answers are" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_confidence_that_does_not_fit_is_told_before_anything_is_asked(
    warehouse, tmp_path, loaded_model, monkeypatch
):
    monkeypatch.setattr(command.asking, "answer_questions", lambda *_, **__: pytest.fail("was asked"))
    more = sure_file(tmp_path, "f1")
    for how, sentence in (
        ((), "sure.json: is of a model with the fingerprint f1"),
        (("--answers", "vote"), "no server, export, submission preprocessing, closing or vote"),
        (("--preprocessing", "submission"), "no server, export, submission preprocessing, closing or vote"),
    ):
        with pytest.raises(SystemExit, match=f"^error: .*{sentence}"):
            main(command_line(warehouse, tmp_path, *more, *how))
    assert not (tmp_path / "out").exists()


def test_results_of_an_earlier_run_are_replaced_and_other_files_kept(warehouse, tmp_path, fake_model):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("old")
    (tmp_path / "out" / "note.txt").write_text("mine")
    main(["--checkpoint", "anywhere", "--data", str(warehouse), "--out", str(tmp_path / "out"), "--limit", "5"])
    assert read(tmp_path / "out", "metrics.json")["questions"] == 5
    assert (tmp_path / "out" / "note.txt").read_text() == "mine"


def test_a_limit_asks_of_all_of_a_file_that_is_sorted_by_category(warehouse, tmp_path, fake_model):
    records = [read(warehouse, "val.json")[5 * place] for place in range(4)]
    assert [record["category"] for record in records] == list(WAREHOUSE_CATEGORIES)
    many = [{**record, "id": f"{record['id']} {n}"} for record in records for n in range(8)]
    (warehouse / "val.json").write_text(json.dumps(many), encoding="utf-8")
    main(command_line(warehouse, tmp_path, "--limit", "8"))
    asked = Counter(item["category"] for item in read(tmp_path / "out", "predictions.json"))
    assert asked == dict.fromkeys(WAREHOUSE_CATEGORIES, 2)


def test_an_interrupted_command_says_how_to_go_on(warehouse, tmp_path, loaded_model, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.asking, "answer_questions", interrupt)
    with pytest.raises(SystemExit, match="the same command goes on"):
        main(["--checkpoint", "anywhere", "--data", str(warehouse), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_split_without_answers_gives_a_submission_only(warehouse, tmp_path, fake_model, monkeypatch):
    records = read(warehouse, "val.json")
    bare = [
        {"id": r["id"], "image": r["image"], "conversations": r["conversations"][:1], "rle": r["rle"]} for r in records
    ]
    (warehouse / "bare.json").write_text(json.dumps(bare), encoding="utf-8")
    answers = [record["freeform_answer"] for record in records]
    monkeypatch.setattr(command.asking, "answer_questions", lambda *_, **__: answers)
    main(
        [
            "--checkpoint",
            "anywhere",
            "--data",
            str(warehouse),
            "--annotations",
            "bare.json",
            "--out",
            str(tmp_path / "out"),
        ]
    )
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "predictions.json",
        "run.json",
        "submission.json",
    ]
    assert [item["normalized_answer"] for item in read(tmp_path / "out", "submission.json")[:4]] == ["left", 0, 0, 2.0]


def test_results_of_another_split_do_not_stay(warehouse, tmp_path, fake_model, monkeypatch):
    main(command_line(warehouse, tmp_path))
    (tmp_path / "out" / "note.txt").write_text("mine")
    (tmp_path / "out" / "answers.json").write_text("[]")
    records = [{**r, "conversations": r["conversations"][:1]} for r in read(warehouse, "val.json")]
    for record in records:
        del record["normalized_answer"], record["freeform_answer"]
    (warehouse / "bare.json").write_text(json.dumps(records), encoding="utf-8")
    monkeypatch.setattr(command.asking, "answer_questions", lambda *_, **__: ["left"] * len(records))
    main(command_line(warehouse, tmp_path, "--annotations", "bare.json"))
    names = ["note.txt", "predictions.json", "run.json", "submission.json"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names


def test_answers_that_the_length_cut_are_marked_and_counted(warehouse, tmp_path, loaded_model, monkeypatch, capsys):
    import smolrgpt_jax.generation.answers

    def generate_answers(model, pictures, options, kept):
        questions = [question for picture in pictures for question in picture.questions]
        cut_off = {questions[1].id, questions[2].id}
        return {q.id: GeneratedAnswer(q.answer, cut_off=q.id in cut_off) for q in questions}

    monkeypatch.setattr(journal, "open_journal", lambda *_: None)
    monkeypatch.setattr(smolrgpt_jax.generation.answers, "generate_answers", generate_answers)
    main(command_line(warehouse, tmp_path))
    predictions = read(tmp_path / "out", "predictions.json")
    assert [item.get("cut_off") for item in predictions[:4]] == [None, True, True, None]
    assert read(tmp_path / "out", "metrics.json")["cut_off"] == 2
    assert "2 answers were cut off at the longest length" in capsys.readouterr().out
    header = (tmp_path / "out" / "report.html").read_text(encoding="utf-8").partition("</header>")[0]
    assert "2 answers were cut off at the longest length" in header


def test_a_loss_curve_that_is_not_there_is_told_before_anything_is_asked(warehouse, tmp_path, monkeypatch):
    monkeypatch.setitem(smolrgpt_jax.__dict__, "load", lambda *_, **__: pytest.fail("was loaded"))
    missing = tmp_path / "nope.csv"
    with pytest.raises(SystemExit, match="^error: .*nope.csv: no such file, though --loss_curves names it$"):
        main(command_line(warehouse, tmp_path, "--loss_curves", f"a={missing}"))
    assert not (tmp_path / "out").exists()


def test_without_training_questions_there_is_no_baseline(warehouse, tmp_path, fake_model):
    (warehouse / "train.json").unlink()
    main(["--checkpoint", "anywhere", "--data", str(warehouse), "--out", str(tmp_path / "out")])
    assert "blind_S1" not in read(tmp_path / "out", "metrics.json")


def test_an_answerer_that_fails_leaves_nothing_behind(warehouse, tmp_path):
    def fail(pictures):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        evaluate(read_warehouse(warehouse, "val"), fail, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_questions_that_could_not_be_asked_are_wrong(monkeypatch, warehouse, loaded_model):
    import smolrgpt_jax.generation.answers

    pictures = read_warehouse(warehouse, "val")
    monkeypatch.setattr(
        smolrgpt_jax.generation.answers, "generate_answers", lambda *_: {"000100-count": GeneratedAnswer("4")}
    )
    answers = command.asking.answer_questions(loaded_model, pictures[:1], AnswerOptions(2, 8))
    assert answers == ["", "4", "", ""]


def test_closing_values_come_with_the_texts(monkeypatch, warehouse, loaded_model):
    import smolrgpt_jax.generation.answers

    pictures = read_warehouse(warehouse, "val")[:2]
    ids = [question.id for picture in pictures for question in picture.questions]

    def generate_answers(model, pictures, options, kept):
        return {name: GeneratedAnswer("Seven.", 7) for name in ids[:-2]} | {ids[-2]: GeneratedAnswer("Well.")}

    monkeypatch.setattr(smolrgpt_jax.generation.answers, "generate_answers", generate_answers)
    answers = command.asking.answer_questions(loaded_model, pictures, AnswerOptions(closing="after_text"))
    assert answers[0] == {"answer": "Seven.", "closing": "7"}
    assert answers[-2:] == [{"answer": "Well.", "closing": None}, {"answer": "", "closing": None}]


def test_categories_are_told_by_the_wording_where_the_records_do_not(warehouse):
    questions = [question for picture in read_warehouse(warehouse, "val") for question in picture.questions]
    unknown = [dataclasses.replace(question, category="") for question in questions]
    assert list(map(command.asking.asked_category, unknown)) == [question.category for question in questions]


def test_a_split_with_some_answers_is_refused_before_anything_is_asked(warehouse, tmp_path):
    pictures = read_warehouse(warehouse, "val")
    bare = dataclasses.replace(pictures[0].questions[0], normalized_answer=None)
    pictures[0] = dataclasses.replace(pictures[0], questions=(bare, *pictures[0].questions[1:]))
    with pytest.raises(DataError, match="1 of 28 questions have no published answer"):
        evaluate(pictures, lambda asked: pytest.fail("was asked"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def command_line(warehouse, tmp_path, *more):
    return ["--checkpoint", "anywhere", "--data", str(warehouse), "--out", str(tmp_path / "out"), *more]


def test_a_test_split_gives_the_published_submission_format(warehouse, tmp_path, loaded_model, monkeypatch):
    """Published records of the test split: id, image, the human's turn and rle. One picture is missing here."""
    records = read(warehouse, "val.json")
    shuffled = records[1::2] + records[::2]
    shuffled[3] = {**shuffled[3], "image": "gone.png"}
    bare = [
        {"id": r["id"], "image": r["image"], "conversations": r["conversations"][:1], "rle": r["rle"]} for r in shuffled
    ]
    (warehouse / "test.json").write_text(json.dumps(bare), encoding="utf-8")
    (warehouse / "val").rename(warehouse / "test")
    known = {record["id"]: record["freeform_answer"] for record in records}
    monkeypatch.setattr(
        command.asking,
        "answer_questions",
        lambda model, pictures, *_, **__: [known[q.id] for p in pictures for q in p.questions],
    )
    main(command_line(warehouse, tmp_path, "--split", "test"))
    submission = read(tmp_path / "out", "submission.json")
    assert [list(entry) for entry in submission] == [["id", "normalized_answer"]] * 28
    assert [entry["id"] for entry in submission] == [record["id"] for record in shuffled]
    kinds = {"left_right": str, "count": int, "mcq": int, "distance": float}
    for number, (entry, record) in enumerate(zip(submission, shuffled)):
        kind = kinds[record["category"]]
        expected = -99 if number == 3 else kind(record["normalized_answer"])
        assert (entry["normalized_answer"], type(entry["normalized_answer"])) == (expected, type(expected))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "predictions.json",
        "run.json",
        "submission.json",
    ]


def test_several_methods_are_scored_and_their_agreement_reported(warehouse, tmp_path, fake_model, monkeypatch, capsys):
    asked = {}

    def answer(model, pictures, options, out):
        asked.update(closing=options.closing, out=out)
        texts = [*truthful(pictures)[:-1], ""]
        return [{"answer": text, "closing": "1" if text else None} for text in texts]

    monkeypatch.setattr(command.asking, "answer_questions", answer)
    main(command_line(warehouse, tmp_path, "--answers", "rules", "closing", "--closing", "alone"))
    assert asked["closing"] == "alone" and asked["out"] == tmp_path / "out"
    metrics, predictions = read(tmp_path / "out", "metrics.json"), read(tmp_path / "out", "predictions.json")
    assert predictions[1]["values"] == {"rules": 0, "closing": 1} and predictions[1]["closing"] == "1"
    assert predictions[-1]["values"] == {"rules": None, "closing": None}
    found = metrics["agreement"]
    assert metrics["read_by"] == found["methods"] == ["rules", "closing"]
    assert found["scores"]["rules"]["S1"] == metrics["S1"]
    # Of seven counts 0 1 2 3 0 1 2 and regions 0 1 2 0 1 2 0.
    shares = {name: row["agree"] for name, row in found["pairs"][0]["categories"].items()}
    assert shares == {"left_right": 0, "count": 2, "mcq": 2, "distance": 1}
    assert metrics["readability"]["distance"]["reasons"][0]["reason"] == "there is no text"
    assert "rules and closing             28" in capsys.readouterr().out
    assert "Agreement of rules, closing" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_answers_are_kept_when_a_method_fails_after_the_model_answered(
    warehouse, tmp_path, fake_model, monkeypatch, capsys
):
    def answer(model, pictures, *_, **__):
        return [{"answer": text, "closing": None} for text in truthful(pictures)[:-1] + ["!!!!!!"]]

    monkeypatch.setattr(command.asking, "answer_questions", answer)
    with pytest.raises(SystemExit) as stop:
        main(command_line(warehouse, tmp_path, "--answers", "rules", "closing"))
    assert "no answer is closed" in str(stop.value) and "out/answers.json" in str(stop.value)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["answers.json"]
    normalize_main(["--predictions", str(tmp_path / "out" / "answers.json"), "--out", str(tmp_path / "again")])
    main(command_line(warehouse, tmp_path))
    again, metrics = read(tmp_path / "again", "metrics.json"), read(tmp_path / "out", "metrics.json")
    assert {name: metrics[name] for name in again} == again and again["unreadable"] == 1


def test_a_method_that_cannot_work_is_told_before_the_model_is_asked(warehouse, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="needs --router"):
        main(command_line(warehouse, tmp_path, "--answers", "router"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preprocessing", ["training", "submission"])
def test_the_submissions_preprocessing_changes_depth_and_prompts_only(
    warehouse, tmp_path, monkeypatch, loaded_model, preprocessing
):
    asked = {}

    @dataclasses.dataclass
    class WithTokenizer(type(loaded_model)):
        tokenizer: object

    def answer(model, pictures, options, out):
        prompts = {question.id: question.prompt for picture in pictures for question in picture.questions}
        asked.update(tokenizer=model.tokenizer, prompts=prompts, depth_mode=options.depth_mode)
        return truthful(pictures)

    tokenizer = ChatTokenizer.load(TOKENIZER)
    monkeypatch.setitem(smolrgpt_jax.__dict__, "load", lambda path, **_: WithTokenizer(tokenizer))
    monkeypatch.setattr(command.asking, "answer_questions", answer)
    main(command_line(warehouse, tmp_path, "--preprocessing", preprocessing))
    submitted = preprocessing == "submission"
    assert asked["depth_mode"] == preprocessing
    assert isinstance(asked["tokenizer"], SubmissionTokenizer) == submitted
    begins = {name for name, prompt in asked["prompts"].items() if prompt.startswith("\n")}
    marked = {f"{number:06d}-left_right" for number in range(100, 107)}
    assert begins == (marked if submitted else set())
    assert not any(item["question"].startswith("\n") for item in read(tmp_path / "out", "predictions.json"))


@pytest.mark.parametrize(
    "arguments, message", [(["--split", "nowhere"], "nowhere.json"), (["--annotations", "none.json"], "none.json")]
)
def test_bad_input_ends_with_one_sentence(warehouse, tmp_path, fake_model, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["--checkpoint", "anywhere", "--data", str(warehouse), "--out", str(tmp_path / "out"), *arguments])
    assert str(stop.value).startswith("error: ") and message in str(stop.value) and "\n" not in str(stop.value)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused_before_any_work(warehouse, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SystemExit, match="is not a folder"):
        main(["--checkpoint", "anywhere", "--data", str(warehouse), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out").read_text() == "mine"
