"""Serves a checkpoint to clients of OpenAI's API."""

import os
from collections.abc import Sequence

from eval.answering.confidences import Confidences
from eval.assist.estimated_depth import DepthModel
from eval.assist.segmented import Segmenter
from eval.command_line import command_line, is_loopback, listen
from smolrgpt_jax.errors import CheckpointError, RunError, told

KEY_VARIABLE = "SMOLRGPT_API_KEY"


@told("stopped")
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.serve", __doc__).parse_args(arguments)
    key = args.api_key or os.environ.get(KEY_VARIABLE) or None
    print(f"serving {args.checkpoint}", flush=True)
    if key and not (key.isascii() and key.isprintable()):
        raise RunError("the API key holds a character that no key has, expected printable ASCII alone")
    if not (key or args.no_key or is_loopback(args.host)):
        how = f"give a key in {KEY_VARIABLE}, or --no_key"
        raise RunError(f"{args.host} is reached by other machines, and anyone there could ask: {how}")
    confidences = Confidences.read(args.confidence) if args.confidence else None
    try:
        # Imported late: --help should not wait for it, and it is optional.
        from eval.serving.endpoints import Limits, make_app
        from eval.serving.stopping import Server
    except ModuleNotFoundError as error:
        how = "in the project's root: pip install -e '.[serve]'"
        raise RunError(f"the server needs an extra ({error.name} is missing), install it {how}") from None
    from eval.serving.worker import KeptPictures, Worker
    from smolrgpt_jax import load
    from smolrgpt_jax.checkpoint.fingerprint import params_fingerprint
    from smolrgpt_jax.generation.online import OnlineEngine

    # Before the checkpoint, which is the largest: these say what is not installed.
    depth_model = DepthModel(args.depth_model) if args.depth_model else None
    segmenter = Segmenter(args.segmenter) if args.segmenter else None
    model = load(args.checkpoint, compute_dtype=args.dtype)
    if model.tokenizer is None:
        raise CheckpointError(f"{args.checkpoint} brings no tokenizer, answers cannot be read")
    confidences = confidences and confidences.of(model)
    listening, address = listen(args.host, args.port)
    sizes = {"question_tokens": args.question_tokens, "regions": args.regions}
    engine = OnlineEngine(model, args.batch_size, answer_tokens=args.max_new_tokens or model.answer_tokens, **sizes)
    print("compiling", flush=True)
    engine.warm_up(likelihoods=confidences is not None)
    worker = Worker(engine, KeptPictures(args.pictures_mib * 2**20, args.pictures_seconds), args.queue)
    limits = Limits(args.body_mib * 2**20, args.timeout, args.batch_size + args.queue)
    name = args.name or args.checkpoint.resolve().name
    app = make_app(worker, name, params_fingerprint(model.params), limits, key, depth_model, segmenter, confidences)
    Server(app, worker, args.grace).answer(listening, f"model {name!r} at {address}/v1 (stop with Ctrl-C)")


if __name__ == "__main__":
    main()
