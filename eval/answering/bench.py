"""SpatialRGPT-Bench: questions answered, read, scored and written."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.answering.asking import Answered, Answerer, described, is_first_process, timed_answers
from eval.reading.bench_rules import CATEGORIES, QUALITATIVE, QUANTITATIVE, bench_answer
from eval.report.html import gallery, render
from eval.scoring.bench_scores import AVERAGE, answer_error, group_of, is_success, score_bench
from eval.scoring.results import RUN_FILE, asked_item, describe_run, describe_speed
from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import results_folder, write_json

_TITLES = {name: name for name in QUALITATIVE} | {name: name.replace("_", " ").capitalize() for name in QUANTITATIVE}


def known_questions(pictures: Sequence[Picture], bad: BadRecords) -> list[Picture]:
    """The pictures with the questions of the benchmark's categories; others are rejected."""
    kept = []
    for picture in pictures:
        questions = tuple(question for question in picture.questions if question.category in CATEGORIES)
        for question in picture.questions:
            if question.category not in CATEGORIES:
                reason = f"unknown category {question.category!r}, expected one of {list(CATEGORIES)}"
                bad.reject(DataError(f"record {question.id!r}: {reason}"))
        if questions:
            kept.append(dataclasses.replace(picture, questions=questions))
    return kept


def make_predictions(pictures: Sequence[Picture], answers: Sequence[Answered]) -> list[dict]:
    """One dict per question: id, image (below the pictures' common folder), category, question, what is said, value, truth,
    truth_value, right and error (relative error of a length, degrees of a direction, else None)."""
    folder = os.path.commonpath([picture.image.parent for picture in pictures])
    asked = [(picture, question) for picture in pictures for question in picture.questions]
    predictions = []
    for (picture, question), answer in zip(asked, answers, strict=True):
        said, category = described(answer), question.category
        value, truth = (bench_answer(category, text) for text in (said["answer"], question.answer))
        item = asked_item(question, picture.image.relative_to(folder).as_posix())
        item |= {**said, "value": value, "truth": question.answer, "truth_value": truth}
        judged = {"right": is_success(category, value, truth), "error": answer_error(category, value, truth)}
        predictions.append(item | judged)
    return predictions


def evaluate(
    pictures: Sequence[Picture], answerer: Answerer, out: str | Path, run_info: Mapping | None = None
) -> dict | None:
    """Answers, scores and writes predictions.json, metrics.json, run.json and report.html; returns the metrics.

    Arguments as of `eval.answering.warehouse.evaluate`; None in all processes but the first, which only answer.
    """
    answers, seconds = timed_answers(answerer, pictures, out)
    if not is_first_process():
        return None
    predictions = make_predictions(pictures, answers)
    metrics = score_bench(predictions)
    groups: dict[str, list[dict]] = {name: [] for name in _TITLES}
    for item in predictions:
        column = group_of(item["category"])
        groups[column].append(item | {"category": column, "normalized_answer": item["value"]})
    shown = gallery({name: items for name, items in groups.items() if items}, pictures)
    with results_folder(out) as aside:
        write_json(aside / "predictions.json", predictions)
        write_json(aside / "metrics.json", metrics)
        if run_info is not None:
            write_json(aside / RUN_FILE, describe_run(run_info, len(answers), seconds))
            run_info = {**run_info, **describe_speed(len(answers), seconds)}
        report = aside / "report.html"
        render(report, "bench.html", run_info, titles=_TITLES, average=AVERAGE, metrics=metrics, gallery=shown)
    return metrics
