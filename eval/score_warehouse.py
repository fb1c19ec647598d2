"""Scores a submission of the warehouse benchmark with the official scorer's rules."""

import json
from collections.abc import Sequence
from pathlib import Path

from eval.command_line import command_line
from eval.reading.rules import parse_normalized
from eval.scoring.breakdown import describe_details
from eval.scoring.official import score
from eval.scoring.results import asked_item, check_same, read_records, read_value
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Question
from smolrgpt_jax.data.regions import first_text
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import write_json

MOST_SHOWN = 80  # characters of an unreadable prediction


def read_ground_truth(path: str | Path) -> tuple[list[Question], list[str | None]]:
    """The questions of a list of records, without masks, and the name of each one's picture, None where there is none.

    Raises DataError where the file or one of its records is unusable, or ids occur twice.
    """
    questions: list[Question] = []
    images: list[str | None] = []
    for record in read_records(path, ("category", "normalized_answer")):
        answer = read_value(path, record, "normalized_answer")
        if answer is None:
            raise DataError(f"{path}: record {record['id']!r} has no normalized answer")
        questions.append(Question(record["id"], record["category"], first_text(record), None, answer))
        image = record.get("image")
        images.append(image if isinstance(image, str) and image else None)
    return questions, images


def read_predictions(path: str | Path) -> dict[str, object]:
    """A submission: {id: normalised answer as it stands in the file}; raises DataError as `read_records`."""
    return {record["id"]: record["normalized_answer"] for record in read_records(path, ("normalized_answer",))}


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.score_warehouse", __doc__).parse_args(arguments)
    print(f"scoring {args.predictions} against {args.ground_truth}, writing {args.out}")
    questions, images = read_ground_truth(args.ground_truth)
    predictions = read_predictions(args.predictions)
    files = (str(args.ground_truth), str(args.predictions))
    check_same((question.id for question in questions), predictions, files, args.out)
    metrics = score(questions, predictions)
    items = []
    for question, image in zip(questions, images, strict=True):
        value = parse_normalized(question.category, predictions[question.id])
        items.append(asked_item(question, image) | {"normalized_answer": value, "truth": question.normalized_answer})
    official = metrics.pop("official")
    write_json(args.out, official | metrics | describe_details(items))
    if "error" in official:
        print(f"no official numbers: {official['error']}")
    unreadable = [item["id"] for item in items if item["normalized_answer"] is None]
    if unreadable:
        listed = ", ".join(f"{name!r} ({_shown(predictions[name])})" for name in unreadable)
        print(f"{len(unreadable)} predictions are unreadable and count as wrong: {listed}")
    parts = "  ".join(f"{name} {metrics[name]:.2f}" for name in WAREHOUSE_CATEGORIES if metrics[name] is not None)
    print(f"S1 {metrics['S1']:.2f}  {parts}  ({metrics['questions']} questions, {metrics['unreadable']} unreadable)")


if __name__ == "__main__":
    main()
