"""The model that a command asks: its arguments, the model on all devices, what a report says of it."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

DTYPES = ("float32", "bfloat16")  # that a model may compute in
FINGERPRINT = "checkpoint fingerprint"


def positive(text: str) -> int:
    """Reads a command line's positive whole number; raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint, --dtype and --max_new_tokens."""
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="checkpoint of ours, training folder or PyTorch folder"
    )
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the model's products")
    add_answer_length(parser)


def add_answer_length(parser: argparse.ArgumentParser) -> None:
    """Adds --max_new_tokens, None for `Model.answer_tokens`."""
    parser.add_argument(
        "--max_new_tokens",
        type=positive,
        help="longest answer, in tokens (default: as long as the checkpoint was trained for; 120 for a published one)",
    )


def add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what both benchmarks take: the model's arguments, --data, --out, --batch_size and --limit."""
    add_model_arguments(parser)
    parser.add_argument("--data", required=True, type=Path, help="folder in the published layout")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--batch_size", type=positive, default=64, help="questions answered at once")
    parser.add_argument("--limit", type=positive, help="only the first LIMIT questions")


def load_model(checkpoint: str | Path, dtype: str = DTYPES[0]) -> Model:
    """Loads a checkpoint; with several devices each of them answers a part of every batch.

    Raises CheckpointError where it cannot be read, see `smolrgpt_jax.load`.
    """
    # Imported late: neither --help nor a mistyped path should wait for JAX.
    import jax

    import smolrgpt_jax
    from smolrgpt_jax import sharding

    devices = jax.local_devices()
    mesh = sharding.make_mesh(devices=devices) if len(devices) > 1 else None
    return smolrgpt_jax.load(checkpoint, compute_dtype=dtype, mesh=mesh)


def is_first_process() -> bool:
    """Whether this process writes the results; the others only answer."""
    import jax

    return jax.process_index() == 0


def run_details(model: Model, module: str = "eval.warehouse", **details: Any) -> dict[str, Any]:
    """What the report says of a run: the command, the details, the parameters' fingerprint, and the configuration.

    A checkpoint of our training also tells the stage's run configuration and seed. The fingerprint is the same for the
    same numbers, whatever folder or format they come from and whatever devices they lie on. In a run of several
    processes all of them call this, since Orbax reads on all together.
    """
    from eval.answering.journal import params_fingerprint

    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    config = {"model": model.config.to_dict(), "compute": dataclasses.asdict(model.compute)}
    if model.run is not None:
        config["training"] = model.run
        details["seed"] = model.run.get("run", {}).get("seed")
    return {"command": command, **details, FINGERPRINT: params_fingerprint(model.params), "config": config}
