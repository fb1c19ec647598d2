"""The whole way on one machine: warehouse, the three stages on the shipped backbone, evaluation, table and report.

    python -m launch.demo --workdir runs/demo [--seed 0]

Stopped at any moment and started again, it goes on from where it was.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs import demo
from eval import journal_path, remove_journal
from eval.answering.vote import Ballots, further_answers
from eval.reading.methods import read_by_rules
from eval.reading.rules import normalized_answer
from eval.reading.vote import read_by_vote
from eval.scoring.blind import BlindBaseline, read_training_questions
from eval.scoring.results import describe_metrics
from eval.scoring.validation import WAREHOUSE_SCORES
from eval.side_questions import write_side_questions
from eval.warehouse import Answered, answer_questions, described, evaluate, run_details, with_further
from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.data.sources.warehouse import read_warehouse
from smolrgpt_jax.files import read_json
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

METHODS = {"vote": read_by_vote, "rules": read_by_rules}
# Sides are told as well by one answer; what the others gain is in docs/learning.md.
BALLOTS = Ballots(number=13, temperature=0.5, categories=("count", "mcq", "distance"))
RESULTS = ("metrics.json", "report.html", "predictions.json")
REAL = Path("tests/data_files/real_warehouse")  # eleven published records, one of them with its picture


def run(workdir: Path, seed: int) -> None:
    """Runs every step that is not done yet and prints the table; raises ValueError or OSError with one sentence."""
    from smolrgpt_jax import load
    from smolrgpt_jax.training.run import train

    if not 0 <= seed < demo.RESERVED_SEEDS:
        raise ValueError(
            f"the seed is {seed}, it must be from 0 to {demo.RESERVED_SEEDS - 1}: scenes of others are the backbone's or tested on"
        )
    started = time.monotonic()
    data = workdir / "data"
    print(
        f"demo in {workdir}: a procedural warehouse, the stages {', '.join(demo.STAGES)}, evaluation on unseen scenes, report",
        flush=True,
    )
    ensure_warehouse(data, WarehouseConfig(seed=seed, **demo.WAREHOUSE))
    for stage in demo.STAGES:
        config = demo.get_config(stage, str(workdir))
        config.seed = seed
        result = train(config.to_dict(), workdir / stage, WAREHOUSE_SCORES)
        if result["stopped"]:
            raise SystemExit("stopped by a signal; the same command goes on from here")
    if not all((workdir / name).exists() for name in RESULTS):
        bad = BadRecords("error")
        pictures = read_warehouse(data, "test", annotations="test_answers.json", on_bad_record=bad)
        model = load(workdir / demo.STAGES[-1])
        details = run_details(model, checkpoint=workdir / demo.STAGES[-1], data=data / "test_answers.json")
        details["vote"] = str(BALLOTS)
        details["left or right on real masks"] = real_sides(model, workdir / "real_sides", bad)
        metrics = evaluate(
            pictures,
            lambda asked: asked_several_times(model, asked, workdir / "eval", bad),
            workdir / "eval",
            methods=METHODS,
            blind=BlindBaseline(read_training_questions(data / "train.json")),
            loss_curves={stage: workdir / stage / "metrics.csv" for stage in demo.STAGES},
            run_info={**details, "command": shlex.join(["python", "-m", "launch.demo", *sys.argv[1:]])},
        )
        print(f"left or right on real masks: {details['left or right on real masks']}")
        for name in RESULTS:
            (workdir / "eval" / name).replace(workdir / name)
        remove_journal(workdir / "eval")
    else:
        metrics = read_json(workdir / "metrics.json", dict)
    print(describe_metrics(metrics))
    print(f"report: {workdir / 'report.html'} ({(time.monotonic() - started) / 60:.1f} minutes)")


def asked_several_times(model: Model, pictures: Sequence[Picture], out: Path, bad: BadRecords) -> list[Answered]:
    """What the model says to every question, at first and for the vote."""
    from smolrgpt_jax.generation import AnswerOptions

    options = AnswerOptions(max_new_tokens=demo.LONGEST_ANSWER, on_bad_record=bad)
    answers = answer_questions(model, pictures, options, journal=journal_path(out))
    return with_further(answers, further_answers(model, pictures, BALLOTS, options, out=out))


def real_sides(model: Model, folder: Path, bad: BadRecords) -> str:
    """How many questions about left and right on real masks, nearly all without a picture, are answered rightly."""
    if not REAL.is_dir():
        return f"not asked, there is no {REAL}"
    if not folder.exists():
        write_side_questions(read_json(REAL / "records_with_masks.json", list), folder, REAL / "val")
    pictures = read_warehouse(folder, "val", on_bad_record=bad)
    questions = [question for picture in pictures for question in picture.questions]
    from smolrgpt_jax.generation import AnswerOptions

    answers = answer_questions(model, pictures, AnswerOptions(max_new_tokens=demo.LONGEST_ANSWER, on_bad_record=bad))
    right = sum(
        normalized_answer("left_right", question.prompt, answer["answer"]) == question.normalized_answer
        for question, answer in zip(questions, map(described, answers), strict=True)
    )
    share = right / len(questions)
    return (
        f"{right} of {len(questions)} right ({share:.0%}; chance 50 %), eleven published records, one with its picture"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m launch.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
