"""Scores a submission of the warehouse benchmark with the official scorer's rules.

    python -m eval.score_warehouse --ground_truth val.json --predictions submission.json --out metrics.json

The ground truth is a list of {"id", "category", "normalized_answer"}; the published annotation
files are such lists. Predictions are a list of {"id", "normalized_answer"}. Both must hold the same
ids, each once; if they do not, all ids that only one has are listed, very many of them in a file beside
--out. A prediction that cannot be read as a value of its category counts as wrong and is listed. Beside the official numbers and S1 the result holds 95 % intervals, errors by true distance
and calibration, and, where the ground truth has the questions, the accuracy of each question
template.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from eval import check_unique
from eval.reading.rules import parse_normalized
from eval.scoring.breakdown import describe_details
from eval.scoring.official import score
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Question, normalize_answer, record_id
from smolrgpt_jax.data.sources.conversation import first_text
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json, write_json

MOST_LISTED = 100  # ids in one sentence
MOST_SHOWN = 80  # characters of an unreadable prediction


def read_ground_truth(path: str | Path) -> tuple[list[Question], list[str | None]]:
    """Reads the answers of a list of records.

    Returns:
      The questions, without masks and without text where the records have no conversation, and the
      name of each one's picture, None where the record names none.

    Raises:
      DataError: the file or one of its records is unusable, or ids occur twice.
    """
    questions: list[Question] = []
    images: list[str | None] = []
    for index, record in enumerate(_read_list(path)):
        name = _id(path, index, record)
        try:
            category = str(record["category"])
            answer = normalize_answer(category, record["normalized_answer"])
        except KeyError as error:
            raise DataError(f"{path}: record {index} has no {error}") from error
        except ValueError as error:
            raise DataError(f"{path}: record {name!r}: {error}") from error
        if category not in WAREHOUSE_CATEGORIES or answer is None:
            raise DataError(
                f"{path}: record {name!r} has category {category!r} and normalized answer {answer!r}, "
                f"expected one of {list(WAREHOUSE_CATEGORIES)} and an answer"
            )
        questions.append(Question(name, category, first_text(record), None, answer))
        image = record.get("image")
        images.append(image if isinstance(image, str) and image else None)
    check_unique(path, (question.id for question in questions))
    return questions, images


def read_predictions(path: str | Path) -> dict[str, object]:
    """Reads a submission: {id: normalised answer as it stands in the file}.

    Raises:
      DataError: the file is unreadable, a record lacks a field, or ids occur twice.
    """
    records = _read_list(path)
    names = []
    for index, record in enumerate(records):
        names.append(_id(path, index, record))
        if "normalized_answer" not in record:
            raise DataError(f"{path}: record {index} has no 'normalized_answer'")
    check_unique(path, names)
    return {name: record["normalized_answer"] for name, record in zip(names, records)}


def describe_differing(
    first: Iterable[str], second: Iterable[str], names: tuple[str, str], listing: Path | None = None
) -> str | None:
    """Returns a sentence that lists all ids which only one of two files has, None if there are none.

    Args:
      first, second: the ids of both.
      names: of the files.
      listing: JSON file for the ids where they are more than MOST_LISTED, {name: [id, ...]}; the sentence then
        has the first ones only. None keeps them in the sentence however many they are.
    """
    first, second = dict.fromkeys(first), dict.fromkeys(second)
    differing = {
        name: [item for item in own if item not in other]
        for own, other, name in ((first, second, names[0]), (second, first, names[1]))
    }
    too_many = listing is not None and sum(map(len, differing.values())) > MOST_LISTED
    parts = []
    for (name, only), own in zip(differing.items(), (first, second)):
        if only:
            listed = ", ".join(map(repr, only[:3] if too_many else only))
            more = ", ..." if too_many and len(only) > 3 else ""
            parts.append(f"only {name} has {len(only)} of its {len(own)} ids ({listed}{more})")
    if too_many:
        write_json(listing, differing)
        parts[-1] += f"; all are listed in {listing}"
    return " and ".join(parts) or None


def _id(path: str | Path, index: int, record: dict) -> str:
    if "id" not in record:
        raise DataError(f"{path}: record {index} has no 'id'")
    try:
        return record_id(record["id"])
    except ValueError as error:
        raise DataError(
            f"{path}: record {index} has the id {record['id']!r}, expected text or a whole number"
        ) from error


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def _read_list(path: str | Path) -> list[dict]:
    records = read_json(Path(path), list)
    if not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: is not a list of records")
    return records


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ground_truth", required=True, type=Path, help="JSON list with id, category and normalized_answer"
    )
    parser.add_argument("--predictions", required=True, type=Path, help="JSON list of {id, normalized_answer}")
    parser.add_argument("--out", required=True, type=Path, help="JSON file to write: the official numbers and S1")
    args = parser.parse_args(arguments)

    print(f"scoring {args.predictions} against {args.ground_truth}, writing {args.out}")
    try:
        questions, images = read_ground_truth(args.ground_truth)
        predictions = read_predictions(args.predictions)
        names = (str(args.ground_truth), str(args.predictions))
        if not questions:
            raise DataError(f"{args.ground_truth}: holds no question to score")
        listing = args.out.with_name(f"{args.out.stem}_differing_ids.json")
        differing = describe_differing((question.id for question in questions), predictions, names, listing)
        if differing:
            raise DataError(differing)
        metrics = score(questions, predictions)
        items = [
            {
                "id": question.id,
                "image": image,
                "category": question.category,
                "question": question.prompt,
                "normalized_answer": parse_normalized(question.category, predictions[question.id]),
                "truth": question.normalized_answer,
            }
            for question, image in zip(questions, images, strict=True)
        ]
        write_json(args.out, metrics.pop("official") | metrics | describe_details(items))
    except DataError as error:
        raise SystemExit(f"error: {error}") from None
    except OSError as error:
        raise SystemExit(f"error: {args.out} cannot be written ({error.strerror})") from None
    unreadable = [
        f"{item['id']!r} ({_shortened(json.dumps(predictions[item['id']]))})"
        for item in items
        if item["normalized_answer"] is None
    ]
    if unreadable:
        print(f"{len(unreadable)} predictions are unreadable and count as wrong: {', '.join(unreadable)}")
    parts = "  ".join(f"{name} {metrics[name]:.2f}" for name in WAREHOUSE_CATEGORIES if metrics[name] is not None)
    print(f"S1 {metrics['S1']:.2f}  {parts}  ({metrics['questions']} questions, {metrics['unreadable']} unreadable)")


if __name__ == "__main__":
    main()
