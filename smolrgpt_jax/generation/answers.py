"""Answers to whole data sets of questions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
from tqdm import tqdm

from smolrgpt_jax.data.chat import CLOSING, read_closing
from smolrgpt_jax.data.prompts import plan_prompts, prompt_shape
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.distributed import gather
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.generation.engine import AnswerOptions, AskedModel, answer_prompts


@dataclass(frozen=True)
class GeneratedAnswer:
    """An answer's free text, its normalised value (None without closing or for a question whose category has none), and
    whether the text did not end within `max_new_tokens`."""

    text: str
    value: str | int | float | None = None
    cut_off: bool = False


class KeptAnswers(Protocol):
    """Finished texts (with their closings) by question id, kept from an earlier call: they are not generated again."""

    answers: Mapping[str, str]
    cut_off: Collection[str]  # ids of those whose text did not end within its tokens

    def append(self, answers: Mapping[str, str], cut_off: Collection[str]) -> None: ...


def generate_answers(
    model: AskedModel, pictures: Sequence[Picture], options: AnswerOptions, kept: KeptAnswers | None = None
) -> dict[str, GeneratedAnswer]:
    """Answers every question of the pictures: {question id: answer}.

    Each picture is encoded once for all its questions. An answer depends on its picture, its question and, where it is sampled,
    on the seed and the question's id; not on the others. Questions that `options.on_bad_record` lets pass are left out.

    In a run of several processes, which are given the same pictures, each answers its share of them on its own devices, and all
    return all answers and know all that was left out; every process then has a `kept` of its own to append to, which holds the
    answers of all.

    Raises ValueError if the model has no tokenizer or lies on devices of several processes; DataError for a bad record.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("the checkpoint brings no tokenizer, answers cannot be read")
    texts: dict[str, str] = {} if kept is None else dict(kept.answers)
    cut_off: set[str] = set() if kept is None else set(kept.cut_off)
    own, shape = pictures[jax.process_index() :: jax.process_count()], prompt_shape(model.config)
    prompts = plan_prompts(own, tokenizer, shape, answered=texts, on_bad_record=options.on_bad_record)
    mark = tokenizer.tokens(CLOSING)

    def is_cut(ids: list[int]) -> bool:
        # A text that has used up its tokens is closed by force, right behind them.
        forced = ids[options.max_new_tokens :][: len(mark)] == mark
        return forced or tokenizer.eos_id not in ids

    shown = options.progress and jax.process_index() == 0
    with tqdm(
        total=sum(len(row.questions) for row in prompts.rows), desc="answers", unit="question", disable=not shown
    ) as bar:
        for ids in answer_prompts(model, prompts, options):
            finished = {question: tokenizer.decode(tokens) for question, tokens in ids.items()}
            cut = {question for question, tokens in ids.items() if is_cut(tokens.tolist())}
            if kept is not None:
                kept.append(finished, cut)
            texts.update(finished)
            cut_off |= cut
            bar.update(len(finished))
            if options.stop():
                break
    bad = options.on_bad_record
    for theirs, cut, reasons in gather([texts, list(cut_off), bad.reasons]):
        texts |= theirs
        cut_off |= set(cut)
        for reason in reasons:
            if reason not in bad.reasons:
                bad.reject(DataError(reason))
    answers = {}
    for question in (question for picture in pictures for question in picture.questions):
        if question.id in texts:
            text, value = texts[question.id], None
            if options.kind(question) is not None:
                text, value = read_closing(options.category_of(question), text)
            answers[question.id] = GeneratedAnswer(text, value, question.id in cut_off)
    return answers
