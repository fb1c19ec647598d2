"""The warehouse benchmark: questions answered, read, scored and written.

A submission has to hold the ids of questions that could not be asked, and the official scorer counts them; a score that
passed over them would be another number. So they are answered with nothing, which is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from eval.answering.asking import FINGERPRINT, Answered, Answerer, described, is_first_process, timed_answers
from eval.reading.methods import RULES, Method, read_values
from eval.report.html import write_report
from eval.scoring.blind import BlindBaseline
from eval.scoring.results import (
    RESULT_FILES,
    RUN_FILE,
    asked_item,
    compute_metrics,
    describe_run,
    describe_speed,
    record_ids,
    write_results,
)
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Picture, normalize_answer
from smolrgpt_jax.data.regions import first_text
from smolrgpt_jax.data.sources.collect import user_text
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import results_folder, write_json


def evaluate(
    pictures: Sequence[Picture],
    answerer: Answerer,
    out: str | Path,
    *,
    methods: Mapping[str, Method] = RULES,
    records: Sequence[object] | None = None,
    blind: BlindBaseline | None = None,
    loss_curves: Mapping[str, str | Path] | None = None,
    run_info: Mapping[str, Any] | None = None,
    sure: Callable[[Sequence[dict]], list[dict]] | None = None,
) -> dict | None:
    """Answers, scores and writes the files that the help of `eval.warehouse` names; returns the metrics.

    None (and neither metrics.json nor report.html) if no question has a published answer, or in all processes but the
    first, which only answer.

    Args:
      pictures: with the questions to ask, at least one.
      answerer: pictures -> what is answered to each question, in their order.
      out: folder of the results; those of an earlier run are replaced once all are complete.
      methods: ways of reading values off the answers, see `eval.reading.methods`; the first one scores.
      records: of the annotation file: all their ids are in the submission, and those with a published answer that could not
        be read count as wrong. None for those of the pictures.
      blind, loss_curves, run_info: see `compute_metrics` and `eval.report.html.write_report`.
      sure: adds "confidence" to predictions, see `eval.answering.confidences`.

    Raises:
      DataError: only some questions have a published answer (nothing was asked then), or a method fails; then `out`
        holds answers.json, which `eval.normalize` reads.
    """
    truths = [question.normalized_answer for picture in pictures for question in picture.questions]
    if None in truths and any(truth is not None for truth in truths):
        raise DataError(f"{truths.count(None)} of {len(truths)} questions have no published answer to score against")
    given, seconds = timed_answers(answerer, pictures, out)
    if not is_first_process():
        return None
    answers = list_answers(pictures, given) + left_out_answers(records or (), pictures)
    try:
        predictions = read_values(answers, methods)
    except BaseException as error:
        with results_folder(out) as aside:
            write_json(aside / "answers.json", answers)
        if isinstance(error, ValueError):
            raise DataError(f"{error}; the answers are in {out}/answers.json, which eval.normalize reads") from error
        raise
    if sure is None and any("confidence" in item for item in predictions):
        sure = _with_told
    predictions = predictions if sure is None else sure(predictions)
    metrics = compute_metrics(predictions, blind, methods)
    if metrics is not None and run_info and FINGERPRINT in run_info:
        metrics["checkpoint_fingerprint"] = run_info[FINGERPRINT]
    with results_folder(out, RESULT_FILES) as aside:
        write_results(aside, predictions, None if records is None else record_ids(records), metrics)
        if run_info is not None:
            write_json(aside / RUN_FILE, describe_run(run_info, len(given), seconds))
            run_info = {**run_info, **describe_speed(len(given), seconds)}
        if metrics is not None:
            write_report(aside / "report.html", metrics, predictions, pictures, loss_curves, run_info)
    return metrics


def _with_told(predictions: Sequence[dict]) -> list[dict]:
    """Predictions whose confidence, where a server told it, is None of those without a value that could be right."""
    known = [item.get("confidence") if item["normalized_answer"] is not None else None for item in predictions]
    return [{**item, "confidence": sure} for item, sure in zip(predictions, known)]


def list_answers(pictures: Sequence[Picture], answers: Sequence[Answered]) -> list[dict]:
    """One dict per question: id, image, category, question, what is said, and truth."""
    asked = [(picture, question) for picture in pictures for question in picture.questions]
    return [
        {**asked_item(question, picture.image.name), **described(answer), "truth": question.normalized_answer}
        for (picture, question), answer in zip(asked, answers, strict=True)
    ]


def left_out_answers(records: Sequence[Any], pictures: Sequence[Picture]) -> list[dict]:
    """Items as in predictions.json, with an empty answer and "left_out", for records with a published answer not asked.

    One per id, in the records' order. Records that state no usable answer are not among them: there is nothing to score.
    """
    known = {question.id for picture in pictures for question in picture.questions}
    items = []
    for record in records:
        try:
            name, category = record["id"], record["category"]
            truth = normalize_answer(category, record["normalized_answer"])
        except (KeyError, TypeError, ValueError):
            continue
        usable = isinstance(name, (str, int)) and category in WAREHOUSE_CATEGORIES and truth is not None
        if not usable or str(name) in known:
            continue
        known.add(str(name))
        question = first_text(record)
        try:
            question = user_text(question)
        except ValueError:
            pass  # shown as it stands
        image = PurePosixPath(str(record.get("image", ""))).name
        item = {"id": str(name), "image": image, "category": category, "question": question, "answer": ""}
        items.append(item | {"truth": truth, "left_out": True})
    return items
