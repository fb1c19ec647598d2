"""Runs a study; writes OUT/table.md, plot.svg, study.json, and a folder of results for each variant."""

import argparse
import ast
from collections.abc import Sequence
from pathlib import Path

from configs import studies as configs
from eval.answering.asking import add_answer_length, positive
from eval.command_line import command_line, out_folder
from eval.report import plots
from eval.studies import answered, shift
from eval.studies.findings import Found, Limits, describe
from smolrgpt_jax.data.records import BadRecords, spread
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import told
from smolrgpt_jax.files import read_json


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line("eval.studies", __doc__)
    studies = parser.add_subparsers(dest="study", required=True, metavar="NAME")
    for name in answered.STUDIES:
        study = _add(studies, name, answered.__doc__, _answer, "questions of --data answered once more by --checkpoint")
        study.add_argument("--checkpoint", required=True, type=Path, help="what eval.warehouse takes")
        study.add_argument("--data", required=True, type=Path, help="folder in the published layout")
        study.add_argument("--split", default="val", help="train, val or test")
        study.add_argument("--annotations", help="file under --data with the questions, by default SPLIT.json")
        study.add_argument("--seed", type=int, default=0, help="of what is drawn (default %(default)s)")
        study.add_argument("--limit", type=positive, help="only LIMIT questions, spread evenly over the file")
    study = _add(studies, "shift", shift.__doc__, _shift, "--checkpoint on warehouses unlike the demo's")
    study.add_argument("--checkpoint", required=True, type=Path, help="trained on the demo's warehouse")
    for name in configs.TRAINED:
        # Read, not imported: --help should not wait for JAX.
        module = Path(__file__).with_name("sizes.py" if name == "sizes" else "trained.py")
        about = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
        study = _add(studies, name, about, _train, "variants of the model trained and compared")
        seeds = "one training of each variant per seed"
        study.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help=seeds)
        runs = "folder of warehouses and trainings, which studies can share, by default OUT/runs"
        study.add_argument("--runs", type=Path, help=runs)
        study.add_argument("--size", choices=configs.SIZES, default="cpu", help="how long, see configs/studies.py")
    args = parser.parse_args(arguments)
    print(f"study {args.study}, writing to {args.out}")
    plots.require()
    print(describe(*args.run(args, Limits(args.batch_size, args.max_new_tokens))))


def _add(studies, name: str, description: str | None, run, help: str) -> argparse.ArgumentParser:
    study = studies.add_parser(
        name, help=help, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    study.set_defaults(run=run)
    study.add_argument("--out", required=True, type=out_folder, help="folder for the results")
    study.add_argument("--batch_size", type=positive, default=64, help="questions answered at once")
    add_answer_length(study)
    return study


def _answer(args: argparse.Namespace, limits: Limits) -> tuple[Found, Found]:
    from smolrgpt_jax import load

    annotations = args.data / (args.annotations or f"{args.split}.json")
    records = read_json(annotations, list)
    records = [records[number] for number in spread(len(records), args.limit or len(records))]
    # The reader says which record is wrong, before any is changed.
    read_warehouse(args.data, args.split, annotations=annotations.name, on_bad_record=BadRecords("error"))
    answered.check_records(args.study, records, annotations)
    model, pictures = load(args.checkpoint), args.data / args.split
    return answered.run_study(args.study, model, records, pictures, args.out, limits, args.seed, args.checkpoint)


def _shift(args: argparse.Namespace, limits: Limits) -> tuple[Found, None]:
    from smolrgpt_jax import load

    return shift.run_study(load(args.checkpoint), args.out, limits, args.checkpoint), None


def _train(args: argparse.Namespace, limits: Limits) -> tuple[Found, Found]:
    from eval.studies import sizes, trained

    task = sizes.TASK if args.study == "sizes" else trained.WAREHOUSE
    runs = args.runs or args.out / "runs"
    return trained.run_study(args.study, task, args.out, runs, limits, args.seeds, args.size)


if __name__ == "__main__":
    main()
