"""Answers to whole data sets of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax
import numpy as np
from tqdm import tqdm

from eval.answering.journal import Journal, run_identity
from smolrgpt_jax.data.closing import parse_value, split_closing
from smolrgpt_jax.data.prompts import plan_prompts
from smolrgpt_jax.data.records import BadRecords, Picture, Question
from smolrgpt_jax.data.rows import RowShape, TokenisedQuestions
from smolrgpt_jax.generation.constraint import kind_of, make_automaton
from smolrgpt_jax.generation.decode import GREEDY, Sampling
from smolrgpt_jax.generation.engine import Closing, Decoding, answer_prompts
from smolrgpt_jax.generation.processes import consecutive_share, gather_answers

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

ClosingMode = Literal["after_text", "alone"]


@dataclass(frozen=True)
class ClosedAnswer:
    """An answer's free text and its normalised value, None for a question whose category has none."""

    text: str
    value: str | int | float | None


def generate_answers(
    model: Model,
    pictures: Sequence[Picture],
    *,
    batch_size: int,
    max_new_tokens: int,
    depth_mode: str = "training",
    sampling: Sampling = GREEDY,
    seed: int = 0,
    on_bad_record: BadRecords | None = None,
    progress: bool = True,
    journal: str | Path | None = None,
    cut_off: set[str] | None = None,
) -> dict[str, str]:
    """Answers every question of the pictures: {question id: text}.

    Each picture is encoded once for all its questions. An answer depends on its picture, its question and, where it is sampled,
    on the seed and the question's id; not on the others. Questions that `on_bad_record` lets pass are left out. The ids of those
    whose text did not end within `max_new_tokens` are added to `cut_off`.

    With a `journal` (a file) finished answers are kept there at once, and a call that was interrupted goes on from it; the
    caller removes the file. In a run of several processes each answers its share of the pictures on its own devices and all
    return all answers; the journal is then a file per process, `journal.0` and so on.

    Raises ValueError if the model has no tokenizer, lies on devices of several processes, or the journal is of another run;
    DataError for a bad record.
    """
    return _generate(
        model,
        pictures,
        batch_size,
        max_new_tokens,
        depth_mode,
        sampling,
        seed,
        on_bad_record,
        progress,
        journal,
        cut_off,
    )


def closed_answers(
    model: Model,
    pictures: Sequence[Picture],
    *,
    batch_size: int,
    max_new_tokens: int,
    mode: ClosingMode = "after_text",
    category_of: Callable[[Question], str] | None = None,
    depth_mode: str = "training",
    sampling: Sampling = GREEDY,
    seed: int = 0,
    on_bad_record: BadRecords | None = None,
    progress: bool = True,
    journal: str | Path | None = None,
    cut_off: set[str] | None = None,
) -> dict[str, ClosedAnswer]:
    """As `generate_answers`, each answer followed by its normalised value: {question id: answer}.

    The value is decoded under a constraint: left or right; the number of one of the question's regions (mcq); a number up to
    that of its regions (count); metres (distance). "after_text": after the free text, where the model has not closed it by
    itself. "alone": in place of the free text. `category_of` tells the category where the records do not.
    """
    category_of = category_of or (lambda question: question.category)
    texts = _generate(
        model,
        pictures,
        batch_size,
        max_new_tokens,
        depth_mode,
        sampling,
        seed,
        on_bad_record,
        progress,
        journal,
        cut_off,
        mode,
        category_of,
    )
    answers = {}
    for question in (question for picture in pictures for question in picture.questions):
        if question.id in texts:
            category, text = category_of(question), texts[question.id]
            free, value = split_closing(text) if kind_of(category, question) else (text, None)
            answers[question.id] = ClosedAnswer(free, None if value is None else parse_value(category, value))
    return answers


def _generate(
    model: Model,
    pictures: Sequence[Picture],
    batch_size: int,
    max_new_tokens: int,
    depth_mode: str,
    sampling: Sampling,
    seed: int,
    on_bad_record: BadRecords | None,
    progress: bool,
    journal: str | Path | None,
    cut_off: set[str] | None,
    mode: ClosingMode | None = None,
    category_of: Callable[[Question], str] = lambda question: question.category,
) -> dict[str, str]:
    if model.tokenizer is None:
        raise ValueError("the checkpoint brings no tokenizer, answers cannot be read")
    config, tokenizer = model.config, model.tokenizer
    decoding = Decoding(batch_size, max_new_tokens, tokenizer.eos_id, sampling, seed, depth_mode)
    closing = None
    if mode is not None:

        def kind(question: Question):
            return kind_of(category_of(question), question)

        kinds = {kind(question) for picture in pictures for question in picture.questions} - {None}
        automaton = make_automaton(tokenizer, kinds, config.decoder.padded_vocab_size)
        closing = Closing(automaton, kind, mode == "alone")
    answers: dict[str, str] = {}
    cut: set[str] = set()
    known = None
    if journal is not None:
        known = Journal(journal, run_identity(model, pictures, decoding, mode))
        answers.update(known.answers)
        cut |= known.cut_off
    share = consecutive_share(pictures)
    shape = RowShape(
        config.decoder.max_positions, 1, 0, config.image_tokens, config.vision.image_size, config.mask_grid
    )
    prompts = plan_prompts(
        share,
        TokenisedQuestions(share, tokenizer, with_answers=False),
        shape,
        answered=answers,
        on_bad_record=on_bad_record,
    )
    questions = sum(len(row.lengths) for row in prompts.rows)
    shown = progress and jax.process_index() == 0
    with tqdm(total=questions, desc="answers", unit="question", disable=not shown) as bar:
        for ids in answer_prompts(
            config, model.params, prompts, decoding, closing=closing, on_bad_record=on_bad_record
        ):
            finished = {question: tokenizer.decode(tokens) for question, tokens in ids.items()}
            cut_now = {question for question, tokens in ids.items() if _is_cut(tokens, decoding, closing)}
            if known is not None:
                known.append(finished, cut_now)
            answers.update(finished)
            cut |= cut_now
            bar.update(len(finished))
    answers = gather_answers(answers)
    if cut_off is not None:
        cut_off.update(gather_answers({question: answers[question] for question in cut}))
    return {q.id: answers[q.id] for picture in pictures for q in picture.questions if q.id in answers}


def _is_cut(tokens: np.ndarray, decoding: Decoding, closing: Closing | None) -> bool:
    """Whether an answer's text was ended by its budget and not by the model."""
    tokens = tokens.tolist()
    if decoding.eos_id not in tokens:
        return True
    if closing is None:
        return False
    # A text that has used up its budget is closed by force, right behind it.
    mark, budget = list(closing.automaton.mark), decoding.max_new_tokens
    closed_at = next((i for i in range(len(tokens)) if tokens[i : i + len(mark)] == mark), 0)
    return closed_at >= budget
