"""Answers a split of the warehouse benchmark, scores the answers and writes a report.

    python -m eval.warehouse --checkpoint DIR --data ROOT --split val --out DIR

--data is a folder in the published layout. Into --out go predictions.json (every answer as text and
as a value), submission.json (the benchmark's format), and, where the answers are published,
metrics.json (S1, left_right, count, mcq, distance in percent, questions, the blind baseline learned
from train.json, the official numbers, 95 % intervals of the scores, the accuracy of each question
template, errors by true distance, calibration) and report.html. A record that cannot be used is left out
and reported; a picture that cannot be decoded leaves its questions without an answer, and they
count as wrong. Finished answers are kept in .OUT.journal beside --out until the results are written: the same
command goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval import DTYPES, journal_path, positive, remove_journal, results_folder, write_json
from eval.answers import normalized_answer
from eval.blind import BlindBaseline, read_training_questions
from eval.breakdown import describe_details
from eval.report import write_report
from eval.statistics import describe_interval
from eval.warehouse_scorer import score
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, BadRecords, DataError, Picture, describe
from smolrgpt_jax.data.sources.warehouse import read_warehouse

if TYPE_CHECKING:
    from smolrgpt_jax.loading import Model

Answerer = Callable[[Sequence[Picture]], Sequence[str]]


def answer_questions(
    model: Model,
    pictures: Sequence[Picture],
    batch_size: int,
    max_new_tokens: int,
    on_bad_record: BadRecords | None = None,
    journal: Path | None = None,
) -> list[str]:
    """Asks a model all questions; returns its texts in their order, "" for those it could not be asked.

    ``journal``: see ``generate_answers``.
    """
    from smolrgpt_jax.generation import generate_answers

    answers = generate_answers(
        model,
        pictures,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        on_bad_record=on_bad_record,
        progress=True,
        journal=journal,
    )
    return [answers.get(question.id, "") for picture in pictures for question in picture.questions]


def make_predictions(pictures: Sequence[Picture], answers: Sequence[str]) -> list[dict]:
    """Returns one dict per question: id, image, category, question, answer, normalized_answer, truth."""
    asked = [(picture, question) for picture in pictures for question in picture.questions]
    return [
        {
            "id": question.id,
            "image": picture.image.name,
            "category": question.category,
            "question": question.prompt,
            "answer": answer,
            "normalized_answer": normalized_answer(question.category, question.prompt, answer),
            "truth": question.normalized_answer,
        }
        for (picture, question), answer in zip(asked, answers, strict=True)
    ]


def compute_metrics(
    pictures: Sequence[Picture], predictions: Sequence[Mapping], blind: BlindBaseline | None
) -> dict:
    """Scores predictions and, with it, the blind baseline; what metrics.json holds.

    Returns:
      S1, left_right, count, mcq, distance in percent (None for a category without questions),
      questions, unreadable, blind_S1 and blind {category: percent} unless ``blind`` is None,
      official {official name: number}, and the parts of ``eval.breakdown.describe_details``.
    """
    questions = [question for picture in pictures for question in picture.questions]
    scored = score(questions, {item["id"]: item["normalized_answer"] for item in predictions})
    metrics = {name: scored[name] for name in ("S1", *WAREHOUSE_CATEGORIES, "questions", "unreadable")}
    if blind is not None:
        guessed = score(questions, {question.id: blind.predict(question) for question in questions})
        metrics["blind_S1"] = guessed["S1"]
        metrics["blind"] = {category: guessed[category] for category in WAREHOUSE_CATEGORIES}
    return metrics | {"official": scored["official"]} | describe_details(predictions)


def limit_questions(pictures: Sequence[Picture], limit: int) -> list[Picture]:
    """Returns the first ``limit`` questions with their pictures."""
    kept: list[Picture] = []
    for picture in pictures:
        if limit <= 0:
            break
        kept.append(dataclasses.replace(picture, questions=picture.questions[:limit]))
        limit -= len(picture.questions)
    return kept


def evaluate(
    pictures: Sequence[Picture],
    answerer: Answerer,
    out: str | Path,
    *,
    blind: BlindBaseline | None = None,
    loss_curves: Mapping[str, str | Path] | None = None,
    run_info: Mapping[str, Any] | None = None,
) -> dict | None:
    """Answers, scores and writes the files that the module's docstring names.

    Args:
      pictures: with the questions to ask.
      answerer: pictures -> one text per question, in their order.
      out: folder of the results; its files of the same names are replaced once all are complete.
      blind: the baseline to score beside the answers.
      loss_curves, run_info: see ``eval.report.write_report``.

    Returns:
      The metrics, or None (and neither metrics.json nor report.html) if no question has a
      published answer.

    Raises:
      DataError: only some questions have a published answer.
    """
    predictions = make_predictions(pictures, answerer(pictures))
    # The submission format has no place for "unreadable"; the empty string is wrong everywhere.
    submission = [
        {
            "id": item["id"],
            "normalized_answer": "" if item["normalized_answer"] is None else item["normalized_answer"],
        }
        for item in predictions
    ]
    metrics = None
    if any(item["truth"] is not None for item in predictions):
        metrics = compute_metrics(pictures, predictions, blind)
    with results_folder(out) as aside:
        write_json(aside / "predictions.json", predictions)
        write_json(aside / "submission.json", submission)
        if metrics is not None:
            write_json(aside / "metrics.json", metrics)
            write_report(aside / "report.html", metrics, predictions, pictures, loss_curves, run_info)
    return metrics


def describe_metrics(metrics: Mapping) -> str:
    """Returns a small table for people: accuracy, its interval and blind accuracy per category."""
    blind = {"S1": metrics.get("blind_S1")} | (metrics.get("blind") or {})
    intervals = metrics.get("intervals") or {}
    lines = [f"{'':<12}{'accuracy':>9}{'95 % interval':>17}{'blind':>9}"]
    for name in ("S1", *WAREHOUSE_CATEGORIES):
        interval = describe_interval(intervals.get(name))
        lines.append(f"{name:<12}{_cell(metrics[name]):>9}{interval:>17}{_cell(blind.get(name)):>9}")
    return "\n".join(
        lines + [f"{metrics['questions']} questions, {metrics['unreadable']} answers unreadable"]
    )


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def run_details(model: Model, module: str = "eval.warehouse", **details: Any) -> dict[str, Any]:
    """What the report says of a run: the command, the details, and the configuration.

    A checkpoint of our training also tells the stage's run configuration and seed.
    """
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    config = {"model": model.config.to_dict()}
    if model.source is not None and (model.source / "meta").is_dir():
        from smolrgpt_jax.training.checkpoints import read_meta

        config["training"] = read_meta(model.source).run or {}
        details["seed"] = config["training"].get("run", {}).get("seed")
    return {"command": command, **details, "config": config}


def _named_file(text: str) -> tuple[str, str]:
    name, mark, file = text.partition("=")
    if not (name and mark and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FILE")
    return name, file


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="checkpoint of ours, training folder or PyTorch folder"
    )
    parser.add_argument("--data", required=True, type=Path, help="folder in the published layout")
    parser.add_argument("--split", default="val", help="train, val or test")
    parser.add_argument("--annotations", help="file under --data with the questions, by default SPLIT.json")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--batch_size", type=positive, default=64, help="questions answered at once")
    parser.add_argument("--max_new_tokens", type=positive, default=120, help="longest answer, in tokens")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the model's products")
    parser.add_argument("--limit", type=positive, help="only the first LIMIT questions")
    parser.add_argument(
        "--loss_curves",
        type=_named_file,
        nargs="*",
        default=[],
        metavar="STAGE=CSV",
        help="training curves to show in the report",
    )
    args = parser.parse_args(arguments)

    annotations = args.annotations or f"{args.split}.json"
    print(f"answering {args.data / annotations} with {args.checkpoint}, writing to {args.out}")
    if args.out.exists() and not args.out.is_dir():
        raise SystemExit(f"error: {args.out} exists and is not a folder")
    bad = BadRecords("report")
    try:
        pictures = read_warehouse(args.data, args.split, annotations=annotations, on_bad_record=bad)
        if args.limit is not None:
            pictures = limit_questions(pictures, args.limit)
        if not pictures:
            raise DataError(f"{args.data / annotations}: holds no usable question; {bad.summary(1)}")
        print(describe(pictures))
        training = args.data / "train.json"
        blind = BlindBaseline(read_training_questions(training)) if training.is_file() else None
        # Imported late: neither --help nor a mistyped path should wait for JAX.
        from smolrgpt_jax import load

        model = load(args.checkpoint, compute_dtype=args.dtype)
        metrics = evaluate(
            pictures,
            lambda asked: answer_questions(
                model, asked, args.batch_size, args.max_new_tokens, bad, journal_path(args.out)
            ),
            args.out,
            blind=blind,
            loss_curves=dict(args.loss_curves),
            run_info=run_details(model, checkpoint=args.checkpoint, data=args.data / annotations),
        )
        remove_journal(args.out)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    if bad.reasons:
        print(bad.summary())
    if metrics is None:
        print(f"no published answers: wrote {args.out}/predictions.json and {args.out}/submission.json")
    else:
        print(describe_metrics(metrics))
        print(f"report: {args.out}/report.html")


if __name__ == "__main__":
    main()
