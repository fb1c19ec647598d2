"""Answers to whole data sets of questions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import numpy as np
from tqdm import tqdm

from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.data.chat import ANSWER_TOKENS, ChatTokenizer
from smolrgpt_jax.data.closing import parse_value, split_closing
from smolrgpt_jax.data.prompts import plan_prompts
from smolrgpt_jax.data.records import BadRecords, Picture, Question
from smolrgpt_jax.data.rows import RowShape, TokenisedQuestions
from smolrgpt_jax.generation.constraint import kind_of, make_automaton
from smolrgpt_jax.generation.decode import GREEDY, Sampling
from smolrgpt_jax.generation.engine import Closing, Decoding, answer_prompts
from smolrgpt_jax.generation.processes import consecutive_share, gather_answers
from smolrgpt_jax.models.smolrgpt import Params

ClosingMode = Literal["after_text", "alone"]


@dataclass(frozen=True)
class AnswerOptions:
    """How questions are asked.

    Attributes:
      batch_size: most questions decoded together (a multiple of it where the devices need more).
      max_new_tokens: most tokens of an answer's text.
      depth_mode: see `images.read_depth`.
      sampling, seed: how tokens are chosen.
      closing: whether a normalised value is decoded after the free text where the model has not written it by itself
        ("after_text"), or in its place ("alone"). It is left or right; the number of one of the question's regions (mcq); a
        number up to that of its regions (count); metres (distance).
      category_of: the category of a question, which says what its value is.
      on_bad_record: what to do with a question that cannot be asked.
      progress: whether a progress bar is shown.
    """

    batch_size: int = 64
    max_new_tokens: int = ANSWER_TOKENS
    depth_mode: str = "training"
    sampling: Sampling = GREEDY
    seed: int = 0
    closing: ClosingMode | None = None
    category_of: Callable[[Question], str] = lambda question: question.category
    on_bad_record: BadRecords = BadRecords("error")
    progress: bool = True


@dataclass(frozen=True)
class GeneratedAnswer:
    """An answer's free text, its normalised value (None without closing or for a question whose category has none), and
    whether the text did not end within `max_new_tokens`."""

    text: str
    value: str | int | float | None = None
    cut_off: bool = False


class AskedModel(Protocol):
    """What is asked; raises nothing by itself."""

    config: SmolRGPTConfig
    params: Params
    tokenizer: ChatTokenizer | None


class KeptAnswers(Protocol):
    """Finished texts (with their closings) by question id, kept from an earlier call: they are not generated again.

    cut_off: ids of those whose text did not end within its tokens; append: keeps more of them at once.
    """

    answers: Mapping[str, str]
    cut_off: Collection[str]

    def append(self, answers: Mapping[str, str], cut_off: Collection[str]) -> None: ...


def generate_answers(
    model: AskedModel, pictures: Sequence[Picture], options: AnswerOptions, kept: KeptAnswers | None = None
) -> dict[str, GeneratedAnswer]:
    """Answers every question of the pictures: {question id: answer}.

    Each picture is encoded once for all its questions. An answer depends on its picture, its question and, where it is sampled,
    on the seed and the question's id; not on the others. Questions that `options.on_bad_record` lets pass are left out.

    In a run of several processes each answers its share of the pictures on its own devices and all return all answers; every
    process then has a `kept` of its own to append to, which holds the answers of all.

    Raises ValueError if the model has no tokenizer or lies on devices of several processes; DataError for a bad record.
    """
    if model.tokenizer is None:
        raise ValueError("the checkpoint brings no tokenizer, answers cannot be read")
    config, tokenizer = model.config, model.tokenizer
    decoding = Decoding(
        options.batch_size, options.max_new_tokens, tokenizer.eos_id, options.sampling, options.seed, options.depth_mode
    )

    def kind(question: Question):
        return kind_of(options.category_of(question), question)

    closing = None
    if options.closing is not None:
        kinds = {kind(question) for picture in pictures for question in picture.questions} - {None}
        automaton = make_automaton(tokenizer, kinds, config.decoder.padded_vocab_size)
        closing = Closing(automaton, kind, options.closing == "alone")
    texts: dict[str, str] = {} if kept is None else dict(kept.answers)
    cut: set[str] = set() if kept is None else set(kept.cut_off)
    share = consecutive_share(pictures)
    shape = RowShape(
        config.decoder.max_positions, 1, 0, config.image_tokens, config.vision.image_size, config.mask_grid
    )
    prompts = plan_prompts(
        share,
        TokenisedQuestions(share, tokenizer, with_answers=False),
        shape,
        answered=texts,
        on_bad_record=options.on_bad_record,
    )
    questions = sum(len(row.lengths) for row in prompts.rows)
    shown = options.progress and jax.process_index() == 0
    with tqdm(total=questions, desc="answers", unit="question", disable=not shown) as bar:
        for ids in answer_prompts(
            config,
            model.params,
            prompts,
            decoding,
            closing=closing,
            on_bad_record=options.on_bad_record,
            compute=model.compute,
        ):
            finished = {question: tokenizer.decode(tokens) for question, tokens in ids.items()}
            cut_now = {question for question, tokens in ids.items() if _is_cut(tokens, decoding, closing)}
            if kept is not None:
                kept.append(finished, cut_now)
            texts.update(finished)
            cut |= cut_now
            bar.update(len(finished))
    texts = gather_answers(texts)
    cut = set(gather_answers({question: texts[question] for question in cut}))
    answers = {}
    for question in (question for picture in pictures for question in picture.questions):
        if question.id in texts:
            text, value = texts[question.id], None
            if closing is not None and kind(question):
                text, value = split_closing(text)
                value = None if value is None else parse_value(options.category_of(question), value)
            answers[question.id] = GeneratedAnswer(text, value, question.id in cut)
    return answers


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
