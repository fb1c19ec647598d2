from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import eval.warehouse as command
import smolrgpt_jax
from eval.answering import journal
from eval.answering.asking import JOURNAL_PARTS, journal_path, remove_journal
from eval.answering.vote import Ballots, asked_again, further_answers, mask_groups, mask_orders
from eval.normalize import main as normalize_main
from eval.warehouse import main, with_further
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import BadRecords, Question
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.generation.answers import GeneratedAnswer, generate_answers
from smolrgpt_jax.generation.engine import AnswerOptions

SIDE = "Is the pallet <mask> to the left or right of the pallet <mask>?"


CHOICE = "From the pallets <mask> <mask> <mask>, which is closest to the shelf <mask>?"


def asked(category: str, prompt: str, **more) -> Question:
    regions = tuple(RLE(4, 4, bytes([i])) for i in range(prompt.count("<mask>")))
    return Question("q", category, prompt, None, None, regions, **more)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"answers": 1}, "at least 2"), ({"temperature": 0.0}, "above 0"), ({"temperature": float("nan")}, "above 0")],
)
def test_impossible_ballots_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Ballots(**settings)


def test_only_masks_side_by_side_change_places():
    prompt = "Of the buffers <mask> <mask> and the pallets <mask> <mask>\n<mask>, which is closest to <mask>?"
    assert mask_groups(prompt) == [[0, 1], [2, 3, 4], [5]]
    question = asked("count", prompt)
    orders = mask_orders(question, Ballots(9, seed=3))
    assert len(set(orders)) == 8 and (0, 1, 2, 3, 4, 5) not in orders
    assert all(set(o[:2]) == {0, 1} and set(o[2:5]) == {2, 3, 4} and o[5] == 5 for o in orders)
    assert mask_orders(question, Ballots(9, seed=3)) == orders != mask_orders(question, Ballots(9, seed=4))
    # Two of two and six of three, without the one they have: no more than eleven.
    assert len(mask_orders(question, Ballots(99))) == 11
    more = asked_again(question, Ballots(15))
    assert [a.drawn for a in more] == [False] * 11 + [True] * 3
    assert [a.order for a in more[11:]] == [(0, 1, 2, 3, 4, 5), more[0].order, more[1].order]
    again = asked_again(question, Ballots(9, seed=3))
    assert [a.order for a in again] == orders and not any(a.drawn for a in again)
    assert again[0].question.regions == tuple(question.regions[i] for i in orders[0])
    assert [a.question.id for a in again] == [f"q#{n}" for n in range(1, 9)]


def test_questions_without_such_masks_are_drawn():
    far = asked("distance", "How far is <mask> from <mask>?")
    again = asked_again(far, Ballots(3))
    assert [(a.question.id, a.order, a.drawn) for a in again] == [("q#1", (0, 1), True), ("q#2", (0, 1), True)]
    # Marks of earlier turns come first: which stand side by side in this one is not asked.
    later = asked("count", "How many of <mask> <mask>?", earlier=(("Where?", "There."),))
    assert all(a.drawn for a in asked_again(later, Ballots(3)))


def test_only_questions_of_the_categories_are_asked_again():
    ballots = Ballots(2, categories=("distance", "mcq"))
    assert asked_again(asked("left_right", SIDE), ballots) == []
    # Without published categories the wording tells.
    assert len(asked_again(asked("", "How far is the pallet <mask> from the shelf <mask>?"), ballots)) == 1
    assert str(ballots).startswith("2 answers (distance, mcq), of masks")


def test_reordered_questions_are_answered_greedily_and_others_drawn(monkeypatch, warehouse, loaded_model):
    import smolrgpt_jax.generation.answers

    pictures = read_warehouse(warehouse, "val")[:2]
    calls = []

    def generate_answers(model, pictures, options, kept):
        calls.append((options, kept, pictures))
        return {q.id: GeneratedAnswer(q.id) for picture in pictures for q in picture.questions[1:]}

    monkeypatch.setattr(smolrgpt_jax.generation.answers, "generate_answers", generate_answers)
    monkeypatch.setattr(journal, "open_journal", lambda path, *_: path)
    bad = BadRecords("report")
    ballots = Ballots(3, 0.5, seed=4)
    options = AnswerOptions(2, 8, on_bad_record=bad, closing="after_text")
    found = further_answers(loaded_model, pictures, ballots, options, out=Path("out"))
    questions = [question for picture in pictures for question in picture.questions]
    assert [len(more) for more in found] == [len(asked_again(question, ballots)) for question in questions]
    (first, kept_first, reordered), (second, kept_second, drawn) = calls
    assert first.sampling.temperature == 0 and kept_first == journal_path("out", "reordered")
    sampling = second.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, second.seed) == (0.5, 0, 1.0, 4)
    assert kept_second == journal_path("out", "drawn") and first.closing is second.closing is None
    categories = [{q.category for picture in asked for q in picture.questions} for asked in (reordered, drawn)]
    assert "count" in categories[0] and categories[1] >= {"left_right", "distance"}
    # What could not be read was counted when the questions were asked first.
    assert first.on_bad_record is not bad and first.on_bad_record.policy == "report"
    # The first question of each picture is left out.
    said = [given["answer"] for more in found for given in more]
    assert said.count("") == 2 * len(calls) and len(set(said)) == len(said) - said.count("") + 1


