"""Answers a split of the warehouse benchmark, scores the answers and writes a report.

    python -m eval.warehouse --checkpoint DIR --data ROOT --split val --out DIR
    python -m eval.warehouse ... --answers rules router server --router runs/router \\
        --server http://localhost:11434/v1 --server_model qwen2.5:14b
    python -m eval.warehouse ... --answers vote rules --vote_answers 5

--data is a folder in the published layout. Into --out go predictions.json (every answer as text and
as a value), submission.json (the benchmark's format), and, where the answers are published,
metrics.json (S1, left_right, count, mcq, distance in percent, questions, the blind baseline learned
from train.json, the official numbers, 95 % intervals of the scores, the accuracy of each question
template, errors by true distance, calibration, unreadable and ambiguous answers, answers that the longest
length cut, the agreement of several ways of reading them) and report.html. Results that an earlier run left
there are removed. A record or picture that cannot be used is reported; its questions have
no answer and count as wrong. The submission holds all ids of the file in its order, with an empty value where
there is no answer. Finished answers are kept in
files .OUT.journal* beside --out until the results are written: the same command goes on from there. All devices
answer together; several hosts do where the same command is started on each, as for launch.train, and the
first one writes the results.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval import DTYPES, INTERRUPTED, add_answer_length, answer_length, journal_path, positive, remove_journal
from eval.answering.devices import is_first_process, load_model
from eval.answering.left_out import left_out_answers
from eval.answering.vote import Ballots, further_answers
from eval.reading.methods import RULES, Method, add_method_arguments, build_methods, read_values
from eval.reading.rules import question_category
from eval.report.html import write_report
from eval.scoring.blind import BlindBaseline, read_training_questions
from eval.scoring.results import RESULT_FILES, compute_metrics, describe_metrics, describe_results, write_results
from eval.scoring.submission import describe_empty, record_ids
from smolrgpt_jax import distributed
from smolrgpt_jax.data.images import DEPTH_MODES
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, BadRecords, Picture, Question, describe
from smolrgpt_jax.data.sources.warehouse import read_warehouse
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json, results_folder, write_json

if TYPE_CHECKING:
    from smolrgpt_jax.generation import AnswerOptions
    from smolrgpt_jax.model import Model

FINGERPRINT = "checkpoint fingerprint"
RESULT_NAMES = (*RESULT_FILES, "report.html", "answers.json")
# What a model says of one question: its text, or a dict of "answer", the text, and where they are there "closing", the value
# that it wrote behind it, and "cut_off", True for a text that the longest length cut.
Answered = str | Mapping[str, str | bool | None]
Answerer = Callable[[Sequence[Picture]], Sequence[Answered]]


def answer_questions(
    model: Model, pictures: Sequence[Picture], options: AnswerOptions, journal: Path | None = None
) -> list[Answered]:
    """Asks a model all questions; returns its texts in their order, "" for those it could not be asked.

    {"answer", "cut_off"} stands for a text that the longest length cut, and {"answer", "closing"} for every one where
    ``options.closing`` asks for values. ``journal``: file in which finished answers are kept, for a call that goes on from them.
    """
    from eval.answering.journal import open_journal
    from smolrgpt_jax.generation import GeneratedAnswer, generate_answers

    kept = None if journal is None else open_journal(journal, model, pictures, options)
    found = generate_answers(model, pictures, options, kept)
    answers: list[Answered] = []
    for question in (question for picture in pictures for question in picture.questions):
        given = found.get(question.id, GeneratedAnswer(""))
        said: dict[str, str | bool | None] = {"answer": given.text}
        if options.closing is not None:
            said["closing"] = None if given.value is None else str(given.value)
        if given.cut_off:
            said["cut_off"] = True
        answers.append(said if len(said) > 1 else given.text)
    return answers


def asked_category(question: Question) -> str:
    """The category of a question, by its wording where the record does not tell."""
    return question.category or question_category(question.prompt) or ""


def described(answer: Answered) -> Mapping[str, str | bool | None]:
    """What is said of one question, as a dict."""
    return {"answer": answer} if isinstance(answer, str) else answer


def with_further(answers: Sequence[Answered], further: Sequence[Sequence[dict]]) -> list[Answered]:
    """The answers, each with the further ones to the same question, see ``eval.answering.vote.further_answers``."""
    return [{**described(answer), "further": list(more)} for answer, more in zip(answers, further, strict=True)]


def list_answers(pictures: Sequence[Picture], answers: Sequence[Answered]) -> list[dict]:
    """Returns one dict per question: id, image, category, question, answer, closing, cut_off and further (where they are given), truth."""
    asked = [(picture, question) for picture in pictures for question in picture.questions]
    return [
        {
            "id": question.id,
            "image": picture.image.name,
            "category": question.category,
            "question": question.prompt,
            **described(answer),
            "truth": question.normalized_answer,
        }
        for (picture, question), answer in zip(asked, answers, strict=True)
    ]


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
    methods: Mapping[str, Method] = RULES,
    ids: Sequence[str] | None = None,
    left_out: Sequence[Mapping] = (),
    blind: BlindBaseline | None = None,
    loss_curves: Mapping[str, str | Path] | None = None,
    run_info: Mapping[str, Any] | None = None,
) -> dict | None:
    """Answers, scores and writes the files that the module's docstring names.

    Args:
      pictures: with the questions to ask, at least one.
      answerer: pictures -> what is answered to each question, in their order.
      out: folder of the results; those of an earlier run are replaced once all are complete.
      methods: ways of reading values off the answers, see ``eval.reading.methods``; the first one scores.
      ids: all ids that the submission must hold, in its order; None for those of the questions.
      left_out: items of questions that are not asked and count as wrong, see ``eval.answering.left_out``.
      blind: the baseline to score beside the answers.
      loss_curves, run_info: see ``eval.report.html.write_report``.

    Returns:
      The metrics, or None (and neither metrics.json nor report.html) if no question has a
      published answer.

    Raises:
      DataError: only some questions have a published answer (nothing was asked then), or a method
        fails; then ``out`` holds answers.json, which ``eval.normalize`` reads.
    """
    truths = [question.normalized_answer for picture in pictures for question in picture.questions]
    if None in truths and any(truth is not None for truth in truths):
        raise DataError(f"{truths.count(None)} of {len(truths)} questions have no published answer to score against")
    answers = [*list_answers(pictures, answerer(pictures)), *left_out]
    try:
        predictions = read_values(answers, methods)
    except BaseException as error:
        with results_folder(out) as aside:
            write_json(aside / "answers.json", answers)
        if isinstance(error, ValueError):
            raise DataError(f"{error}; the answers are in {out}/answers.json, which eval.normalize reads") from error
        raise
    metrics = None
    if any(item["truth"] is not None for item in predictions):
        metrics = compute_metrics(predictions, blind, methods)
        if run_info and FINGERPRINT in run_info:
            metrics["checkpoint_fingerprint"] = run_info[FINGERPRINT]
    with results_folder(out, RESULT_NAMES) as aside:
        write_results(aside, predictions, ids, metrics)
        if metrics is not None:
            write_report(aside / "report.html", metrics, predictions, pictures, loss_curves, run_info)
    return metrics


def run_details(model: Model, module: str = "eval.warehouse", **details: Any) -> dict[str, Any]:
    """What the report says of a run: the command, the details, the parameters' fingerprint, and the configuration.

    A checkpoint of our training also tells the stage's run configuration and seed. The fingerprint is the same for the same
    numbers, whatever folder or format they come from and whatever devices they lie on.
    """
    from eval.answering.journal import params_fingerprint

    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    config = {"model": model.config.to_dict(), "compute": dataclasses.asdict(model.compute)}
    if model.run is not None:
        config["training"] = model.run
        details["seed"] = config["training"].get("run", {}).get("seed")
    return {"command": command, **details, FINGERPRINT: params_fingerprint(model.params), "config": config}


def _answerer(
    model: Model, records: Sequence, args: argparse.Namespace, ballots: Ballots | None, bad: BadRecords
) -> Answerer:
    """What asks the model, with the command line's preprocessing; several times over where answers are voted on."""

    def ask(pictures: Sequence[Picture]) -> Sequence[Answered]:
        asked = model
        if args.preprocessing == "submission":
            from eval.answering.submission_prompts import SubmissionTokenizer, with_newlines

            asked = dataclasses.replace(model, tokenizer=SubmissionTokenizer.of(model.tokenizer))
            pictures = with_newlines(pictures, records)
        from smolrgpt_jax.generation import AnswerOptions

        options = AnswerOptions(
            args.batch_size,
            answer_length(model, args.max_new_tokens),
            depth_mode=args.preprocessing,
            closing=args.closing if "closing" in args.answers else None,
            category_of=asked_category,
            on_bad_record=bad,
        )
        answers = answer_questions(asked, pictures, options, journal=journal_path(args.out))
        if ballots is None:
            return answers
        return with_further(answers, further_answers(asked, pictures, ballots, options, out=args.out))

    return ask


