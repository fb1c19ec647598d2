"""A local web page on which people mark regions in a picture and ask a model about them."""

from collections.abc import Sequence
from pathlib import Path

from eval.answering.confidences import Confidences
from eval.assist.estimated_depth import DepthModel
from eval.command_line import command_line, listen
from smolrgpt_jax.data.records import BadRecords, Picture, describe
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import CheckpointError, DataError, RunError, told


def read_examples(data: Path, split: str) -> list[Picture]:
    """The pictures of a split, those with bad records left out; raises DataError if there is none."""
    bad = BadRecords("report")
    pictures = read_warehouse(data, split, on_bad_record=bad)
    if not pictures:
        raise DataError(f"{data / split}.json: holds no usable question; {bad.summary(1)}")
    print(f"examples: {describe(pictures)}" + (f"; {bad.summary()}" if bad.reasons else ""))
    return pictures


@told("stopped")
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.page", __doc__).parse_args(arguments)
    examples = f", examples of {args.data}" if args.data else ""
    second = f" and {args.second}" if args.second else ""
    print(f"serving a page that asks {args.checkpoint}{second}{examples}", flush=True)
    confidences = Confidences.read(args.confidence) if args.confidence else None
    try:
        # Imported late: --help should not wait for it, and it is optional.
        from eval.page.app import serve
        from eval.page.question_panel import Answerer
    except ModuleNotFoundError as error:
        how = "in the project's root: pip install -e '.[demo]'"
        raise RunError(f"the page needs NiceGUI ({error.name} is missing), install it {how}") from None
    from smolrgpt_jax import load

    examples = read_examples(args.data, args.split) if args.data else []
    # Before the checkpoints, which are larger: it says what is not installed.
    depth_model = DepthModel(args.depth_model) if args.depth_model else None
    answerers = []
    for checkpoint in filter(None, (args.checkpoint, args.second)):
        model = load(checkpoint, compute_dtype=args.dtype)
        if model.tokenizer is None:
            raise CheckpointError(f"{checkpoint} brings no tokenizer, answers cannot be read")
        longest = args.max_new_tokens or model.answer_tokens
        # The second model has confidences of its own, which another file would hold.
        sure = confidences.of(model) if confidences and not answerers else None
        answerers.append(Answerer(str(checkpoint), checkpoint.resolve().name, model, longest, sure))
    listening, address = listen(args.host, args.port)
    print(f"page: {address}/ (stop with Ctrl-C)", flush=True)
    serve(listening, answerers, examples, depth_model)


if __name__ == "__main__":
    main()
