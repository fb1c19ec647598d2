"""Exports a checkpoint as programs that run without this library: on a CPU, an NVIDIA GPU or a TPU, or by ONNX Runtime."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from eval.command_line import command_line
from smolrgpt_jax.errors import told

# Options of one runtime alone.
OF_JAX, OF_ONNX = ("platforms", "batch", "regions", "dtype"), ("quant",)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line("launch.export", __doc__)
    args = parser.parse_args(arguments)
    onnx = args.runtime == "onnx"
    others = OF_JAX if onnx else OF_ONNX
    if given := [name for name in others if getattr(args, name) != parser.get_default(name)]:
        raise ValueError(f"--{given[0]} has no meaning for --runtime {args.runtime}")
    form = f"ONNX{f' in {args.quant}' if args.quant else ''}" if onnx else args.platforms
    print(f"exporting {args.checkpoint} for {form} into {args.out}", flush=True)
    if args.out.exists():
        raise ValueError(f"{args.out} exists already; nothing was written")
    # Imported late: neither --help nor a mistyped path should wait for JAX.
    if onnx:
        from smolrgpt_jax.export.onnx_graph import onnx_package

        onnx_package()
    from smolrgpt_jax.checkpoint.load import read_checkpoint
    from smolrgpt_jax.data.chat import ChatTokenizer

    model = read_checkpoint(args.checkpoint)
    if args.tokenizer is not None:
        model = dataclasses.replace(model, tokenizer=ChatTokenizer.load(args.tokenizer))
    elif model.tokenizer is None:
        raise ValueError(f"{args.checkpoint} brings no tokenizer, give the folder of one with --tokenizer")
    new_tokens = model.answer_tokens if args.new_tokens is None else args.new_tokens
    lengths = {
        "prompt_tokens": model.config.max_length if args.prompt_tokens is None else args.prompt_tokens,
        "new_tokens": new_tokens,
    }
    as_typed = {name: getattr(args, name) for name in (OF_ONNX if onnx else OF_JAX)}
    how: dict[str, Any] = {"on_program": lambda name: print(f"  {name}", flush=True)}
    if onnx:
        from smolrgpt_jax.export import onnx_folder

        onnx_folder.write_onnx_export(model, args.out, onnx_folder.OnnxSettings(**lengths, **as_typed), **how)
    else:
        from smolrgpt_jax.export import folder
        from smolrgpt_jax.export.programs import ExportSettings

        as_typed["platforms"] = tuple(filter(None, args.platforms.split(",")))
        folder.write_export(model, args.out, ExportSettings(**lengths, **as_typed), **how)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"wrote {args.out}: {size / 1e6:.1f} MB, prompts of up to {lengths['prompt_tokens']} tokens")


if __name__ == "__main__":
    main()