@pytest.mark.slow
def test_a_model_gives_the_same_further_answers_in_any_company(small_checkpoint, warehouse):
    model = smolrgpt_jax.load(small_checkpoint)
    pictures = read_warehouse(warehouse, "val")[:2]
    ballots = Ballots(3, temperature=1.0, seed=2)
    found = further_answers(model, pictures, ballots, AnswerOptions(4, 6))
    drawn = [more for more in found if more and more[0]["order"] == list(range(len(more[0]["order"])))]
    assert len(drawn) >= 4 and sum(a["answer"] != b["answer"] for a, b in drawn) >= len(drawn) // 2
    assert further_answers(model, pictures[1:], ballots, AnswerOptions(2, 6)) == found[4:]
    assert further_answers(model, pictures, dataclasses.replace(ballots, seed=3), AnswerOptions(4, 6)) != found


def test_an_answer_to_reordered_masks_is_that_of_the_question_put_so(small_checkpoint, warehouse):
    model = smolrgpt_jax.load(small_checkpoint)
    pictures = read_warehouse(warehouse, "val")
    picture, question = next(
        (picture, question)
        for picture in pictures
        for question in picture.questions
        if mask_orders(question, Ballots(2))
    )
    alone = dataclasses.replace(picture, questions=(question,))
    [[given]] = further_answers(model, [alone], Ballots(2), AnswerOptions(4, 6))
    turned = dataclasses.replace(question, regions=tuple(question.regions[i] for i in given["order"]))
    expected = generate_answers(model, [dataclasses.replace(picture, questions=(turned,))], AnswerOptions(4, 6))
    assert given["answer"] == expected[question.id].text
    assert expected[question.id].cut_off and given["cut_off"]


def test_the_command_scores_the_vote_and_keeps_its_answers(warehouse, tmp_path, loaded_model, monkeypatch, capsys):
    """All counts are wrong in the first answer and right in both further ones."""
    asked = {}

    def first(model, pictures, options, out):
        asked["first"] = out
        questions = [question for picture in pictures for question in picture.questions]
        return ["There are 99 pallets." if q.category == "count" else q.answer for q in questions]

    def further(model, pictures, ballots, options, out):
        asked["out"], asked["ballots"] = out, ballots
        questions = [question for picture in pictures for question in picture.questions]
        return [[{"answer": q.answer, "order": list(range(len(q.regions)))}] * 2 for q in questions]

    monkeypatch.setattr(command.asking, "answer_questions", first)
    monkeypatch.setattr(command, "further_answers", further)
    out = tmp_path / "out"
    line = ["--checkpoint", "anywhere", "--data", str(warehouse), "--out", str(out)]
    main([*line, "--answers", "vote", "rules", "--vote_answers", "3", "--vote_seed", "7"])
    assert asked == {"first": out, "out": out, "ballots": Ballots(3, 0.7, 7)}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["read_by"] == ["vote", "rules"]
    assert metrics["S1"] == 100 and metrics["agreement"]["scores"]["rules"]["count"] == 0
    predictions = json.loads((out / "predictions.json").read_text())
    count = next(row for row in predictions if row["category"] == "count")
    assert count["values"]["vote"] == count["truth"] and len(count["further"]) == 2
    report = (out / "report.html").read_text(encoding="utf-8")
    assert f"{count['truth']} (2 times), 99<" in report
    assert f"{Ballots(3, 0.7, 7)}" in report and "temperature 0.7, seed 7" in report
    assert "vote and rules" in capsys.readouterr().out
    # The ballots travel with the predictions.
    normalize_main(["--predictions", str(out / "predictions.json"), "--answers", "vote", "--out", str(tmp_path / "b")])
    assert json.loads((tmp_path / "b" / "metrics.json").read_text())["S1"] == 100


def test_a_vote_of_one_is_refused_before_the_model_is_asked(warehouse, tmp_path, loaded_model, monkeypatch):
    monkeypatch.setattr(command.asking, "answer_questions", lambda *_, **__: pytest.fail("was asked"))
    line = ["--checkpoint", "anywhere", "--data", str(warehouse), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="at least 2 answers"):
        main([*line, "--answers", "vote", "--vote_answers", "1"])


def test_all_journals_are_removed(tmp_path):
    for part in JOURNAL_PARTS:
        path = journal_path(tmp_path / "out", part)
        path.write_text("")
        path.with_name(f"{path.name}.1").write_text("another process's")
    assert len(list(tmp_path.iterdir())) == 6
    remove_journal(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_further_answers_follow_the_answers_they_belong_to():
    found = with_further(["one", {"answer": "two", "closing": "2"}], [[{"answer": "a", "order": []}], []])
    assert found[0] == {"answer": "one", "further": [{"answer": "a", "order": []}]}
    assert found[1] == {"answer": "two", "closing": "2", "further": []}
    (cut,) = with_further([{"answer": "th", "cut_off": True}], [[{"answer": "fo", "cut_off": True, "order": []}]])
    assert cut == {"answer": "th", "cut_off": True, "further": [{"answer": "fo", "cut_off": True, "order": []}]}


def test_real_questions_list_their_masks_side_by_side():
    folder = Path(__file__).parents[2] / "data_files" / "real_warehouse"
    records = json.loads((folder / "records_with_masks.json").read_text())
    found = [mask_groups(record["conversations"][0]["value"]) for record in records]
    assert sorted([len(group) for group in groups] for groups in found) == [[1, 1]] * 9 + [[3, 10], [10]]
    marks = [record["conversations"][0]["value"].count("<mask>") for record in records]
    assert [sum(groups, []) for groups in found] == [list(range(count)) for count in marks]
