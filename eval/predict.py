"""Answers one question about one picture and draws the regions it speaks of."""

import json
import sys
from collections.abc import Sequence

import numpy as np

from eval.answering.confidences import Confidences
from eval.answering.one_picture import answer
from eval.assist.estimated_depth import DepthModel, model_named
from eval.assist.segmented import Segmenter, read_clicks
from eval.assist.tightened import tighten
from eval.command_line import command_line
from eval.report.overlay import draw_regions
from eval.scoring.confidence import described, in_words
from smolrgpt_jax.data.images import picture_size
from smolrgpt_jax.data.regions import parse_arguments, what_is_asked
from smolrgpt_jax.data.workings import answer_lines, split_workings
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import file_aside


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_arguments(command_line("eval.predict", __doc__), arguments)

    about = sys.stderr if args.json else sys.stdout
    writing = f", writing {args.out}" if args.out else ""
    print(f"asking {args.checkpoint} about {args.image}{writing}", file=about)
    confidence = Confidences.read(args.confidence) if args.confidence else None
    if estimator := model_named(args.depth):
        args.depth = args.image  # of which an estimate has the shape
    if args.tighten and not args.boxes:
        raise DataError("--tighten makes masks of boxes, give some with --boxes")
    clicks = read_clicks([click.strip().split(",") for click in args.click], picture_size(args.image))
    if clicks and (args.boxes or args.masks):
        raise DataError("--click marks the regions, as --masks and --boxes do: give one of them")
    if clicks:  # a pixel each, until there are masks
        args.boxes = [f"{x},{y},{x + 1},{y + 1}" for x, y in np.array(clicks, int).tolist()]
    question, regions = what_is_asked(args)
    if clicks or args.tighten == "sam":
        print(f"the masks are those of {args.segmenter}", file=about)
        regions = Segmenter(args.segmenter).segment(args.image, clicks, () if clicks else regions)
    elif args.tighten:
        regions = tighten(args.image, regions)
    if estimator and regions:
        print(f"the depth is an estimate of {estimator}", file=about)
        args.depth = DepthModel(estimator).estimate(args.image)
    # Imported late: neither --help nor a mistyped path should wait for JAX.
    from smolrgpt_jax import load

    model = load(args.checkpoint, compute_dtype=args.dtype)
    how = {"depth": args.depth, "masks": regions, "max_new_tokens": args.max_new_tokens}
    if confidence:
        how["confidence"] = confidence.of(model)
    found = answer(model, args.image, question, **how)
    if seen := model.tokenizer.format.trained_on:
        print(f"{args.checkpoint}: {seen}", file=about)
    if args.out:
        with file_aside(args.out) as aside:
            draw_regions(args.image, regions).save(aside)
    if args.json:
        said = dict(zip(("answer", "workings"), split_workings(found.text)))
        read = {name: getattr(found, name) for name in ("category", "normalized_answer", "cut_off", "notice")}
        if confidence:
            word = None if found.confidence is None else in_words(found.confidence)
            read |= {"confidence": found.confidence, "confidence_word": word}
        print(json.dumps({"question": question, **said, **read}))
        return
    print(f"question: {question}\nanswer: {answer_lines(found.text)}")
    if found.category is not None:
        value = "unreadable" if found.normalized_answer is None else found.normalized_answer
        print(f"{found.category}: {value}")
    if confidence:
        print(f"confidence: {'unknown' if found.confidence is None else described(found.confidence)}")
    if found.cut_off:
        print("the answer was cut off at the longest length (--max_new_tokens)")
    if found.notice:
        print(f"notice: {found.notice}")


if __name__ == "__main__":
    main()
