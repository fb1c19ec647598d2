"""Scores a submission of the warehouse benchmark with the official scorer's rules.

    python -m eval.score_warehouse --ground_truth val.json --predictions submission.json --out metrics.json

The ground truth is a list of {"id", "category", "normalized_answer"}; the published annotation
files are such lists. Predictions are a list of {"id", "normalized_answer"}. A question without
prediction counts as wrong and is reported; an id that occurs twice, or that the ground truth does
not know, is an error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from eval import write_aside
from eval.warehouse_scorer import score
from smolrgpt_jax.data.records import DataError, Question, normalize_answer
from smolrgpt_jax.data.sources.collect import read_json_list


def read_ground_truth(path: str | Path) -> list[Question]:
    """Reads the answers of a list of records; questions come without text and masks.

    Raises:
      DataError: the file or one of its records is unusable.
    """
    questions = []
    for index, record in enumerate(_read_list(path)):
        try:
            name, category = str(record["id"]), str(record["category"])
            answer = normalize_answer(category, record["normalized_answer"])
        except KeyError as error:
            raise DataError(f"{path}: record {index} has no {error}") from error
        except ValueError as error:
            raise DataError(f"{path}: record {record['id']!r}: {error}") from error
        questions.append(Question(name, category, "", None, answer))
    return questions


def read_predictions(path: str | Path) -> dict[str, object]:
    """Reads a submission: {id: normalised answer as it stands in the file}.

    Raises:
      DataError: the file is unreadable, a record lacks a field, or an id occurs twice.
    """
    predictions: dict[str, object] = {}
    for index, record in enumerate(_read_list(path)):
        for field in ("id", "normalized_answer"):
            if field not in record:
                raise DataError(f"{path}: record {index} has no {field!r}")
        if str(record["id"]) in predictions:
            raise DataError(f"{path}: id {record['id']!r} occurs twice")
        predictions[str(record["id"])] = record["normalized_answer"]
    return predictions


def _read_list(path: str | Path) -> list[dict]:
    records = read_json_list(Path(path))
    if not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: is not a list of records")
    return records


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ground_truth", required=True, type=Path, help="JSON list with id, category and normalized_answer"
    )
    parser.add_argument(
        "--predictions", required=True, type=Path, help="JSON list of {id, normalized_answer}"
    )
    parser.add_argument(
        "--out", required=True, type=Path, help="JSON file to write: the official numbers and S1"
    )
    args = parser.parse_args(arguments)

    print(f"scoring {args.predictions} against {args.ground_truth}, writing {args.out}")
    try:
        metrics = score(read_ground_truth(args.ground_truth), read_predictions(args.predictions))
        write_aside(args.out, json.dumps(metrics.pop("official") | metrics, indent=1) + "\n")
    except DataError as error:
        raise SystemExit(f"error: {error}") from None
    except OSError as error:
        raise SystemExit(f"error: {args.out} cannot be written ({error.strerror})") from None
    parts = "  ".join(
        f"{name} {metrics[name]:.2f}"
        for name in ("left_right", "count", "mcq", "distance")
        if metrics[name] is not None
    )
    print(
        f"S1 {metrics['S1']:.2f}  {parts}  ({metrics['questions']} questions, "
        f"{metrics['missing']} without prediction, {metrics['unreadable']} unreadable)"
    )


if __name__ == "__main__":
    main()
