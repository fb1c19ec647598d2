"""The whole way on one machine: warehouse, four trainings, evaluation, table and report.

    python -m launch.demo --workdir runs/demo [--seed 0]

Stopped at any moment and started again, it goes on from where it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import time
from pathlib import Path

from configs import demo
from eval import journal_path, remove_journal
from eval.blind import BlindBaseline, read_training_questions
from eval.results import describe_metrics
from eval.warehouse import answer_questions, evaluate, run_details
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.warehouse import read_warehouse
from smolrgpt_jax.data.warehouse_sim.config import WarehouseConfig
from smolrgpt_jax.data.warehouse_sim.write import make_warehouse

LONGEST_ANSWER = 96  # tokens; the longest worked answers of the demo's warehouse take 88
RESULTS = ("metrics.json", "report.html", "predictions.json")


def run(workdir: Path, seed: int) -> None:
    """Runs every step that is not done yet and prints the table; raises ValueError or OSError with one sentence."""
    from smolrgpt_jax import load
    from smolrgpt_jax.training.loop import train

    started = time.monotonic()
    data = workdir / "data"
    print(
        f"demo in {workdir}: a procedural warehouse, the stages {', '.join(demo.STAGES)}, evaluation on unseen scenes, report",
        flush=True,
    )
    workdir.mkdir(parents=True, exist_ok=True)
    if not (data / "metadata.json").exists():
        make_warehouse(data, WarehouseConfig(seed=seed, **demo.WAREHOUSE))
    for stage in demo.STAGES:
        config = demo.get_config(stage, str(workdir))
        config.seed = seed
        result = train(config.to_dict(), workdir / stage)
        if result["stopped"]:
            raise SystemExit("stopped by a signal; the same command goes on from here")
    if not all((workdir / name).exists() for name in RESULTS):
        bad = BadRecords("error")
        pictures = read_warehouse(data, "test", annotations="test_answers.json", on_bad_record=bad)
        model = load(workdir / demo.STAGES[-1])
        details = run_details(model, checkpoint=workdir / demo.STAGES[-1], data=data / "test_answers.json")
        metrics = evaluate(
            pictures,
            lambda asked: answer_questions(
                model, asked, 64, LONGEST_ANSWER, bad, journal=journal_path(workdir / "eval")
            ),
            workdir / "eval",
            blind=BlindBaseline(read_training_questions(data / "train.json")),
            loss_curves={stage: workdir / stage / "metrics.csv" for stage in demo.STAGES},
            run_info={**details, "command": shlex.join(["python", "-m", "launch.demo", *sys.argv[1:]])},
        )
        for name in RESULTS:
            (workdir / "eval" / name).replace(workdir / name)
        remove_journal(workdir / "eval")
    else:
        metrics = json.loads((workdir / "metrics.json").read_text())
    print(describe_metrics(metrics))
    print(f"report: {workdir / 'report.html'} ({(time.monotonic() - started) / 60:.1f} minutes)")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m launch.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=Path(demo.ROOT),
        help="everything the demo makes goes here (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the warehouse and of the training (default %(default)s)"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    try:
        run(arguments.workdir, arguments.seed)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the same command goes on from here") from None


if __name__ == "__main__":
    main()
