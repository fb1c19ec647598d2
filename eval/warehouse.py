"""Answers a split of the warehouse benchmark, scores the answers and writes a report."""

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.answering import asking
from eval.answering.answerers import check_answerer, elsewhere, is_elsewhere
from eval.answering.confidences import Confidences
from eval.answering.vote import Ballots, further_answers, with_further
from eval.answering.warehouse import evaluate
from eval.command_line import command_line
from eval.reading.methods import build_methods
from eval.scoring.blind import BlindBaseline, read_training_questions
from eval.scoring.results import describe_results
from smolrgpt_jax import distributed
from smolrgpt_jax.data.images import DEPTH_MODES
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, BadRecords, Picture, describe, spread_questions
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import as_path, read_json

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model


def _named_file(text: str) -> tuple[str, Path]:
    name, mark, file = text.partition("=")
    if not (name and mark and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FILE")
    return name, as_path(file)


def _here(
    model: "Model", args: argparse.Namespace, records: list, ballots: Ballots | None, bad: BadRecords, details: dict
) -> tuple[asking.Answerer, dict]:
    """What the checkpoint answers, and what the report says of it."""
    from smolrgpt_jax.generation.engine import AnswerOptions

    longest = args.max_new_tokens or model.answer_tokens
    closing = args.closing if "closing" in args.answers else None
    how = {"depth_mode": args.preprocessing, "closing": closing, "category_of": asking.asked_category}
    options = AnswerOptions(args.batch_size, longest, **how, on_bad_record=bad)

    def ask(pictures: Sequence[Picture]) -> Sequence[asking.Answered]:
        asked = model
        if args.preprocessing == "submission":
            from eval.answering.submission_prompts import SubmissionTokenizer, with_newlines

            asked = dataclasses.replace(model, tokenizer=SubmissionTokenizer.of(model.tokenizer))
            pictures = with_newlines(pictures, records)
        answers = asking.answer_questions(asked, pictures, options, args.out)
        if ballots is None:
            return answers
        return with_further(answers, further_answers(asked, pictures, ballots, options, args.out))

    return ask, asking.run_details(model, checkpoint=args.checkpoint, **details)


@told(asking.INTERRUPTED)
def main(arguments: Sequence[str] | None = None) -> None:
    known = {"preprocessing": DEPTH_MODES, "vote_categories": WAREHOUSE_CATEGORIES}
    parser = command_line("eval.warehouse", __doc__, **known)
    curves = {"type": _named_file, "nargs": "*", "default": [], "metavar": "STAGE=CSV"}
    parser.add_argument("--loss_curves", **curves, help="training curves to show in the report")
    parser.set_defaults(**{f"vote_{field.name}": field.default for field in dataclasses.fields(Ballots)})
    args = parser.parse_args(arguments)
    asked_model = check_answerer(parser, args)
    special = args.preprocessing != "training" or {"closing", "vote"} & set(args.answers)
    if is_elsewhere(args) and special:
        raise DataError(
            "a server or an export answers questions as they stand: no submission preprocessing, closing or vote"
        )
    if args.confidence and (is_elsewhere(args) or special):
        kind = "no server, export, submission preprocessing, closing or vote"
        raise DataError(f"--confidence is fitted to the texts of a --checkpoint as they stand: {kind}")
    confidences = Confidences.read(args.confidence) if args.confidence else None
    distributed.start()
    annotations = args.annotations or f"{args.split}.json"
    file = args.data / annotations
    print(f"answering {file} with {asked_model}, writing to {args.out}")
    for _, curve in args.loss_curves:
        if not curve.is_file():
            raise DataError(f"{curve}: no such file, though --loss_curves names it")
    bad = BadRecords("report")
    pictures = read_warehouse(args.data, args.split, annotations=annotations, on_bad_record=bad)
    pictures = spread_questions(pictures, args.limit)
    records = read_json(file, list)
    if not pictures:
        raise DataError(f"{file}: holds no usable question; {bad.summary(1)}")
    print(describe(pictures))
    training = args.data / "train.json"
    blind = BlindBaseline(read_training_questions(training)) if training.is_file() else None
    methods = build_methods(args)
    ballots = None
    if "vote" in methods:
        ballots = Ballots(args.vote_answers, args.vote_temperature, args.vote_seed, tuple(args.vote_categories))
    with distributed.end_on_error():
        details = {"data": file, "answers_read_by": ", ".join(methods)}
        details |= {} if ballots is None else {"vote": str(ballots)}
        sure = None
        if is_elsewhere(args):
            ask, info = elsewhere(args, "eval.warehouse", bad, **details)
        else:
            details["preprocessing"] = args.preprocessing
            model = asking.load_model(args.checkpoint, args.dtype)
            if confidences:
                sure = functools.partial(confidences.of(model).added, model, pictures, bad=bad)
                details["confidence"] = args.confidence
            ask, info = _here(model, args, records, ballots, bad, details)
        reported = {"blind": blind, "loss_curves": dict(args.loss_curves), "run_info": info, "sure": sure}
        listed = records if args.limit is None else None
        metrics = evaluate(pictures, ask, args.out, methods=methods, records=listed, **reported)
        asking.remove_journal(args.out)
    if not asking.is_first_process():
        return
    if bad.reasons:
        print(bad.summary())
    print(describe_results(args.out, metrics))
    print(f"wrote {args.out}" if metrics is None else f"report: {args.out}/report.html")


if __name__ == "__main__":
    main()
