"""Training time per question: every question in a row of its own, and packed rows."""

import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks.shared import TOKENIZER, by_turns, make_questions, markdown, show
from eval.command_line import command_line
from smolrgpt_jax.config import PRESETS, Compute, SmolRGPTConfig
from smolrgpt_jax.data.batches import PackedRows
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.data.rows import RowShape, TokenisedQuestions
from smolrgpt_jax.errors import told
from smolrgpt_jax.models.smolrgpt import abstract_params, init_params
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.training.step import make_train_step

UNPACKED_QUESTIONS = 8  # in a step
ROWS = ((512, 2), (768, 2), (1024, 2), (2048, 4))  # tokens and pictures of a row


@dataclasses.dataclass
class Case:
    name: str  # for the table
    rows: PackedRows
    batch: dict[str, np.ndarray]  # those of the timed step
    questions: int  # in that step
    seconds: float = 0.0  # that it takes

    @property
    def per_question(self) -> float:
        return self.seconds / self.questions


def make_case(name: str, rows: PackedRows, count: int) -> Case:
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
    found = [make_case("one question per row", unpacked, len(single))]
    for tokens, places in ROWS:
        rows = PackedRows(pictures, tokenizer, dataclasses.replace(shape, tokens=tokens, pictures=places))
        found.append(make_case(f"packed, {tokens} tokens, {places} pictures", rows, max(1, 1024 // tokens)))
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

    def run(batch: dict[str, jax.Array]) -> None:
        nonlocal trained, state
        trained, state, metrics = step(trained, params, state, batch)
        jax.block_until_ready((trained, metrics))

    for case, seconds in zip(measured, by_turns([functools.partial(run, batch) for batch in batches], rounds)):
        case.seconds = seconds


def table(measured: Sequence[Case]) -> str:
    rows = (
        f"{case.name} | {case.rows.plan.fill:.1%} | {case.rows.plan.questions_per_row:.1f} | {case.per_question:.3g} | "
        f"{measured[0].per_question / case.per_question:.2f} x"
        for case in measured
    )
    return markdown("rows | filled | questions per row | seconds per question | speed-up", rows)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    a = command_line("benchmarks.packing", __doc__, preset=PRESETS).parse_args(arguments)
    print(f"making {a.scenes} scenes, then timing {a.rounds} steps of {1 + len(ROWS)} kinds of rows", flush=True)
    config = PRESETS[a.preset]
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_questions(Path(folder) / "data", a.scenes, mix="published")
        measured = cases(config, pictures, ChatTokenizer.load(TOKENIZER))
    measure(config, measured, a.rounds)
    show(table(measured), a.out)
    print(f"{np.mean([len(picture.questions) for picture in pictures]):.1f} questions per picture")


if __name__ == "__main__":
    main()
