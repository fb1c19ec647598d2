"""The questions of a data set asked of a model, and the files in which finished answers are kept meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.reading.rules import question_category
from smolrgpt_jax.data.records import Picture, Question

if TYPE_CHECKING:
    from smolrgpt_jax.generation import AnswerOptions
    from smolrgpt_jax.model import Model

# Of a run's answers, a file each.
FIRST, REORDERED, DRAWN = JOURNAL_PARTS = ("", "reordered", "drawn")
INTERRUPTED = "interrupted; finished answers are kept, the same command goes on from there"
# What a model says of one question: its text, or a dict of "answer", the text, and where they are there "closing", the
# value that it wrote behind it, and "cut_off", True for a text that the longest length cut.
Answered = str | Mapping[str, str | bool | None]
Answerer = Callable[[Sequence[Picture]], Sequence[Answered]]


def answer_questions(
    model: Model, pictures: Sequence[Picture], options: AnswerOptions, out: Path | None = None, part: str = FIRST
) -> list[Answered]:
    """Asks a model all questions; returns its texts in their order, "" for those it could not be asked.

    {"answer", "cut_off"} stands for a text that the longest length cut, and {"answer", "closing"} for every one where
    `options.closing` asks for values. Beside `out`, a folder of results, finished answers are kept until
    `remove_journal`: a call that was interrupted goes on from them. `part`: of JOURNAL_PARTS.
    """
    from eval.answering.journal import open_journal
    from smolrgpt_jax.generation import GeneratedAnswer, generate_answers

    kept = None if out is None else open_journal(journal_path(out, part), model, pictures, options)
    found = generate_answers(model, pictures, options, kept)
    answers: list[Answered] = []
    for question in (question for picture in pictures for question in picture.questions):
        given = found.get(question.id, GeneratedAnswer(""))
        said: dict[str, str | bool | None] = {"answer": given.text}
        if options.closing is not None:
            said["closing"] = None if given.value is None else str(given.value)
        if given.cut_off:
            said["cut_off"] = True
        answers.append(said if len(said) > 1 else given.text)
    return answers


def asked_category(question: Question) -> str:
    """The category of a question, by its wording where the record does not tell."""
    return question.category or question_category(question.prompt) or ""


def described(answer: Answered) -> Mapping[str, str | bool | None]:
    """What is said of one question, as a dict."""
    return {"answer": answer} if isinstance(answer, str) else answer


def limit_questions(pictures: Sequence[Picture], limit: int | None) -> list[Picture]:
    """The first `limit` questions with their pictures, all for None."""
    if limit is None:
        return list(pictures)
    kept: list[Picture] = []
    for picture in pictures:
        if limit > 0:
            kept.append(dataclasses.replace(picture, questions=picture.questions[:limit]))
        limit -= len(picture.questions)
    return kept


def journal_path(out: str | Path, part: str = FIRST) -> Path:
    """Where the finished answers of a run that writes to `out` are kept until its results are written."""
    out = Path(out).resolve()
    return out.with_name(f".{out.name}.journal" + (f".{part}" if part else ""))


def remove_journal(out: str | Path) -> None:
    """Removes the kept answers, after the results have been written."""
    from eval.answering.journal import journal_files

    for part in JOURNAL_PARTS:
        for file in journal_files(journal_path(out, part)):
            file.unlink(missing_ok=True)
