"""Training time per question: every question in a row of its own, and packed rows.

    python -m benchmarks.packing [--preset smolrgpt] [--scenes 200] [--rounds 3] [--out FILE.md]

Makes procedural questions with the published number per picture and mixture of categories, fills rows of several shapes with
them, and times the full stage-3 step (forward, backward, AdamW; random weights) on some of the rows, by turns, in one process.
The unpacked rows are what the PyTorch release trains on: one question with its picture each, padded to the longest of the batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from smolrgpt_jax.config import PRESETS, Compute, SmolRGPTConfig
from smolrgpt_jax.data.batches import PackedRows
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.data.rows import RowShape, TokenisedQuestions
from smolrgpt_jax.data.sources.warehouse import read_warehouse
from smolrgpt_jax.models.smolrgpt import abstract_params, init_params
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.training.step import make_train_step
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse

TOKENIZER = "configs/demo_tokenizer"
UNPACKED_QUESTIONS = 8  # in a step
ROWS = ((512, 2), (768, 2), (1024, 2), (2048, 4))  # tokens and pictures of a row


@dataclasses.dataclass
class Case:
    """Rows of one kind.

    name: for the table; rows: all of them; batch: those of the timed step; questions: in that step; seconds: of each round.
    """

    name: str
    rows: PackedRows
    batch: dict[str, np.ndarray]
    questions: int
    seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def per_question(self) -> float:
        """Median seconds of a step per question in it."""
        return statistics.median(self.seconds) / self.questions


def case(name: str, rows: PackedRows, count: int) -> Case:
    """A case whose timed step holds `count` rows of the middle of the plan."""
    begin = max(0, (len(rows) - count) // 2)
    batch = rows.batch(range(begin, begin + count))
    parts = [part for row in rows.plan.rows[begin : begin + count] for part in row]
    return Case(name, rows, batch, sum(len(part.questions) for part in parts))


def cases(config: SmolRGPTConfig, pictures: Sequence[Picture], tokenizer: ChatTokenizer) -> list[Case]:
    """The unpacked rows first, then packed ones of every shape."""
    shape = RowShape(0, 1, 18, config.image_tokens, config.vision.image_size, config.mask_grid)
    single = [dataclasses.replace(p, questions=(q,)) for p in pictures for q in p.questions]
    single = single[:: max(1, len(single) // UNPACKED_QUESTIONS)][:UNPACKED_QUESTIONS]
    longest = TokenisedQuestions(single, tokenizer).longest() + tokenizer.prefix(config.image_tokens).size
    unpacked = PackedRows(single, tokenizer, dataclasses.replace(shape, tokens=longest))
    found = [case("one question per row", unpacked, len(single))]
    for tokens, places in ROWS:
        rows = PackedRows(pictures, tokenizer, dataclasses.replace(shape, tokens=tokens, pictures=places))
        found.append(case(f"packed, {tokens} tokens, {places} pictures", rows, max(1, 1024 // tokens)))
    return found


def measure(config: SmolRGPTConfig, measured: Sequence[Case], rounds: int) -> None:
    """Times the cases by turns, after one step of each to compile it."""
    stage = STAGES["sft"]
    names = stage.trained(abstract_params(config))
    optimizer = make_optimizer(stage, names, 100, OptimizerConfig())
    params = init_params(config, jax.random.key(0))
    trained = {name: params.pop(name) for name in names}
    state = jax.jit(optimizer.init)(trained)
    step = jax.jit(make_train_step(config, optimizer, compute=Compute.of(config, remat="full")), donate_argnums=(0, 2))
    batches = [jax.device_put(case.batch) for case in measured]
    for number in range(rounds + 1):
        for case_, batch in zip(measured, batches):
            started = time.perf_counter()
            trained, state, metrics = step(trained, params, state, batch)
            jax.block_until_ready((trained, metrics))
            if number:
                case_.seconds.append(time.perf_counter() - started)


def table(measured: Sequence[Case]) -> str:
    """The Markdown table of a measurement."""
    lines = ["| rows | filled | questions per row | seconds per question | speed-up |", "|---|---|---|---|---|"]
    for found in measured:
        plan = found.rows.plan
        lines.append(
            f"| {found.name} | {plan.fill:.1%} | {plan.questions_per_row:.1f} | {found.per_question:.3g} | "
            f"{measured[0].per_question / found.per_question:.2f} x |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.packing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="smolrgpt", help="size (default %(default)s)")
    parser.add_argument("--scenes", type=int, default=200, help="pictures (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each (default %(default)s)")
    parser.add_argument("--out", type=Path, help="file for the table, too")
    a = parser.parse_args(arguments)
    print(f"making {a.scenes} scenes, then timing {a.rounds} steps of {1 + len(ROWS)} kinds of rows", flush=True)
    config = PRESETS[a.preset]
    tokenizer = ChatTokenizer.load(TOKENIZER)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        numbers = {"scenes": a.scenes, "val_scenes": 0, "test_scenes": 0}
        make_warehouse(data, WarehouseConfig(**numbers, width=480, height=270, mix="published"))
        pictures = read_warehouse(data, "train")
        measured = cases(config, pictures, tokenizer)
    measure(config, measured, a.rounds)
    text = table(measured)
    print(text)
    print(f"{sum(len(p.questions) for p in pictures) / len(pictures):.1f} questions per picture")
    if a.out:
        a.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
