"""The whole way on one machine: warehouse, the three stages on the shipped backbone, evaluation, table and report."""

import dataclasses
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from configs import demo
from eval.answering.asking import answer_questions, described, remove_journal, run_details
from eval.answering.warehouse import evaluate
from eval.command_line import command_line, typed_command
from eval.reading.rules import normalized_answer
from eval.scoring.blind import BlindBaseline, read_training_questions
from eval.scoring.results import describe_metrics
from eval.side_questions import write_side_questions
from launch import demo_language
from launch.demo_stages import check_seed, train_stages
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import told
from smolrgpt_jax.files import read_json
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from smolrgpt_jax.generation.engine import AnswerOptions
    from smolrgpt_jax.model import Model

RESULTS = ("metrics.json", "report.html", "predictions.json", "run.json")
REAL = Path("tests/data_files/real_warehouse")  # eleven published records, one of them with its picture


def run(workdir: Path, seed: int, times: int = 1) -> None:
    """Runs every step that is not done yet and prints the table; raises ValueError or OSError with one sentence.

    times: as many scenes to learn from, and as many steps of the last stage.
    """
    from smolrgpt_jax import load
    from smolrgpt_jax.checkpoint.load import write_start
    from smolrgpt_jax.flops import product_speed
    from smolrgpt_jax.generation.engine import AnswerOptions

    check_seed(seed)
    started = time.monotonic()
    data, start, results = workdir / "data", workdir / "start", workdir / "eval"
    stages = ", ".join(demo.STAGES)
    print(f"demo in {workdir}: a procedural warehouse, the stages {stages}, evaluation, report", flush=True)
    if not data.exists():
        found = product_speed()
        print(f"{found:.0f} GFLOP/s in a float32 product: about {2.5 + 1500 * times / found:.0f} minutes", flush=True)
    warehouse = WarehouseConfig(seed=seed, **demo.DEMO_WAREHOUSE)
    ensure_warehouse(data, dataclasses.replace(warehouse, scenes=times * warehouse.scenes))
    if not start.exists():
        write_start(demo.BACKBONE, start, seed=seed)

    def stage_config(stage: str, root: str) -> "ConfigDict":
        config = demo.get_config(stage, root)
        config.steps *= times if stage == demo.STAGES[-1] else 1
        return config

    train_stages(demo.STAGES, stage_config, workdir, seed)
    if not all((workdir / name).exists() for name in RESULTS):
        asked = AnswerOptions(max_new_tokens=demo.LONGEST_ANSWER)
        model = load(workdir / demo.STAGES[-1])
        details = run_details(model, checkpoint=workdir / demo.STAGES[-1], data=data / "test_answers.json")
        details["left or right on real masks"] = real_sides(model, workdir / "real_sides", asked)
        evaluate(
            read_warehouse(data, "test", annotations="test_answers.json", on_bad_record=asked.on_bad_record),
            lambda pictures: answer_questions(model, pictures, asked, results),
            results,
            blind=BlindBaseline(read_training_questions(data / "train.json")),
            loss_curves={stage: workdir / stage / "metrics.csv" for stage in demo.STAGES},
            run_info={**details, "command": typed_command("launch.demo")},
        )
        print(f"left or right on real masks: {details['left or right on real masks']}")
        for name in RESULTS:
            (results / name).replace(workdir / name)
        remove_journal(results)
    print(describe_metrics(read_json(workdir / "metrics.json", dict)))
    print(f"report: {workdir / 'report.html'} ({(time.monotonic() - started) / 60:.1f} minutes)")


def real_sides(model: "Model", folder: Path, asked: "AnswerOptions") -> str:
    """How many questions about left and right on real masks, nearly all without a picture, are answered rightly."""
    if not REAL.is_dir():
        return f"not asked, there is no {REAL}"
    if not folder.exists():
        write_side_questions(read_json(REAL / "records_with_masks.json", list), folder, REAL / "val")
    pictures = read_warehouse(folder, "val", on_bad_record=asked.on_bad_record)
    questions = [question for picture in pictures for question in picture.questions]
    answers = answer_questions(model, pictures, asked)
    read = [normalized_answer("left_right", q.prompt, described(a)["answer"]) for q, a in zip(questions, answers)]
    right = sum(value == question.normalized_answer for value, question in zip(read, questions))
    share = f"{right} of {len(questions)} right ({right / len(questions):.0%}; chance 50 %)"
    return f"{share}, eleven published records, one with its picture"


@told("interrupted; the same command goes on from here")
def main() -> None:
    parser = command_line("launch.demo", __doc__)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if arguments.language is None:
        run(arguments.workdir or Path(demo.ROOT), arguments.seed, arguments.times)
    elif arguments.times > 1:
        raise ValueError("--times is of the small demo, not of --language")
    else:
        demo_language.run(arguments.workdir, arguments.seed, arguments.language)


if __name__ == "__main__":
    main()
