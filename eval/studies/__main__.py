"""Runs a study; writes OUT/table.md, plot.svg, study.json, and a folder of results for each variant."""

import argparse
from collections.abc import Sequence

from configs import studies as configs
from eval.assist.estimated_depth import DepthModel
from eval.command_line import add_options, command_line, description
from eval.report import plots
from eval.studies import answered, shift
from eval.studies.findings import Found, Limits, describe
from smolrgpt_jax.data.records import BadRecords, spread
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import told
from smolrgpt_jax.files import read_json

TOLD_APART = ("batch", "sizes", "wider")  # of the studies that train, those with a section of their own in options.toml


@told("interrupted; finished variants are kept, and a study that trains goes on from there with the same command")
def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line("eval.studies", __doc__)
    studies = parser.add_subparsers(dest="study", required=True, metavar="NAME")
    for name in answered.STUDIES:
        kind = name if name == "depth_quality" else "answered"
        _add(studies, name, kind, "questions of --data answered once more by --checkpoint", _answer)
    _add(studies, "shift", "shift", "--checkpoint on warehouses unlike the demo's", _shift)
    for name in configs.TRAINED:
        kind = name if name in TOLD_APART else "trained"
        _add(studies, name, kind, "variants of the model trained and compared", _train)
    args = parser.parse_args(arguments)
    print(f"study {args.study}, writing to {args.out}")
    plots.require()
    print(describe(*args.run(args, Limits(args.batch_size, args.max_new_tokens))))


def _add(studies, name: str, kind: str, help: str, run) -> None:
    section = f"eval.study_{kind}"
    form = argparse.RawDescriptionHelpFormatter
    study = studies.add_parser(name, help=help, description=description(section), formatter_class=form)
    study.set_defaults(run=run)
    add_options(study, "eval.study")
    add_options(study, section, size=configs.SIZES)


def _answer(args: argparse.Namespace, limits: Limits) -> tuple[Found, Found]:
    from smolrgpt_jax import load

    annotations = args.data / (args.annotations or f"{args.split}.json")
    records = read_json(annotations, list)
    records = [records[number] for number in spread(len(records), args.limit or len(records))]
    # The reader says which record is wrong, before any is changed.
    read_warehouse(args.data, args.split, annotations=annotations.name, on_bad_record=BadRecords("error"))
    answered.check_records(args.study, records, annotations)
    # Loaded first: a model that cannot be should not wait for the checkpoint.
    estimator = DepthModel(args.depth_model) if getattr(args, "depth_model", None) else None
    model, pictures = load(args.checkpoint), args.data / args.split
    asked = (model, records, pictures, args.out, limits, args.seed, args.checkpoint, None, estimator)
    return answered.run_study(args.study, *asked)


def _shift(args: argparse.Namespace, limits: Limits) -> tuple[Found, None]:
    from smolrgpt_jax import load

    return shift.run_study(load(args.checkpoint), args.out, limits, args.checkpoint), None


def _train(args: argparse.Namespace, limits: Limits) -> tuple[Found, Found]:
    from eval.studies import batch, sizes, trained, wider

    tasks = {"batch": batch.TASK, "sizes": sizes.TASK, "wider": wider.TASK}
    task = tasks.get(args.study, trained.WAREHOUSE)
    runs = args.runs or args.out / "runs"
    return trained.run_study(args.study, task, args.out, runs, limits, args.seeds, args.size)


if __name__ == "__main__":
    main()
