"""What one GPU does with the model: training steps, answers, and its numbers against the CPU's."""

import functools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.shared import SIZES, TOKENIZER, make_questions, markdown, progress, show
from eval.command_line import command_line
from smolrgpt_jax.checkpoint.load import Checkpoint
from smolrgpt_jax.chips import peak_flops
from smolrgpt_jax.config import Compute, RematPolicy, SmolRGPTConfig
from smolrgpt_jax.data.batches import PackedRows
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.prompts import plan_prompts, prompt_shape
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.data.rows import RowShape
from smolrgpt_jax.errors import RunError, told
from smolrgpt_jax.flops import row_parts, train_flops
from smolrgpt_jax.generation.engine import AnswerOptions, answer_prompts
from smolrgpt_jax.model import Model
from smolrgpt_jax.models.attention import resolve_attention
from smolrgpt_jax.models.smolrgpt import Params, init_params
from smolrgpt_jax.training.data import most_answers
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.training.step import gradients, make_train_step

STAGE = STAGES["sft"]
STEPS = 5  # timed, after one
NEW_TOKENS = 64
TOLERANCE = 1e-4  # of loss and gradient norm in float32, against the CPU
GIB = 2**30
Batch = dict[str, np.ndarray]


def split(params: Params) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trained and frozen parameters."""
    trained = STAGE.trained(params)
    return {n: params[n] for n in trained}, {n: p for n, p in params.items() if n not in trained}


def computes(config: SmolRGPTConfig, dtype: str, row_tokens: int, answers: int, platform: str) -> Iterator[Compute]:
    """Every way to compute a step on the platform: attention and remat."""
    heads = (config.vision.width // config.vision.heads, config.decoder.head_dim)
    for name in ("xla", "cudnn"):
        try:
            attention = resolve_attention(name, platform, row_tokens, dtype, heads)
        except RunError as error:
            progress(str(error))
            continue
        for remat in get_args(RematPolicy):
            yield Compute.of(config, dtype=dtype, remat=remat, attention=attention, answers=answers)


def time_step(config: SmolRGPTConfig, params: Params, batch: Batch, compute: Compute) -> tuple[float, float, float]:
    """Seconds of a training step, GiB of temporaries, and the loss of the last step."""
    trained, frozen = jax.tree.map(jnp.copy, split(params))  # they are donated
    optimizer = make_optimizer(STAGE, trained, 100, OptimizerConfig())
    state = jax.jit(optimizer.init)(trained)
    placed = jax.device_put(batch)
    make = jax.jit(make_train_step(config, optimizer, compute=compute), donate_argnums=(0, 2))
    step = make.lower(trained, frozen, state, placed).compile()
    began = loss = 0.0
    for number in range(STEPS + 1):
        trained, state, metrics = step(trained, frozen, state, placed)
        if number == 0:
            jax.block_until_ready(trained)
            began = time.perf_counter()
        loss = metrics["loss"]
    jax.block_until_ready(trained)
    seconds = (time.perf_counter() - began) / STEPS
    return seconds, step.memory_analysis().temp_size_in_bytes / GIB, float(loss)


def step_rows(config: SmolRGPTConfig, params: Params, rows: PackedRows, count: int, dtype: str) -> Iterator[str]:
    """The table's rows: one for every way to compute a step."""
    device, shape, answers = jax.devices()[0], rows.shape, most_answers([rows])
    batch = rows.batch(range(min(count, len(rows))))
    counted = len(batch["tokens"])
    questions = sum(len(part.questions) for row in rows.plan.rows[:counted] for part in row)
    parts = row_parts(config, shape.tokens, shape.pictures, shape.regions, answers)
    needed, peak = train_flops(parts, STAGE.trained(params)) * counted, peak_flops(device.device_kind)
    for compute in computes(config, dtype, shape.tokens, answers, device.platform):
        name = f"{compute.attention} | {compute.remat}"
        try:
            seconds, temporaries, loss = time_step(config, params, batch, compute)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield f"{name} | does not fit | | | |"
            continue
        mfu = f"{needed / seconds / peak:.1%}" if peak else "peak unknown"
        yield f"{name} | {seconds * 1e3:.1f} | {questions / seconds:.1f} | {mfu} | {temporaries:.2f} | {loss:.4f}"
        progress(f"{compute.attention}, remat {compute.remat}: {seconds * 1e3:.1f} ms")


def answer_rows(model: Model, pictures: Sequence[Picture], sizes: Sequence[int]) -> Iterator[str]:
    """The table's rows: tokens per second of the engine with so many questions at once."""
    prompts = plan_prompts(pictures, model.tokenizer, prompt_shape(model.config))
    for size in sizes:
        options, taken, tokens = AnswerOptions(size, NEW_TOKENS), 0.0, 0
        for _ in range(2):  # the first time it is compiled
            began = time.perf_counter()
            tokens = sum(ids.size for finished in answer_prompts(model, prompts, options) for ids in finished.values())
            taken = time.perf_counter() - began
        yield f"{size} | {tokens} | {tokens / taken:.0f}"


def against_cpu(config: SmolRGPTConfig, params: Params, batch: Batch) -> tuple[float, float]:
    """How far loss and gradient norm of a float32 step are from the CPU's, relatively."""
    found = []
    with jax.default_matmul_precision("highest"):
        for device in (jax.devices()[0], jax.devices("cpu")[0]):
            trained, frozen = split(jax.device_put(params, device))
            grads, loss = jax.jit(functools.partial(gradients, config))(trained, frozen, jax.device_put(batch, device))
            found.append((float(loss), float(optax.global_norm(grads))))
    (loss, norm), (loss_there, norm_there) = found
    return abs(loss / loss_there - 1), abs(norm / norm_there - 1)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 1 if the numbers are not the CPU's."""
    a = command_line("benchmarks.gpu", __doc__, size=SIZES).parse_args(arguments)
    config, tokenizer, device = SIZES[a.size], ChatTokenizer.load(TOKENIZER), jax.devices()[0]
    print(f"{device.device_kind} ({device.platform}), a random model of size {a.size}, {a.dtype}", flush=True)
    shape = RowShape(a.row_tokens, 2, 18, config.image_tokens, config.vision.image_size, config.mask_grid)
    params = init_params(config, jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_questions(Path(folder) / "data", a.scenes, mix="published")
        rows = PackedRows(pictures, tokenizer, shape)
        steps = list(step_rows(config, params, rows, a.rows, a.dtype))
        model = Model(**vars(Checkpoint(config, params, tokenizer)), compute=Compute.of(config, dtype=a.dtype))
        answers = list(answer_rows(model, pictures[: a.pictures], a.batch_sizes))
        differences = against_cpu(config, params, rows.batch([len(rows) // 2]))
    head = "attention | remat | ms per step | questions/s | MFU | GiB of temporaries | loss"
    numbers = "Loss and gradient norm in float32 differ from the CPU's by {:.1e} and {:.1e}.".format(*differences)
    tables = [markdown(head, steps), markdown("questions at once | tokens | tokens/s", answers), numbers]
    show("\n\n".join(tables), a.out)
    if max(differences) > TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
