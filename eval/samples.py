"""Shows what a checkpoint of any stage says about its own data, beside the truth: captions, regions or questions.

    python -m eval.samples --checkpoint runs/stage1 --out runs/stage1_samples [--count 24] [--seed 0]
    python -m eval.samples --checkpoint DIR --source format=captions,root=DIR,annotations=chat.json --out DIR

A checkpoint of our training brings its sources: those it was validated with where it has any, else (or with --training_data)
those it was trained on. --config names a run's configuration instead, --source single sources with the fields of
smolrgpt_jax.data.sources.formats.read_source. Questions are drawn from all sources and categories in turn, of as many pictures as
there are. Into --out go samples.json and report.html, which needs nothing beside itself. A record that cannot be used is left
out and reported.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval import add_answer_length, answer_length, positive
from eval.reading.rules import normalized_answer
from eval.report.html import CATEGORY_TITLES, render, shown_question
from eval.scoring.official import is_correct
from eval.warehouse import run_details
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, BadRecords, Picture
from smolrgpt_jax.data.sources.formats import read_source
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import results_folder, write_json

if TYPE_CHECKING:
    from smolrgpt_jax.generation import AnswerOptions, GeneratedAnswer

BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Asked:
    """One question to show: a picture with this question alone, and the name of its source."""

    source: str
    picture: Picture

    @property
    def question(self):
        return self.picture.questions[0]


def read_config(text: str) -> dict[str, Any]:
    """What "FILE.py" or "FILE.py:ARGUMENT", a run's configuration, says of its data; raises ValueError if there is none."""
    file, _, argument = text.partition(":")
    spec = importlib.util.spec_from_file_location("run_configuration", file)
    if not Path(file).is_file() or spec is None:
        raise ValueError(f"{file}: no such configuration")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        run = module.get_config(*([argument] if argument else [])).to_dict()
        return {name: run[name] for name in ("data", "validation_sources")}
    except (AttributeError, ImportError, KeyError, SyntaxError, TypeError) as error:
        raise ValueError(f"{file} is no configuration of a run ({error})") from error


def recorded_run(checkpoint: Path) -> dict[str, Any]:
    """The settings of the run that a checkpoint comes from; raises ValueError if it comes from none."""
    from smolrgpt_jax.checkpoint.load import read_checkpoint

    run = read_checkpoint(checkpoint).run
    if not run:
        raise ValueError(f"{checkpoint} does not say what it was trained on; give --config or --source")
    return run["run"]


def sources_of(run: Mapping[str, Any], training_data: bool) -> dict[str, Mapping[str, Any]]:
    """The sources of a run's configuration: of validation, or of training where asked for or where there are no others.

    Raises ValueError for one whose folder is not there.
    """
    sources = run["validation_sources"]
    if training_data or not sources:
        sources = run["data"]["sources"]
    for name, source in sources.items():
        if not Path(source["root"]).is_dir():
            raise ValueError(
                f"{source['root']} of the run's source {name} is not there (paths are as the run was given them); "
                "give --source"
            )
    return dict(sources)


def parse_source(text: str) -> dict[str, str]:
    """Reads a command line's "format=...,root=...[,field=...]"; raises ArgumentTypeError."""
    parts = [part.partition("=") for part in text.split(",")]
    source = {name: value for name, mark, value in parts if name and mark and value}
    if len(source) != len(parts) or not {"format", "root"} <= source.keys():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form format=...,root=...[,field=...]")
    return source


def draw(pictures: Mapping[str, Sequence[Picture]], count: int, seed: int) -> list[Asked]:
    """Draws questions: sources and categories in turn, pictures not shown yet before others.

    Args:
      pictures: of each source.
      count: most questions; fewer where there are no more.
      seed: the same seed draws the same questions.
    """
    order = np.random.default_rng(seed)
    queues: dict[tuple[str, str], list[Asked]] = {}
    for source, found in pictures.items():
        pairs = [(picture, question) for picture in found for question in picture.questions]
        for index in order.permutation(len(pairs)):
            picture, question = pairs[index]
            alone = dataclasses.replace(picture, questions=(question,))
            queues.setdefault((source, question.category), []).append(Asked(source, alone))
    drawn: list[Asked] = []
    shown: set[Path] = set()
    while len(drawn) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(drawn) < count:
                fresh = next((i for i, asked in enumerate(queue) if asked.picture.image not in shown), 0)
                drawn.append(queue.pop(fresh))
                shown.add(drawn[-1].picture.image)
    return drawn


def answer(model: Any, drawn: Sequence[Asked], options: AnswerOptions) -> list[dict]:
    """The model's answers; what samples.json holds of each question that could be asked."""
    from smolrgpt_jax.generation import generate_answers

    # Ids are unique within a source only.
    renamed = [
        dataclasses.replace(
            asked.picture, questions=(dataclasses.replace(asked.question, id=f"{asked.source}: {asked.question.id}"),)
        )
        for asked in drawn
    ]
    answers = generate_answers(model, renamed, options)
    return [
        _sample(asked, answers[picture.questions[0].id])
        for asked, picture in zip(drawn, renamed)
        if picture.questions[0].id in answers
    ]


