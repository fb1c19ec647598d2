"""The benchmark of answers gives both sides the same questions and lengths, and compares their tokens."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from benchmarks import generate, shared


@pytest.fixture
def tiny(monkeypatch):
    """The smallest model, few steps."""
    monkeypatch.setattr(generate, "STEPS", 14)
    return shared.SIZES["tiny"]


@pytest.mark.slow
def test_both_sides_give_the_same_answers(tiny, tmp_path, capsys):
    out = tmp_path / "table.md"
    generate.main(["--size", "tiny", "--questions", "8", "--out", str(out)])
    _, _, shared, single = out.read_text().splitlines()
    assert shared.startswith("| 8 questions per picture | 8 |") and shared.endswith("| 8 of 8 |")
    assert single.startswith("| 1 question per picture | 8 |") and single.endswith("| 8 of 8 |")
    assert out.read_text() in capsys.readouterr().out


def test_a_different_answer_is_an_error(tiny, monkeypatch, capsys):
    def right(model, case, *_):
        return {question: list(range(length)) for question, length in case.lengths.items()}

    def wrong(*given):
        answers = right(*given)
        first = next(iter(answers.values()))
        first[-1] += 1
        return answers

    monkeypatch.setattr(generate, "answer_with_torch", right)
    monkeypatch.setattr(generate, "answer_with_engine", wrong)
    with pytest.raises(SystemExit) as stop:
        generate.main(["--size", "tiny", "--questions", "8", "--max_length", "256"])
    assert stop.value.code == 1
    assert "| 7 of 8 |" in capsys.readouterr().out


def test_the_cases_hold_as_many_questions_per_picture_as_they_say(tmp_path):
    shared, single = generate.make_cases(tmp_path / "data", 8)
    assert [len(picture.questions) for picture in shared.pictures] == [8]
    assert [len(picture.questions) for picture in single.pictures] == [1] * 8
    for case in (shared, single):
        assert set(case.lengths) == {q.id for p in case.pictures for q in p.questions}
        assert all(10 <= length <= generate.STEPS for length in case.lengths.values())
    with pytest.raises(ValueError, match="cannot make 12 questions"):
        generate.make_cases(tmp_path / "more", 12)


def test_the_table_divides_the_times():
    case = generate.Case("some", [], {str(number): 20 for number in range(10)}, (20.0, 30.0), (4.0, 10.0), 9)
    text = generate.table([case])
    assert text.splitlines()[-1] == "| some | 10 | 0.5 | 2.5 | 5.00 x | 3.00 x | 9 of 10 |"
