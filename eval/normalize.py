"""Reads the values of answers again, by other methods, without a model.

    python -m eval.normalize --predictions runs/val/predictions.json --answers rules router --router runs/router --out DIR
    python -m eval.normalize --predictions runs/val/answers.json --answers server --server URL --server_model NAME --out DIR

--predictions is what eval.warehouse wrote: a list of {"id", "image", "category", "question", "answer", "truth"}, of which
"category" may be empty and "truth" null (the test split). Into --out go predictions.json, submission.json and, where
the truths are there, metrics.json, as eval.warehouse writes them; else, of several methods, agreement.json. Results that an earlier
run left there are removed, its report.html among them, which would tell other values.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eval import check_unique
from eval.reading.methods import add_method_arguments, build_methods, read_values
from eval.scoring.results import RESULT_FILES, compute_metrics, describe_results, write_results
from eval.scoring.submission import check_known, describe_empty, record_ids
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, normalize_answer
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json, results_folder

_TEXTS = ("id", "image", "category", "question", "answer")


def read_answers(path: str | Path) -> list[dict]:
    """Reads answers: dicts of id, image, category, question, answer (texts), truth, and whatever else is there
    but the values that were read off them before.

    Raises:
      DataError: the file is unreadable or empty, a record lacks a field or has an unusable one, or ids
        occur twice.
    """
    answers = []
    for index, record in enumerate(read_json(Path(path), list)):
        where = f"{path}: record {index}"
        if not isinstance(record, dict):
            raise DataError(f"{where} is a {type(record).__name__}, expected an object")
        for field in (*_TEXTS, "truth"):
            if field not in record:
                raise DataError(f"{where} has no {field!r}")
            if field != "truth" and not isinstance(record[field], str):
                raise DataError(f"{where}: {field} is {record[field]!r}, expected text")
        category = record["category"]
        if category not in ("", *WAREHOUSE_CATEGORIES):
            raise DataError(f"{where} ({record['id']!r}): unknown category {category!r}")
        try:
            truth = normalize_answer(category, record["truth"])
        except ValueError as error:
            raise DataError(f"{where} ({record['id']!r}): {error}") from error
        kept = {key: record[key] for key in record if key not in ("normalized_answer", "values")}
        answers.append({**kept, "truth": truth})
    check_unique(path, (record["id"] for record in answers))
    if not answers:
        raise DataError(f"{path}: holds no answer")
    return answers


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.normalize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--predictions", required=True, type=Path, help="predictions.json or answers.json of eval.warehouse"
    )
    parser.add_argument(
        "--annotations", type=Path, help="annotation file, whose ids the submission then holds in its order"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    add_method_arguments(parser)
    args = parser.parse_args(arguments)

    print(f"reading {args.predictions} by {', '.join(args.answers)}, writing to {args.out}")
    if args.out.exists() and not args.out.is_dir():
        raise SystemExit(f"error: {args.out} exists and is not a folder")
    try:
        answers = read_answers(args.predictions)
        ids = record_ids(read_json(args.annotations, list)) if args.annotations else None
        if ids is not None:
            check_known([item["id"] for item in answers], ids, args.annotations)
        methods = build_methods(args)
        predictions = read_values(answers, methods)
        scored = any(item["truth"] is not None for item in predictions)
        metrics = compute_metrics(predictions, methods=methods) if scored else None
        with results_folder(args.out, (*RESULT_FILES, "report.html")) as aside:
            write_results(aside, predictions, ids, metrics)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; what a server said is kept, the same command goes on from there") from None
    print(describe_results(predictions, metrics))
    if empty := describe_empty(args.out / "submission.json"):
        print(empty)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
