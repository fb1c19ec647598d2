"""What the benchmarks share: random models, procedural questions, timing by turns, Markdown tables."""

import statistics
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from smolrgpt_jax import files
from smolrgpt_jax.config import PRESETS, SmolRGPTConfig
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse

TOKENIZER = "configs/demo_tokenizer"
_FILE = tomllib.loads(Path(__file__).with_name("sizes.toml").read_text(encoding="utf-8"))
# Of models with random weights.
SIZES = {name: SmolRGPTConfig.from_dict(sizes) for name, sizes in _FILE.items()} | {"full": PRESETS["smolrgpt"]}


def make_questions(folder: Path, scenes: int, width: int = 480, height: int = 270, **settings: object) -> list[Picture]:
    """Procedural pictures with their questions, written to a new folder; settings: of WarehouseConfig."""
    numbers = {"scenes": scenes, "val_scenes": 0, "test_scenes": 0}
    make_warehouse(folder, WarehouseConfig(**numbers, width=width, height=height, **settings))
    return read_warehouse(folder, "train")


def by_turns(runs: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each run over the rounds; the runs take turns, after one turn to warm up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(rounds + 1):
        for run, taken in zip(runs, seconds):
            started = time.perf_counter()
            run()
            if number:
                taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in seconds]


def apart(run: Callable[..., Any], *given: Any) -> Any:
    """Calls a function in a process of its own, so that neither memory nor threads of one are the next one's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run, *given).result()


def markdown(head: str, rows: Iterable[str]) -> str:
    """A table; head, rows: cells divided by "|"."""
    columns = head.replace("\\|", "").count("|") + 1
    return "\n".join([f"| {head} |", "|---" * columns + "|", *(f"| {row} |" for row in rows)])


def show(text: str, out: Path | None) -> None:
    """Prints a result, and writes it to a file where one was asked for."""
    print(text)
    if out is not None:
        files.write_text(out, text + "\n")


def progress(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)
