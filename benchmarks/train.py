"""Training time per question: the PyTorch release's way, and packed rows, from the same weights."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

from benchmarks.as_released import AsReleased, micro_batches
from benchmarks.shared import SIZES, TOKENIZER, apart, make_questions, markdown, progress, show
from convert.torch_model import load_torch, random_torch
from eval.command_line import command_line
from smolrgpt_jax.checkpoint.load import read_checkpoint
from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.data.batches import PackedRows
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.data.rows import RowShape
from smolrgpt_jax.errors import RunError, told
from smolrgpt_jax.flops import product_speed, row_parts, train_flops
from smolrgpt_jax.models.smolrgpt import abstract_params
from smolrgpt_jax.training.data import most_answers
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.training.step import make_train_step

STAGE = STAGES["sft"]
OPTIMIZER = OptimizerConfig()
PLANNED = 100  # steps of the schedule
ROW_PICTURES, ROW_REGIONS = 2, 18
TOLERANCE = 1e-3  # of the losses
# Of the two sides: seconds and loss of every step.
Steps = list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Work:
    """What both sides train on: a checkpoint's folder, and the pictures whose questions fill `rows` packed rows."""

    checkpoint: Path
    pictures: list[Picture]
    rows: int
    steps: int
    row_tokens: int
    max_length: int  # of PyTorch's padded rows
    micro_batch: int  # questions whose gradients PyTorch takes at once
    remat: str

    @property
    def questions(self) -> int:
        return sum(len(picture.questions) for picture in self.pictures)


def usual_rows(config: SmolRGPTConfig, pictures: Sequence[Picture], tokens: int, count: int) -> list[Picture]:
    """The pictures, with their questions, of `count` successive rows of the plan, which hold as many questions as `count` usually do.

    Of several such, those nearest the middle of the plan, which is sorted by size. Raises RunError if the plan has fewer rows.
    """
    packed = PackedRows(pictures, ChatTokenizer.load(TOKENIZER), shape_of(config, tokens))
    if count > len(packed):
        raise RunError(f"--rows {count} are more than the {len(packed)} that --scenes {len(pictures)} fill")
    asked = [sum(len(part.questions) for part in row) for row in packed.plan.rows]
    usual, middle = count * np.mean(asked), (len(packed) - count) / 2
    begins = range(len(packed) - count + 1)
    begin = min(begins, key=lambda n: (abs(sum(asked[n : n + count]) - usual), abs(n - middle)))
    parts = [part for row in packed.plan.rows[begin : begin + count] for part in row]
    found: dict[int, list[int]] = {}
    for part in parts:
        found.setdefault(part.picture, []).extend(part.questions)
    return [
        dataclasses.replace(pictures[index], questions=tuple(pictures[index].questions[n] for n in sorted(numbers)))
        for index, numbers in found.items()
    ]


def shape_of(config: SmolRGPTConfig, tokens: int) -> RowShape:
    return RowShape(tokens, ROW_PICTURES, ROW_REGIONS, config.image_tokens, config.vision.image_size, config.mask_grid)


def train_with_torch(work: Work) -> Steps:
    """Steps as the release takes them."""
    training = AsReleased(load_torch(work.checkpoint), STAGE, PLANNED, OPTIMIZER)
    asked = [(picture, question) for picture in work.pictures for question in picture.questions]
    tokenizer = ChatTokenizer.load(TOKENIZER)
    batches = list(micro_batches(training.model, tokenizer, asked, work.micro_batch, work.max_length))
    found: Steps = []
    for step in range(work.steps):
        began = time.perf_counter()
        loss = training.step(step, batches)
        found.append((time.perf_counter() - began, loss))
    return found


