"""Shows what a checkpoint of any stage says about its own data, beside the truth: captions, regions or questions."""

import argparse
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.answering.asking import load_model, run_details
from eval.answering.samples import answer_samples, draw, write_samples
from eval.command_line import command_line
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.formats import read_source
from smolrgpt_jax.errors import ConfigError, DataError, told
from smolrgpt_jax.files import as_path

BATCH_SIZE = 32


def read_config(text: str) -> dict[str, Any]:
    """What "FILE.py" or "FILE.py:ARGUMENT", a run's configuration, says of its data; ConfigError if there is none."""
    file, _, argument = text.partition(":")
    spec = importlib.util.spec_from_file_location("run_configuration", file)
    if not Path(file).is_file() or spec is None:
        raise ConfigError(f"{file}: no such configuration")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        run = module.get_config(*([argument] if argument else [])).to_dict()
        return {name: run[name] for name in ("data", "validation_sources")}
    except (AttributeError, ImportError, KeyError, SyntaxError, TypeError) as error:
        raise ConfigError(f"{file} is no configuration of a run ({error})") from error


def recorded_run(checkpoint: Path) -> dict[str, Any]:
    """The settings of the run that a checkpoint comes from; raises DataError if it comes from none."""
    from smolrgpt_jax.checkpoint.load import read_checkpoint

    run = read_checkpoint(checkpoint).run
    if not run:
        raise DataError(f"{checkpoint} records no files that it was trained on; give --config or --source")
    return run["run"]


def sources_of(run: Mapping[str, Any], training_data: bool) -> dict[str, Mapping[str, Any]]:
    """A run's sources of validation, or of training where asked for or alone; DataError where a folder is not there."""
    sources = run["validation_sources"]
    if training_data or not sources:
        sources = run["data"]["sources"]
    for name, source in sources.items():
        if not as_path(source["root"]).is_dir():
            moved = f"{source['root']} of the run's source {name} is not there"
            raise DataError(f"{moved} (paths are as the run was given them); give --source")
    return dict(sources)


def parse_source(text: str) -> dict[str, str]:
    """Reads a command line's "format=...,root=...[,field=...]"; raises ArgumentTypeError."""
    parts = [part.partition("=") for part in text.split(",")]
    source = {name: value for name, mark, value in parts if name and mark and value}
    if len(source) != len(parts) or not {"format", "root"} <= source.keys():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form format=...,root=...[,field=...]")
    return source


def source_name(source: Mapping[str, Any]) -> str:
    """How people are told of a source: its folder and, where it names one, its file or split."""
    part = source.get("annotations") or source.get("split")
    return f"{source['root']}/{part}" if part else str(source["root"])


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line("eval.samples", __doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--config", help="FILE.py[:ARGUMENT], a run's configuration, instead of the checkpoint's own")
    source = {"type": parse_source, "action": "append", "metavar": "format=...,root=...[,FIELD=...]"}
    where.add_argument("--source", **source, help="a source of questions, instead of the run's; can be repeated")
    args = parser.parse_args(arguments)

    bad = BadRecords("report")
    depth_mode = "training"
    if args.source:
        sources = {source_name(source): source for source in args.source}
    else:
        run = read_config(args.config) if args.config else recorded_run(args.checkpoint)
        sources, depth_mode = sources_of(run, args.training_data), run["data"]["depth_mode"]
    data = ", ".join(map(source_name, sources.values()))
    print(f"asking {args.checkpoint} about {data}, writing to {args.out}", flush=True)
    drawn = draw({name: read_source(found, bad) for name, found in sources.items()}, args.count, args.seed)
    if not drawn:
        raise DataError(f"{data} has no usable question; {bad.summary(1)}")
    model = load_model(args.checkpoint, args.dtype)
    from smolrgpt_jax.generation.engine import AnswerOptions

    length = args.max_new_tokens or model.answer_tokens
    options = AnswerOptions(min(BATCH_SIZE, len(drawn)), length, depth_mode=depth_mode, on_bad_record=bad)
    samples = answer_samples(model, drawn, options)
    info = run_details(model, "eval.samples", checkpoint=args.checkpoint, data=data)
    write_samples(args.out, samples, bad, args.seed, info)
    if bad.reasons:
        print(bad.summary())
    for sample in samples[:3]:
        print(f"question: {sample['question']}\n  answer: {sample['answer']}\n   truth: {sample['truth']}")
    print(f"{len(samples)} answers: {args.out}/report.html")


if __name__ == "__main__":
    main()
