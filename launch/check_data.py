"""Looks at a folder of data as one would before a night of training: whether it can be read, learned from and trusted."""

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.command_line import command_line, typed_command
from launch.checking.found_sources import Found, find_sources, format_of, passed_over
from launch.checking.problems import KINDS, Problems
from smolrgpt_jax.data.sources.formats import READERS
from smolrgpt_jax.errors import ConfigError, told
from smolrgpt_jax.files import as_path


def sources_of(run: Mapping[str, Any]) -> list[Found]:
    """The sources of a run's configuration, which may be sides of one folder."""
    trained = [Found(source, "train") for source in run["data"]["sources"].values()]
    return trained + [Found(source, "val", trained=False) for source in run["validation_sources"].values()]


def read_for(run: Mapping[str, Any], tokenizer: Path | None, known: bool, problems: Problems) -> Any:
    """What the data is for (`everything.For`), by a run's settings; known: whether they were given."""
    import configs
    from launch.checking.everything import For
    from smolrgpt_jax.checkpoint.load import Checkpoint
    from smolrgpt_jax.config import PRESETS
    from smolrgpt_jax.data.chat import ChatTokenizer
    from smolrgpt_jax.training.data import read_start, row_shape
    from smolrgpt_jax.training.stages import STAGES

    stage, data = STAGES[run["stage"]], run["data"]
    names = {name: data[name] for name in ("region_names", "closing_answer")}
    if run["init_from"] and as_path(run["init_from"]).exists():
        start = read_start(run, stage)
    else:
        if run["init_from"]:
            problems.add("model", f"config.init_from: {run['init_from']} is not there")
        folder = run["tokenizer"] or Path(configs.__path__[0], "demo_tokenizer")
        start = Checkpoint(PRESETS[run["model"]["preset"]], {}, ChatTokenizer.load(folder).with_format(**names))
    if tokenizer is not None:
        start = dataclasses.replace(start, tokenizer=ChatTokenizer.load(tokenizer).with_format(**names))
    shape = row_shape(start.config, {**data, "row_tokens": data["row_tokens"] or data["max_row_tokens"]}, stage.regions)
    return For(shape, start.tokenizer, data["depth_mode"] if known else None)


@contextlib.contextmanager
def _doubts_on_the_page() -> Iterator[None]:
    """What is doubted of a picture is not logged meanwhile: the page says it by file and record."""
    log = logging.getLogger("smolrgpt_jax.data.images")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line("launch.check_data", __doc__, accept=KINDS)
    formats = {"type": format_of, "action": "append", "default": [], "metavar": "NAME[,FIELD=VALUE...]"}
    parser.add_argument(
        "--format", **formats, help=f"one of {', '.join(READERS)}, instead of what is found; can be repeated"
    )
    typed = sys.argv[1:] if arguments is None else arguments
    settings = [text for text in typed if text.startswith("--config.")]
    args = parser.parse_args([text for text in typed if text not in settings])
    if not (args.folder or args.config) or args.format and not args.folder:
        parser.error("give a folder, or a configuration with --config")
    if settings and not args.config:
        parser.error(f"{settings[0]} changes a configuration, give one with --config")
    from launch import run_config
    from smolrgpt_jax.training.settings import check_values, defaults

    run = run_config.load(args.config, settings).to_dict() if args.config else defaults()
    check_values(run)
    sources = find_sources(args.folder, args.format) if args.folder else sources_of(run)
    if not sources:
        raise ConfigError(f"{args.config} names no sources; give a folder")
    print(f"looking at {args.folder or args.config}: {', '.join(found.name for found in sources)}", flush=True)
    from eval.report.html import render
    from launch.checking.everything import check_all, summary

    problems = Problems(args.accept)
    for file in passed_over(args.folder, sources) if args.folder and not args.format else ():
        problems.add("unlooked", f"{file} is of no format by its name")
    with _doubts_on_the_page():
        found = check_all(sources, read_for(run, args.tokenizer, bool(args.config), problems), args.limit, problems)
    info = {"command": typed_command("launch.check_data"), "data": str(args.folder or args.config)}
    render(args.out, "checked.html", info, problems=problems, **found)
    print(summary(found, problems))
    print(f"page: {args.out}")
    if problems.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