def _named_file(text: str) -> tuple[str, str]:
    name, mark, file = text.partition("=")
    if not (name and mark and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FILE")
    return name, file


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="checkpoint of ours, training folder or PyTorch folder"
    )
    parser.add_argument("--data", required=True, type=Path, help="folder in the published layout")
    parser.add_argument("--split", default="val", help="train, val or test")
    parser.add_argument("--annotations", help="file under --data with the questions, by default SPLIT.json")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--batch_size", type=positive, default=64, help="questions answered at once")
    add_answer_length(parser)
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the model's products")
    parser.add_argument("--limit", type=positive, help="only the first LIMIT questions")
    parser.add_argument(
        "--preprocessing",
        choices=DEPTH_MODES,
        default=DEPTH_MODES[0],
        help="training: depth and prompts as in training; submission: as the published challenge submission made "
        "them at test time (default %(default)s)",
    )
    add_method_arguments(parser)
    parser.add_argument(
        "--closing",
        choices=("after_text", "alone"),
        default="after_text",
        help="closing: the value is decoded after the free text, or alone in its place (default %(default)s)",
    )
    parser.add_argument(
        "--loss_curves",
        type=_named_file,
        nargs="*",
        default=[],
        metavar="STAGE=CSV",
        help="training curves to show in the report",
    )
    vote = parser.add_argument_group("--answers vote")
    vote.add_argument("--vote_answers", type=int, default=Ballots.number, help="to each question (default %(default)s)")
    vote.add_argument(
        "--vote_temperature",
        type=float,
        default=Ballots.temperature,
        help="of answers where a question's masks have no more orders (default %(default)s)",
    )
    vote.add_argument("--vote_seed", type=int, default=Ballots.seed, help="of orders and draws (default %(default)s)")
    vote.add_argument(
        "--vote_categories",
        nargs="+",
        choices=WAREHOUSE_CATEGORIES,
        default=list(Ballots.categories),
        help="of the questions that are asked several times (default: all)",
    )
    args = parser.parse_args(arguments)

    try:
        distributed.start()
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    annotations = args.annotations or f"{args.split}.json"
    print(f"answering {args.data / annotations} with {args.checkpoint}, writing to {args.out}")
    if args.out.exists() and not args.out.is_dir():
        raise SystemExit(f"error: {args.out} exists and is not a folder")
    bad = BadRecords("report")
    try:
        for _, file in args.loss_curves:
            if not Path(file).is_file():
                raise DataError(f"{file}: no such file, though --loss_curves names it")
        pictures = read_warehouse(args.data, args.split, annotations=annotations, on_bad_record=bad)
        records = read_json(args.data / annotations, list)
        if args.limit is not None:
            pictures = limit_questions(pictures, args.limit)
        if not pictures:
            raise DataError(f"{args.data / annotations}: holds no usable question; {bad.summary(1)}")
        print(describe(pictures))
        training = args.data / "train.json"
        blind = BlindBaseline(read_training_questions(training)) if training.is_file() else None
        methods = build_methods(args)
        ballots = None
        if "vote" in methods:
            ballots = Ballots(args.vote_answers, args.vote_temperature, args.vote_seed, tuple(args.vote_categories))
        with distributed.end_on_error():
            model = load_model(args.checkpoint, args.dtype)
            ask = _answerer(model, records, args, ballots, bad)
            # On every process, since Orbax reads on all of them together.
            details = run_details(
                model,
                checkpoint=args.checkpoint,
                data=args.data / annotations,
                preprocessing=args.preprocessing,
                answers_read_by=", ".join(methods),
                **({} if ballots is None else {"vote": str(ballots)}),
            )
            if not is_first_process():
                ask(pictures)
                return
            metrics = evaluate(
                pictures,
                ask,
                args.out,
                methods=methods,
                ids=record_ids(records) if args.limit is None else None,
                left_out=left_out_answers(records, pictures) if args.limit is None else (),
                blind=blind,
                loss_curves=dict(args.loss_curves),
                run_info=details,
            )
            remove_journal(args.out)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    if bad.reasons:
        print(bad.summary())
    if metrics is None:
        predictions = read_json(args.out / "predictions.json", list)
        print(describe_results(predictions, None))
        if empty := describe_empty(args.out / "submission.json"):
            print(empty)
        print(f"wrote {args.out}/predictions.json and {args.out}/submission.json")
    else:
        print(describe_metrics(metrics))
        if empty := describe_empty(args.out / "submission.json"):
            print(empty)
        print(f"report: {args.out}/report.html")


if __name__ == "__main__":
    main()