def _sample(asked: Asked, given: GeneratedAnswer) -> dict:
    question = asked.question
    sample = {
        "source": asked.source,
        "id": question.id,
        "image": asked.picture.id,
        "category": question.category,
        "regions": len(question.regions),
        "earlier": [list(turn) for turn in question.earlier],
        "question": question.prompt,
        "answer": given.text,
        "cut_off": given.cut_off,
        "truth": question.answer,
        "right": None,
    }
    if question.category in WAREHOUSE_CATEGORIES and question.normalized_answer is not None:
        value = normalized_answer(question.category, question.prompt, given.text)
        sample["normalized_answer"] = value
        sample["normalized_truth"] = question.normalized_answer
        sample["right"] = is_correct(question.category, value, question.normalized_answer)
    return sample


def write_samples(
    out: str | Path,
    samples: Sequence[dict],
    drawn: Sequence[Asked],
    bad: BadRecords,
    *,
    seed: int,
    run_info: Mapping[str, Any],
) -> None:
    """Writes samples.json and report.html into a folder, whole or not at all.

    Args:
      out: the folder; its files of the same names are replaced.
      samples: what `answer` returned for ``drawn``; one whose picture cannot be drawn goes to the records left out.
      drawn: the questions.
      bad: the records left out so far.
      seed: of the draw.
      run_info: see ``eval.report.html.write_report``; "checkpoint" and "data" are named in the page's first line.
    """
    known = {(asked.source, asked.question.id): asked for asked in drawn}
    entries = []
    for sample in samples:
        asked = known[sample["source"], sample["id"]]
        try:
            entries.append(dict(sample, shown=shown_question(asked.picture, asked.question)))
        except (OSError, SyntaxError, ValueError) as error:
            bad.reject(DataError(f"record {sample['id']!r}: its picture cannot be drawn ({error})"))
    categories = dict.fromkeys(sample["category"] for sample in samples)
    judged = [sample["right"] for sample in samples if sample["right"] is not None]
    with results_folder(out) as aside:
        write_json(
            aside / "samples.json",
            {
                "checkpoint": str(run_info["checkpoint"]),
                "data": run_info["data"],
                "seed": seed,
                "samples": list(samples),
                "left_out": bad.reasons,
            },
        )
        render(
            aside / "report.html",
            "samples.html",
            run_info,
            checkpoint=_checkpoint_name(run_info),
            where=run_info["data"],
            drawn_with=seed,
            samples=entries,
            titles={name: CATEGORY_TITLES.get(name) or _title(name) for name in categories},
            judged=len(judged),
            right=sum(judged),
            left_out=bad.reasons,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.samples", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", required=True, type=Path, help="checkpoint of ours, training folder or PyTorch folder"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--config", help="FILE.py[:ARGUMENT], the configuration of a run, instead of the checkpoint's own"
    )
    where.add_argument(
        "--source",
        type=parse_source,
        action="append",
        metavar="format=...,root=...[,FIELD=...]",
        help="a source of questions, instead of the run's; can be repeated",
    )
    parser.add_argument(
        "--training_data", action="store_true", help="the run's training sources, not those of validation"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument("--count", type=positive, default=24, help="questions to show (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default %(default)s)")
    add_answer_length(parser)
    args = parser.parse_args(arguments)

    if args.out.exists() and not args.out.is_dir():
        raise SystemExit(f"error: {args.out} exists and is not a folder")
    bad = BadRecords("report")
    try:
        depth_mode = "training"
        if args.source:
            sources = {_name(source): source for source in args.source}
        else:
            run = read_config(args.config) if args.config else recorded_run(args.checkpoint)
            sources, depth_mode = sources_of(run, args.training_data), run["data"]["depth_mode"]
        data = ", ".join(_name(source) for source in sources.values())
        print(f"asking {args.checkpoint} about {data}, writing to {args.out}", flush=True)
        drawn = draw({name: read_source(found, bad) for name, found in sources.items()}, args.count, args.seed)
        if not drawn:
            raise DataError(f"{data} has no usable question; {bad.summary(1)}")
        # Imported late: neither --help nor a mistyped path should wait for JAX.
        from smolrgpt_jax import load
        from smolrgpt_jax.generation import AnswerOptions

        model = load(args.checkpoint)
        length = answer_length(model, args.max_new_tokens)
        options = AnswerOptions(min(BATCH_SIZE, len(drawn)), length, depth_mode=depth_mode, on_bad_record=bad)
        samples = answer(model, drawn, options)
        info = run_details(model, "eval.samples", checkpoint=args.checkpoint, data=data)
        write_samples(args.out, samples, drawn, bad, seed=args.seed, run_info=info)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    if bad.reasons:
        print(bad.summary())
    for sample in samples[:3]:
        print(f"question: {sample['question']}\n  answer: {sample['answer']}\n   truth: {sample['truth']}")
    print(f"{len(samples)} answers: {args.out}/report.html")


def _title(category: str) -> str:
    return (category or "question").replace("_", " ").capitalize()


def _checkpoint_name(run_info: Mapping[str, Any]) -> str:
    """The checkpoint with its stage and step, where it tells them."""
    run = run_info.get("config", {}).get("training", {})
    told = f" (stage {run['stage']}, step {run['step']})" if {"stage", "step"} <= run.keys() else ""
    return f"{run_info['checkpoint']}{told}"


def _name(source: Mapping[str, Any]) -> str:
    """How people are told of a source: its folder and, where it names one, its file or split."""
    part = source.get("annotations") or source.get("split")
    return f"{source['root']}/{part}" if part else str(source["root"])


if __name__ == "__main__":
    main()
