"""Answers SpatialRGPT-Bench, scores the answers and writes a report."""

import functools
from collections.abc import Sequence

from eval.answering import asking
from eval.answering.bench import evaluate, known_questions
from eval.command_line import command_line
from eval.scoring.bench_scores import describe_bench
from smolrgpt_jax import distributed
from smolrgpt_jax.data.records import BadRecords, describe, spread_questions
from smolrgpt_jax.data.sources.formats import read_bench
from smolrgpt_jax.errors import DataError, told


@told(asking.INTERRUPTED)
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.spatialrgpt_bench", __doc__).parse_args(arguments)
    distributed.start()
    file = args.data / args.annotations
    print(f"answering {file} with {args.checkpoint}, writing to {args.out}")
    bad = BadRecords("report")
    pictures = known_questions(read_bench(args.data, args.annotations, on_bad_record=bad), bad)
    pictures = spread_questions(pictures, args.limit)
    if not pictures:
        raise DataError(f"{file}: holds no usable question; {bad.summary(1)}")
    print(describe(pictures))
    with distributed.end_on_error():
        model = asking.load_model(args.checkpoint, args.dtype)
        from smolrgpt_jax.generation.engine import AnswerOptions

        options = AnswerOptions(args.batch_size, args.max_new_tokens or model.answer_tokens, on_bad_record=bad)
        about = asking.run_details(model, "eval.spatialrgpt_bench", checkpoint=args.checkpoint, data=file)
        ask = functools.partial(asking.answer_questions, model, options=options, out=args.out)
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
