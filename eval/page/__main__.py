"""A local web page on which people mark regions in a picture and ask a model about them."""

import socket
from collections.abc import Sequence
from pathlib import Path

from eval.command_line import command_line
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


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at the address, port 0 taking any free one; raises RunError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise RunError(f"{host}:{port} cannot be used for the page ({error})") from error


@told("stopped")
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.page", __doc__).parse_args(arguments)
    examples = f", examples of {args.data}" if args.data else ""
    print(f"serving a page that asks {args.checkpoint}{examples}", flush=True)
    try:
        # Imported late: --help should not wait for it, and it is optional.
        from eval.page.app import serve
    except ModuleNotFoundError as error:
        how = "in the project's root: pip install '.[demo]'"
        raise RunError(f"the page needs NiceGUI ({error.name} is missing), install it {how}") from None
    examples = read_examples(args.data, args.split) if args.data else []
    from smolrgpt_jax import load

    model = load(args.checkpoint, compute_dtype=args.dtype)
    if model.tokenizer is None:
        raise CheckpointError(f"{args.checkpoint} brings no tokenizer, answers cannot be read")
    listening = listen(args.host, args.port)
    host, port = listening.getsockname()[:2]
    print(f"page: http://{f'[{host}]' if ':' in host else host}:{port}/ (stop with Ctrl-C)", flush=True)
    serve(listening, model, str(args.checkpoint), examples, args.max_new_tokens or model.answer_tokens)


if __name__ == "__main__":
    main()
