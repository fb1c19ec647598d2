"""Answers SpatialRGPT-Bench, scores the answers and writes a report."""

import argparse
import functools
from collections.abc import Sequence

from eval.answering import asking
from eval.answering.answerers import check_answerer, elsewhere, is_elsewhere
from eval.answering.bench import evaluate, known_questions
from eval.command_line import command_line
from eval.scoring.bench_scores import describe_bench
from smolrgpt_jax import distributed
from smolrgpt_jax.data.records import BadRecords, describe, spread_questions
from smolrgpt_jax.data.sources.formats import read_bench
from smolrgpt_jax.errors import DataError, told


def _loaded(args: argparse.Namespace, bad: BadRecords) -> tuple[asking.Answerer, dict]:
    """What the checkpoint answers, and what the report says of it."""
    model = asking.load_model(args.checkpoint, args.dtype)
    from smolrgpt_jax.generation.engine import AnswerOptions

    options = AnswerOptions(args.batch_size, args.max_new_tokens or model.answer_tokens, on_bad_record=bad)
    data = args.data / args.annotations
    about = asking.run_details(model, "eval.spatialrgpt_bench", checkpoint=args.checkpoint, data=data)
    return functools.partial(asking.answer_questions, model, options=options, out=args.out), about


@told(asking.INTERRUPTED)
def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line("eval.spatialrgpt_bench", __doc__)
    args = parser.parse_args(arguments)
    asked_model = check_answerer(parser, args)
    distributed.start()
    file = args.data / args.annotations
    print(f"answering {file} with {asked_model}, writing to {args.out}")
    bad = BadRecords("report")
    pictures = known_questions(read_bench(args.data, args.annotations, on_bad_record=bad), bad)
    pictures = spread_questions(pictures, args.limit)
    if not pictures:
        raise DataError(f"{file}: holds no usable question; {bad.summary(1)}")
    print(describe(pictures))
    with distributed.end_on_error():
        if is_elsewhere(args):
            ask, about = elsewhere(args, "eval.spatialrgpt_bench", bad, data=file)
        else:
            ask, about = _loaded(args, bad)
        metrics = evaluate(pictures, ask, args.out, about)
        asking.remove_journal(args.out)
    if not asking.is_first_process():
        return
    if bad.reasons:
        print(bad.summary())
    print(describe_bench(metrics))
    print(f"report: {args.out}/report.html")


if __name__ == "__main__":
    main()
