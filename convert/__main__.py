"""Moves checkpoints between the PyTorch release and JAX, and looks into them; `smolrgpt convert WHAT --help` tells the options."""

import argparse
import re
import tomllib
from pathlib import Path

from eval.command_line import command_line
from smolrgpt_jax.errors import told

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
SHOWN = 5  # differences named in the last line of verify; its table shows where the others are
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def size_in_bytes(text: str) -> int:
    """ "500MB" or "2GiB" -> bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    if match is None or match[2].upper() not in UNITS or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 500MB or 2GiB")
    return max(1, int(float(match[1]) * UNITS[match[2].upper()]))


def dtype_name(text: str) -> str:
    """A dtype's usual name, or safetensors' own (F32, F16, BF16) -> safetensors' own."""
    if text.upper() in DTYPES.values():
        return text.upper()
    if text not in DTYPES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(DTYPES)}")
    return DTYPES[text]


def make_parser() -> argparse.ArgumentParser:
    parser = command_line("convert", __doc__)
    commands = parser.add_subparsers(required=True)
    runs = {"torch-to-jax": to_jax, "jax-to-torch": to_torch, "gguf": gguf, "backbones": backbones}
    runs |= {"fresh": fresh, "verify": verify}
    for name, verb in tomllib.loads(Path(__file__).with_name("options.toml").read_text(encoding="utf-8")).items():
        added = commands.add_parser(name, help=verb["help"])
        added.set_defaults(run=runs.get(name, inspect))
        added.register("type", "dtype", dtype_name)
        added.register("type", "size", size_in_bytes)
        for path in verb["paths"]:
            added.add_argument(path, type=Path)
        for option, how in verb.get("options", {}).items():
            added.add_argument(option, **how)
    return parser


# The commands; they import what they need, so that --help answers at once.


def to_jax(a: argparse.Namespace) -> None:
    from convert.folders import torch_to_jax

    print(f"converting {a.source} to {a.destination}", flush=True)
    done = torch_to_jax(a.source, a.destination, tokenizer=a.tokenizer, allow_nan=a.allow_nan)
    print(f"{done['tensors']} tensors, {done['parameters']:,} parameters (vocabulary padding included)")


def to_torch(a: argparse.Namespace) -> None:
    from convert.folders import jax_to_torch

    print(f"converting {a.source} to {a.destination}", flush=True)
    limits = {"dtype": a.dtype, "max_shard_bytes": a.max_shard_size, "allow_nan": a.allow_nan}
    done = jax_to_torch(a.source, a.destination, **limits)
    print(f"{done['tensors']} tensors in {done['files']} file{'s' if done['files'] > 1 else ''}")


def gguf(a: argparse.Namespace) -> None:
    from convert.gguf_llama import gguf_to_llama

    print(f"converting {a.source} to {a.destination}", flush=True)
    done = gguf_to_llama(a.source, a.destination, a.dtype)
    print(f"{done['tensors']} tensors, {done['parameters']:,} parameters, {done['tokens']:,} tokens")


def backbones(a: argparse.Namespace) -> None:
    from convert.folders import build
    from convert.gguf_llama import as_folder
    from convert.inspection import describe

    print(f"joining {a.vision} and {a.language} into {a.destination}, seed {a.seed}", flush=True)
    with as_folder(a.language) as language:
        build(a.vision, language, a.destination, tokenizer=a.tokenizer, seed=a.seed)
    print(describe(a.destination))


def fresh(a: argparse.Namespace) -> None:
    from smolrgpt_jax.checkpoint.load import BETWEEN, write_start

    parts = a.parts or BETWEEN
    print(f"drawing {', '.join(parts)} of {a.source} anew, seed {a.seed}", flush=True)
    write_start(a.source, a.destination, parts, a.seed)
    print(f"written to {a.destination}")


def inspect(a: argparse.Namespace) -> None:
    from convert.inspection import describe

    print(describe(a.path))


def verify(a: argparse.Namespace) -> None:
    """Prints the comparison; raises ValueError with all differences if there are any."""
    from convert.inspection import compare_outputs, compare_tensors

    print(f"comparing {a.torch_folder} with {a.checkpoint}", flush=True)
    found = compare_tensors(a.torch_folder, a.checkpoint)
    print(found.table())
    problems = list(found.problems)
    compared = "outputs were not compared (--outputs does)"
    if a.outputs and not problems:
        try:
            text, problems = compare_outputs(a.torch_folder, a.checkpoint)
            compared = "the outputs agree"
            print(f"\n{text}")
        except ImportError:
            missing = "the outputs cannot be compared: PyTorch is not installed"
            raise ValueError(f"every tensor is equal, but {missing}") from None
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ValueError(f"the checkpoints differ: {'; '.join(problems[:SHOWN])}{more}")
    print(f"every tensor is equal; {compared}")


@told()
def main() -> None:
    arguments = make_parser().parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
