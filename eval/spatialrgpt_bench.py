"""Answers SpatialRGPT-Bench, scores the answers and writes a report.

    python -m eval.spatialrgpt_bench --checkpoint DIR --data ROOT --out DIR

--data holds SpatialRGPT-Bench_v1.json and the folders images and depths; the depth picture of
images/NAME.jpg is depths/NAME.png. `python -m launch.make_warehouse --bench` writes such a folder about a
procedural warehouse. Into --out go predictions.json (every answer as text and as a value), metrics.json
(success rates and errors in the layout of the paper's tables, with 95 % intervals) and report.html.

The thresholds are the original ones, the judge is not: the original evaluation asks GPT-4 to compare
qualitative answers and to extract numbers, this one reads both by rules (eval.reading.bench_rules). Numbers of
the two are close, not the same. A record that cannot be used is left out and reported; a picture
that cannot be decoded leaves its questions without an answer, and they count as failures. Finished
answers are kept in .OUT.journal beside --out until the results are written: the same command goes on from there. All devices answer
together, as in eval.warehouse.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval import DTYPES, INTERRUPTED, add_answer_length, answer_length, journal_path, positive, remove_journal
from eval.answering.devices import is_first_process, load_model
from eval.reading.bench_rules import CATEGORIES, QUALITATIVE, QUANTITATIVE, bench_answer
from eval.report.html import gallery, render
from eval.scoring.bench_scores import AVERAGE, answer_error, describe_bench, group_of, is_success, score_bench
from eval.warehouse import Answered, Answerer, answer_questions, described, limit_questions, run_details
from smolrgpt_jax import distributed
from smolrgpt_jax.data.records import BadRecords, Picture, describe
from smolrgpt_jax.data.sources.osd import read_bench
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import results_folder, write_json

_TITLES = {name: name for name in QUALITATIVE} | {name: name.replace("_", " ").capitalize() for name in QUANTITATIVE}


def known_questions(pictures: Sequence[Picture], bad: BadRecords) -> list[Picture]:
    """Returns the pictures with the questions of the benchmark's categories; others are rejected."""
    kept = []
    for picture in pictures:
        questions = []
        for question in picture.questions:
            if question.category in CATEGORIES:
                questions.append(question)
            else:
                reason = f"unknown category {question.category!r}, expected one of {list(CATEGORIES)}"
                bad.reject(DataError(f"record {question.id!r}: {reason}"))
        if questions:
            kept.append(dataclasses.replace(picture, questions=tuple(questions)))
    return kept


def make_predictions(pictures: Sequence[Picture], answers: Sequence[Answered]) -> list[dict]:
    """Returns one dict per question: id, image (below the pictures' common folder), category, question,
    answer, cut_off (where it is), value, truth, truth_value, right and error (relative error of a length, degrees of a
    direction, else None)."""
    folder = os.path.commonpath([picture.image.parent for picture in pictures])
    asked = [(picture, question) for picture in pictures for question in picture.questions]
    predictions = []
    for (picture, question), answer in zip(asked, answers, strict=True):
        said = described(answer)
        value = bench_answer(question.category, said["answer"])
        truth = bench_answer(question.category, question.answer)
        predictions.append(
            {
                "id": question.id,
                "image": picture.image.relative_to(folder).as_posix(),
                "category": question.category,
                "question": question.prompt,
                **said,
                "value": value,
                "truth": question.answer,
                "truth_value": truth,
                "right": is_success(question.category, value, truth),
                "error": answer_error(question.category, value, truth),
            }
        )
    return predictions


def evaluate(
    pictures: Sequence[Picture], answerer: Answerer, out: str | Path, run_info: Mapping[str, Any] | None = None
) -> dict:
    """Answers, scores and writes the files that the module's docstring names; returns the metrics.

    Args:
      pictures: with questions of the benchmark's categories.
      answerer: pictures -> what is answered to each question, in their order.
      out: folder of the results; its files of the same names are replaced once all are complete.
      run_info: see ``eval.report.html.write_report``.
    """
    predictions = make_predictions(pictures, answerer(pictures))
    metrics = score_bench(predictions)
    with results_folder(out) as aside:
        write_json(aside / "predictions.json", predictions)
        write_json(aside / "metrics.json", metrics)
        _write_report(aside / "report.html", metrics, predictions, pictures, run_info)
    return metrics


def _write_report(
    path: Path, metrics: Mapping, predictions: Sequence[Mapping], pictures: Sequence[Picture], run_info: Mapping | None
) -> None:
    shown = [dict(item, category=group_of(item["category"]), normalized_answer=item["value"]) for item in predictions]
    groups = {name: [item for item in shown if item["category"] == name] for name in _TITLES}
    render(
        path,
        "bench.html",
        run_info,
        titles=_TITLES,
        average=AVERAGE,
        metrics=metrics,
        gallery=gallery({name: items for name, items in groups.items() if items}, pictures),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.spatialrgpt_bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="checkpoint of ours, training folder or PyTorch folder"
    )
    parser.add_argument("--data", required=True, type=Path, help="folder of the benchmark")
    parser.add_argument(
        "--annotations", default="SpatialRGPT-Bench_v1.json", help="file under --data with the questions"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--batch_size", type=positive, default=64, help="questions answered at once")
    add_answer_length(parser)
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the model's products")
    parser.add_argument("--limit", type=positive, help="only the first LIMIT questions")
    args = parser.parse_args(arguments)
    try:
        distributed.start()
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None

    annotations = args.data / args.annotations
    print(f"answering {annotations} with {args.checkpoint}, writing to {args.out}")
    if args.out.exists() and not args.out.is_dir():
        raise SystemExit(f"error: {args.out} exists and is not a folder")
    bad = BadRecords("report")
    try:
        pictures = known_questions(read_bench(args.data, args.annotations, on_bad_record=bad), bad)
        if args.limit is not None:
            pictures = limit_questions(pictures, args.limit)
        if not pictures:
            raise DataError(f"{annotations}: holds no usable question; {bad.summary(1)}")
        print(describe(pictures))
        with distributed.end_on_error():
            model = load_model(args.checkpoint, args.dtype)

            from smolrgpt_jax.generation import AnswerOptions

            length = answer_length(model, args.max_new_tokens)
            options = AnswerOptions(args.batch_size, length, on_bad_record=bad)

            def ask(asked: Sequence[Picture]) -> list[Answered]:
                return answer_questions(model, asked, options, journal=journal_path(args.out))

            # On every process, since Orbax reads on all of them together.
            details = run_details(model, "eval.spatialrgpt_bench", checkpoint=args.checkpoint, data=annotations)
            if not is_first_process():
                ask(pictures)
                return
            metrics = evaluate(pictures, ask, args.out, details)
            remove_journal(args.out)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    if bad.reasons:
        print(bad.summary())
    print(describe_bench(metrics))
    print(f"report: {args.out}/report.html")


if __name__ == "__main__":
    main()
