"""Trains the demo's backbone again, from nothing to a folder like the shipped one."""

import csv
import hashlib
import logging
import tempfile
from pathlib import Path

from configs import demo_backbone
from eval.command_line import command_line
from smolrgpt_jax.errors import told
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

WEIGHTS, LOG, CARD = "model.safetensors", "training_log.csv", "README.md"
TEMPLATE = Path(__file__).with_name("demo_backbone_card.md")
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
    from convert.folders import jax_to_torch
    from smolrgpt_jax.checkpoint.orbax import find_checkpoint

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
    from smolrgpt_jax.checkpoint.torch import read_folder

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
    told = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest(), "phases": "\n".join(lines)}
    card = TEMPLATE.read_text(encoding="utf-8")
    return card.format(vision=config.vision, decoder=config.decoder, **told)


@told("interrupted; the same command goes on from here")
def main() -> None:
    parser = command_line("launch.demo_backbone", __doc__)
    root = Path(demo_backbone.ROOT)
    parser.set_defaults(workdir=root, out=root / "shipped")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    print(f"training the phases {', '.join(demo_backbone.PHASES)} in {arguments.workdir}, writing {arguments.out}")
    run(arguments.workdir, arguments.out)


if __name__ == "__main__":
    main()
