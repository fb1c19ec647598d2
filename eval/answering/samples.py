"""Questions drawn from any data, what a model says to them, and a page that shows it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.reading.rules import normalized_answer
from eval.report.html import CATEGORY_TITLES, render, shown_question
from eval.scoring.official import is_correct
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, BadRecords, Picture, Question
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import results_folder, write_json

if TYPE_CHECKING:
    from smolrgpt_jax.generation.engine import AnswerOptions
    from smolrgpt_jax.model import Model


@dataclasses.dataclass(frozen=True)
class Asked:
    """One question to show: a picture with this question alone, and the name of its source."""

    source: str
    picture: Picture

    @property
    def question(self) -> Question:
        return self.picture.questions[0]


def draw(pictures: Mapping[str, Sequence[Picture]], count: int, seed: int) -> list[Asked]:
    """Draws at most `count` questions: sources and categories in turn, pictures not shown yet before others.

    pictures: of each source. The same seed draws the same questions.
    """
    order = np.random.default_rng(seed)
    queues: dict[tuple[str, str], list[Asked]] = {}
    for source, found in pictures.items():
        pairs = [(picture, question) for picture in found for question in picture.questions]
        for index in order.permutation(len(pairs)):
            picture, question = pairs[index]
            alone = dataclasses.replace(picture, questions=(question,))
            queues.setdefault((source, question.category), []).append(Asked(source, alone))
    drawn: list[Asked] = []
    shown: set[Path] = set()
    while len(drawn) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(drawn) < count:
                fresh = next((i for i, asked in enumerate(queue) if asked.picture.image not in shown), 0)
                drawn.append(queue.pop(fresh))
                shown.add(drawn[-1].picture.image)
    return drawn


def answer_samples(model: "Model", drawn: Sequence[Asked], options: "AnswerOptions") -> list[dict]:
    """The model's answers: what samples.json holds of each question, and "shown", see `shown_question`.

    Left out of them is what cannot be asked or drawn, as `options.on_bad_record` says.
    """
    from smolrgpt_jax.generation.answers import generate_answers

    # Ids are unique within a source only.
    renamed = [dataclasses.replace(asked.question, id=f"{asked.source}: {asked.question.id}") for asked in drawn]
    alone = [dataclasses.replace(asked.picture, questions=(put,)) for asked, put in zip(drawn, renamed)]
    answers = generate_answers(model, alone, options)
    samples = []
    for asked, put in zip(drawn, renamed):
        if put.id not in answers:
            continue
        question, given = asked.question, answers[put.id]
        about = {"source": asked.source, "id": question.id, "image": asked.picture.id, "category": question.category}
        earlier = [list(turn) for turn in question.earlier]
        texts = {"regions": len(question.regions), "earlier": earlier, "question": question.prompt}
        said = {"answer": given.text, "cut_off": given.cut_off, "truth": question.answer, "right": None}
        sample = about | texts | said
        if question.category in WAREHOUSE_CATEGORIES and question.normalized_answer is not None:
            value = normalized_answer(question.category, question.prompt, given.text)
            sample["normalized_answer"] = value
            sample["normalized_truth"] = question.normalized_answer
            sample["right"] = is_correct(question.category, value, question.normalized_answer)
        try:
            sample["shown"] = shown_question(asked.picture, question)
        except (OSError, SyntaxError, ValueError) as error:
            options.on_bad_record.reject(DataError(f"record {question.id!r}: its picture cannot be drawn ({error})"))
        samples.append(sample)
    return samples


def write_samples(out: Path, samples: Sequence[dict], bad: BadRecords, seed: int, run_info: Mapping[str, Any]) -> None:
    """Writes samples.json and report.html into a folder, whole or not at all; its files of the same names are replaced.

    samples: of `answer_samples`; bad: the records left out; seed: of the draw; run_info: see
    `eval.report.html.write_report`, "checkpoint" and "data" are named in the page's first line.
    """
    run = run_info.get("config", {}).get("training", {})
    stage = f" (stage {run['stage']}, step {run['step']})" if {"stage", "step"} <= run.keys() else ""
    categories = {sample["category"]: (sample["category"] or "question").replace("_", " ") for sample in samples}
    judged = [sample["right"] for sample in samples if sample["right"] is not None]
    stated = {"checkpoint": str(run_info["checkpoint"]), "data": run_info["data"], "seed": seed}
    bare = [{name: value for name, value in sample.items() if name != "shown"} for sample in samples]
    with results_folder(out) as aside:
        write_json(aside / "samples.json", stated | {"samples": bare, "left_out": bad.reasons})
        heading = {"checkpoint": f"{run_info['checkpoint']}{stage}", "where": run_info["data"], "drawn_with": seed}
        titles = {name: CATEGORY_TITLES.get(name, words.capitalize()) for name, words in categories.items()}
        shown = {"samples": [sample for sample in samples if "shown" in sample], "titles": titles}
        counts = {"judged": len(judged), "right": sum(judged), "left_out": bad.reasons}
        render(aside / "report.html", "samples.html", run_info, **heading, **shown, **counts)