def train_packed(work: Work) -> Steps:
    """Steps of the same questions in packed rows."""
    jax.config.update("jax_default_matmul_precision", "highest")
    start = read_checkpoint(work.checkpoint)
    config, tokenizer = start.config, ChatTokenizer.load(TOKENIZER)
    packed = PackedRows(work.pictures, tokenizer, shape_of(config, work.row_tokens))
    batch = jax.device_put(packed.batch(range(len(packed))))
    params = {name: jax.device_put(np.asarray(value, np.float32)) for name, value in start.params.items()}
    names = STAGE.trained(params)
    optimizer = make_optimizer(STAGE, names, PLANNED, OPTIMIZER)
    trained = {name: params.pop(name) for name in names}
    state = jax.jit(optimizer.init)(trained)
    compute = Compute.of(config, remat=work.remat, answers=most_answers([packed]))
    step = jax.jit(make_train_step(config, optimizer, compute=compute), donate_argnums=(0, 2))
    found: Steps = []
    for number in range(work.steps + 1):
        began = time.perf_counter()
        if number == 0:
            step = step.lower(trained, params, state, batch).compile()
            continue
        trained, state, metrics = step(trained, params, state, batch)
        found.append((0.0, float(metrics["loss"])))
        jax.block_until_ready(trained)
        found[-1] = (time.perf_counter() - began, found[-1][1])
    return found


def in_turns(work: Work, rounds: int) -> dict[str, list[Steps]]:
    """Both sides, each in a process of its own, one after the other."""
    found: dict[str, list[Steps]] = {"PyTorch": [], "packed": []}
    for _ in range(rounds):
        for name, train in (("PyTorch", train_with_torch), ("packed", train_packed)):
            steps = apart(train, work)
            found[name].append(steps)
            told = ", ".join(f"{seconds:.1f} s (loss {loss:.5f})" for seconds, loss in steps)
            progress(f"{name}: steps of {work.questions} questions took {told}")
    return found


def table(work: Work, found: dict[str, list[Steps]]) -> str:
    """Seconds per question of the fastest step of each side but the first, their ratio, and the losses."""
    per_question = {
        name: min(seconds for steps in runs for seconds, _ in steps[1:]) / work.questions
        for name, runs in found.items()
    }
    rows = [
        f"{name} | {work.questions} | {seconds:.3g} | {per_question['PyTorch'] / seconds:.2f} x | "
        + ", ".join(f"{loss:.5f}" for _, loss in found[name][0])
        for name, seconds in per_question.items()
    ]
    return markdown("training | questions in a step | seconds per question | speed-up | losses of the steps", rows)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 1 if the losses differ."""
    a = command_line("benchmarks.train", __doc__, size=SIZES).parse_args(arguments)
    config = SIZES[a.size]
    if a.steps < 2:
        raise RunError("--steps must be 2 or more: the first is not timed")
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        pictures = make_questions(Path(folder) / "data", a.scenes, mix="published")
        random_torch(config, 0).save(Path(folder) / "checkpoint")
        chosen = usual_rows(config, pictures, a.row_tokens, a.rows)
        work = Work(
            Path(folder) / "checkpoint", chosen, a.rows, a.steps, a.row_tokens, a.max_length, a.micro_batch, a.remat
        )
        print(
            f"training {a.steps} steps of {work.questions} questions with a random model of size {a.size}", flush=True
        )
        found = in_turns(work, a.rounds)
    parts = row_parts(config, a.row_tokens, ROW_PICTURES, ROW_REGIONS, a.row_tokens // 2)
    needed = train_flops(parts, STAGE.trained(abstract_params(config))) * work.rows / work.questions / 1e9
    measured = product_speed()
    floor = f"At {measured:.0f} GFLOP/s, a float32 product's, the {needed:.0f} GFLOP of a question in such rows take "
    show(f"{table(work, found)}\n\n{floor}{needed / measured:.3g} s.", a.out)
    losses = [np.array([[loss for _, loss in steps] for steps in runs]) for runs in found.values()]
    if np.abs(losses[0] - losses[1]).max() > TOLERANCE * np.abs(losses[0]).max():
        raise SystemExit(1)


if __name__ == "__main__":
    main()
