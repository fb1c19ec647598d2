"""Moves checkpoints between the PyTorch release and JAX.

python -m convert torch-to-jax SRC DST [--tokenizer FOLDER_OR_HUB_ID]
python -m convert jax-to-torch SRC DST [--dtype F32|F16|BF16]
python -m convert verify TORCH JAX
"""

from __future__ import annotations

import argparse
from pathlib import Path

from convert import folders
from smolrgpt_jax.data.records import DataError
from smolrgpt_jax.torch_format.folder import DTYPES, CheckpointError


def main() -> None:
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
        "--dtype", choices=sorted(DTYPES), help="dtype of all parameters; default: as imported, else F32"
    )
    check = commands.add_parser(
        "verify", help="compare every tensor of a PyTorch folder with a checkpoint of ours"
    )
    check.add_argument("torch_folder", type=Path)
    check.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "torch-to-jax":
            print(f"converting {arguments.source} to {arguments.destination}")
            done = folders.torch_to_jax(
                arguments.source,
                arguments.destination,
                tokenizer=arguments.tokenizer,
                allow_nan=arguments.allow_nan,
            )
            print(
                f"{done['tensors']} tensors, {done['parameters']:,} parameters (vocabulary padding included)"
            )
        elif arguments.command == "jax-to-torch":
            print(f"converting {arguments.source} to {arguments.destination}")
            done = folders.jax_to_torch(arguments.source, arguments.destination, dtype=arguments.dtype)
            print(f"{done['tensors']} tensors")
        else:
            print(f"comparing {arguments.torch_folder} with {arguments.checkpoint}")
            problems = folders.verify(arguments.torch_folder, arguments.checkpoint)
            if problems:
                raise SystemExit("error: the checkpoints differ: " + "; ".join(problems))
            print("every tensor is equal")
    except (CheckpointError, DataError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
