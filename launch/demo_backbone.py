"""Trains the demo's backbone again, from nothing to a folder like the shipped one.

    python -m launch.demo_backbone --workdir runs/demo_backbone --out runs/demo_backbone/shipped

Stopped at any moment and started again, it goes on from where it was.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import logging
import tempfile
from pathlib import Path

from configs import demo_backbone
from convert.folders import jax_to_torch
from smolrgpt_jax.checkpoint.orbax import find_checkpoint
from smolrgpt_jax.checkpoint.torch import read_folder
from smolrgpt_jax.errors import told
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

WEIGHTS, LOG, CARD = "model.safetensors", "training_log.csv", "README.md"
LOGGED = ("step", "loss", "validation_loss", "lr_all")


def run(workdir: Path, out: Path) -> None:
    """Runs every phase that is not done yet and writes the folder; raises ValueError or OSError with one sentence."""
    from smolrgpt_jax.training.run import train

    if out.exists():
        raise ValueError(f"{out} exists already; nothing was done")
    for phase in demo_backbone.PHASES:
        ensure_warehouse(workdir / f"{phase}_data", WarehouseConfig(**demo_backbone.warehouse(phase)))
        result = train(demo_backbone.get_config(phase, str(workdir)).to_dict(), workdir / phase)
        if result["stopped"]:
            raise SystemExit("stopped by a signal; the same command goes on from here")
    ship(workdir, out)


def ship(workdir: Path, out: Path) -> None:
    """Writes the trained model in bfloat16, the log of its phases and its model card into a new folder."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        aside = Path(folder) / out.name
        jax_to_torch(find_checkpoint(workdir / list(demo_backbone.PHASES)[-1]), aside, dtype="BF16")
        with open(aside / LOG, "w", newline="") as file:
            log = csv.DictWriter(file, ("phase", *LOGGED), extrasaction="ignore", lineterminator="\n")
            log.writeheader()
            for phase in demo_backbone.PHASES:
                with open(workdir / phase / "metrics.csv", newline="") as metrics:
                    log.writerows({"phase": phase, **row} for row in csv.DictReader(metrics))
        (aside / CARD).write_text(model_card(aside))
        aside.rename(out)


def model_card(folder: Path) -> str:
    """The card of the model in a folder with its weights and log."""
    config = read_folder(folder)[0]
    weights = (folder / WEIGHTS).read_bytes()
    with open(folder / LOG, newline="") as file:
        log = list(csv.DictReader(file))
    lines = []
    for name, phase in demo_backbone.PHASES.items():
        last = [row for row in log if row["phase"] == name][-1]
        kinds = ", ".join(f"{kind} {n}" for kind, n in phase.captions.items())
        lines.append(
            f"| {name} | {last['step']} | {phase.row_tokens} | {phase.scenes} | {phase.seed} "
            f"| {float(last['validation_loss']):.4f} | {kinds} |"
        )
    phases = "\n".join(lines)
    return f"""# The demo's backbone

A SmolRGPT small enough for two CPU cores: encoder of {config.vision.layers} layers, width {config.vision.width}, for pictures of
{config.vision.image_size}x{config.vision.image_size} pixels; decoder of {config.decoder.layers} layers, width {config.decoder.width}, vocabulary {config.decoder.vocab_size}; the connectors and
refiners between them. It stands for SigLIP2 and SmolLM2 where nothing can be downloaded, and knows the procedural warehouse
only: use it for the demo, tests and studies, for nothing else.

- Weights: `{WEIGHTS}`, bfloat16, {len(weights):,} bytes, SHA-256 `{hashlib.sha256(weights).hexdigest()}`.
- Trained by `python -m launch.demo_backbone` from `configs/demo_backbone.py`, batches of 8 rows, AdamW, peak rate 1e-3 (5e-4 in
  `recall`), everything trained. `{LOG}` holds the losses.
- Data: captions of procedural scenes, made by the same command, none of them the demo's. The kinds are explained in
  `smolrgpt_jax/warehouse/parameters.py`. Some of them ask in the wordings of the benchmark's questions: `side`, `apart` and
  `how_many`, answered in a word, and the `worked_` kinds, answered by the workings and the bare value: encoder and decoder know
  the task before the demo begins. Whole answers of the benchmark are not among them, and no scene of the benchmark or the demo is.
  Captions of whole pictures are among `see`'s, and 15 % of the rows of `recall` and 5 % of those of the later phases.
- Random numbers: seed 0 of the configuration, and of each phase's scenes the seed in the table. `review` of the shipped weights
  began from those of `conclude` rounded to bfloat16.
- The demo and the studies that train take encoder and decoder from here and draw connectors and refiners anew.

| phase | steps | tokens of a row | scenes | seed of the scenes | validation loss | captions per picture |
|---|---|---|---|---|---|---|
{phases}

No third-party data or weights went into it.
"""


@told("interrupted; the same command goes on from here")
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m launch.demo_backbone", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root, default = Path(demo_backbone.ROOT), "(default %(default)s)"
    parser.add_argument("--workdir", type=Path, default=root, help=f"of the phases' data and checkpoints {default}")
    parser.add_argument(
        "--out", type=Path, default=root / "shipped", help=f"new folder for weights, log and model card {default}"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    print(f"training the phases {', '.join(demo_backbone.PHASES)} in {arguments.workdir}, writing {arguments.out}")
    run(arguments.workdir, arguments.out)


if __name__ == "__main__":
    main()
