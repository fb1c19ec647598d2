"""Moves checkpoints between the PyTorch release and JAX, and looks into them.

python -m convert torch-to-jax SRC DST [--tokenizer FOLDER_OR_HUB_ID]
python -m convert jax-to-torch SRC DST [--dtype float32|float16|bfloat16] [--max_shard_size 500MB]
python -m convert backbones --vision FOLDER_OR_HUB_ID --language FOLDER_OR_HUB_ID DST [--tokenizer ...] [--seed 0]
python -m convert fresh SRC DST [--parts PART ...] [--seed 0]
python -m convert verify TORCH JAX [--outputs]
python -m convert inspect PATH
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from pathlib import Path

from smolrgpt_jax.errors import CheckpointError, DataError

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
    parser = argparse.ArgumentParser(
        prog="python -m convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    to_jax = commands.add_parser(
        "torch-to-jax", help="PyTorch folder (config.json, model.safetensors) to a checkpoint of ours"
    )
    to_jax.add_argument("source", type=Path)
    to_jax.add_argument("destination", type=Path)
    to_jax.add_argument("--tokenizer", help="folder or hub id of the tokenizer to bring along")
    to_jax.add_argument("--allow_nan", action="store_true", help="accept NaN and infinite weights")
    to_torch = commands.add_parser(
        "jax-to-torch", help="checkpoint of ours (or a training work directory) to a PyTorch folder"
    )
    to_torch.add_argument("source", type=Path)
    to_torch.add_argument("destination", type=Path)
    to_torch.add_argument(
        "--dtype",
        type=dtype_name,
        metavar="|".join(DTYPES),
        help="dtype of all parameters; default: as imported, else float32",
    )
    to_torch.add_argument(
        "--max_shard_size",
        type=size_in_bytes,
        metavar="SIZE",
        help="write files of at most this size (500MB, 2GiB) and an index; default: as imported, else one file",
    )
    to_torch.add_argument("--allow_nan", action="store_true", help="accept NaN and infinite weights")
    backbones = commands.add_parser(
        "backbones", help="Hugging Face SigLIP and Llama (SmolLM2) folders to a checkpoint of ours to train from"
    )
    backbones.add_argument("--vision", required=True, metavar="FOLDER_OR_HUB_ID")
    backbones.add_argument("--language", required=True, metavar="FOLDER_OR_HUB_ID")
    backbones.add_argument("destination", type=Path)
    backbones.add_argument(
        "--tokenizer", metavar="FOLDER_OR_HUB_ID", help="default: the language folder's, if it holds one"
    )
    backbones.add_argument("--seed", type=int, default=0, help="of connectors, refiners and the extra tokens' rows")
    fresh = commands.add_parser(
        "fresh", help="any checkpoint to one of ours in which parts of the model are drawn anew"
    )
    fresh.add_argument("source", type=Path)
    fresh.add_argument("destination", type=Path)
    fresh.add_argument("--parts", nargs="+", metavar="PART", help="default: all connectors and refiners")
    fresh.add_argument("--seed", type=int, default=0, help="of what is drawn (default %(default)s)")
    check = commands.add_parser("verify", help="compare every tensor of a PyTorch folder with a checkpoint of ours")
    check.add_argument("torch_folder", type=Path)
    check.add_argument("checkpoint", type=Path)
    check.add_argument("--outputs", action="store_true", help="compare both models' outputs too; needs PyTorch")
    inspect = commands.add_parser("inspect", help="say what a checkpoint is, without reading its weights")
    inspect.add_argument("path", type=Path)
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Runs one command; raises CheckpointError, DataError or SystemExit with one sentence."""
    # Imported here, so that --help answers at once.
    if arguments.command == "torch-to-jax":
        from convert.folders import torch_to_jax

        print(f"converting {arguments.source} to {arguments.destination}", flush=True)
        done = torch_to_jax(
            arguments.source, arguments.destination, tokenizer=arguments.tokenizer, allow_nan=arguments.allow_nan
        )
        print(f"{done['tensors']} tensors, {done['parameters']:,} parameters (vocabulary padding included)")
    elif arguments.command == "jax-to-torch":
        from convert.folders import jax_to_torch

        print(f"converting {arguments.source} to {arguments.destination}", flush=True)
        done = jax_to_torch(
            arguments.source,
            arguments.destination,
            dtype=arguments.dtype,
            max_shard_bytes=arguments.max_shard_size,
            allow_nan=arguments.allow_nan,
        )
        print(f"{done['tensors']} tensors in {done['files']} file{'s' if done['files'] > 1 else ''}")
    elif arguments.command == "backbones":
        from convert.backbones import build
        from convert.inspection import describe

        print(
            f"joining {arguments.vision} and {arguments.language} into {arguments.destination}, seed {arguments.seed}",
            flush=True,
        )
        build(
            arguments.vision,
            arguments.language,
            arguments.destination,
            tokenizer=arguments.tokenizer,
            seed=arguments.seed,
        )
        print(describe(arguments.destination))
    elif arguments.command == "fresh":
        from smolrgpt_jax.checkpoint.fresh import BETWEEN, write_start

        parts = arguments.parts or BETWEEN
        print(f"drawing {', '.join(parts)} of {arguments.source} anew, seed {arguments.seed}", flush=True)
        write_start(arguments.source, arguments.destination, parts, arguments.seed)
        print(f"written to {arguments.destination}")
    elif arguments.command == "verify":
        verify(arguments.torch_folder, arguments.checkpoint, outputs=arguments.outputs)
    else:
        from convert.inspection import describe

        print(describe(arguments.path))


def verify(torch_folder: Path, checkpoint: Path, *, outputs: bool) -> None:
    """Prints the comparison; raises SystemExit with all differences if there are any."""
    from convert.compare import compare_outputs, compare_tensors

    print(f"comparing {torch_folder} with {checkpoint}", flush=True)
    found = compare_tensors(torch_folder, checkpoint)
    print(found.table())
    problems = list(found.problems)
    compared = "outputs were not compared (--outputs does)"
    if outputs and not problems:
        try:
            text, problems = compare_outputs(torch_folder, checkpoint)
            compared = "the outputs agree"
            print(f"\n{text}")
        except ImportError:
            raise SystemExit(
                "error: every tensor is equal, but the outputs cannot be compared: PyTorch is not installed"
            ) from None
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise SystemExit(f"error: the checkpoints differ: {'; '.join(problems[:SHOWN])}{more}")
    print(f"every tensor is equal; {compared}")


def _terminated(number: int, frame: object) -> None:
    # As an exception, so that half-written folders are removed on the way out.
    raise SystemExit(f"error: stopped by {signal.Signals(number).name}; nothing was written")


def main() -> None:
    arguments = make_parser().parse_args()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        run(arguments)
    except (CheckpointError, DataError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("error: stopped by SIGINT; nothing was written") from None
    except BrokenPipeError:
        sys.stderr.close()


if __name__ == "__main__":
    main()
