"""Exports a checkpoint as programs that run without this library: on a CPU, an NVIDIA GPU or a TPU."""

import dataclasses
from collections.abc import Sequence

from eval.command_line import command_line
from smolrgpt_jax.errors import told


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("launch.export", __doc__).parse_args(arguments)
    print(f"exporting {args.checkpoint} for {args.platforms} into {args.out}", flush=True)
    if args.out.exists():
        raise ValueError(f"{args.out} exists already; nothing was written")
    # Imported late: neither --help nor a mistyped path should wait for JAX.
    from smolrgpt_jax.checkpoint.load import read_checkpoint
    from smolrgpt_jax.data.chat import ChatTokenizer
    from smolrgpt_jax.export.folder import write_export
    from smolrgpt_jax.export.programs import ExportSettings

    model = read_checkpoint(args.checkpoint)
    if args.tokenizer is not None:
        model = dataclasses.replace(model, tokenizer=ChatTokenizer.load(args.tokenizer))
    elif model.tokenizer is None:
        raise ValueError(f"{args.checkpoint} brings no tokenizer, give the folder of one with --tokenizer")
    as_typed = {name: getattr(args, name) for name in ("batch", "regions", "dtype")}
    new_tokens = model.answer_tokens if args.new_tokens is None else args.new_tokens
    lengths = {"prompt_tokens": args.prompt_tokens or model.config.max_length, "new_tokens": new_tokens}
    settings = ExportSettings(platforms=tuple(filter(None, args.platforms.split(","))), **as_typed, **lengths)
    write_export(model, args.out, settings, on_program=lambda name: print(f"  {name}", flush=True))
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"wrote {args.out}: {size / 1e6:.1f} MB, prompts of up to {settings.prompt_tokens} tokens")


if __name__ == "__main__":
    main()
