"""Tokens per second and memory of the decoder: our loop, and ONNX programs in float32, int8 and int4."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shared import SIZES, markdown, progress, show
from eval.command_line import command_line
from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.errors import told

PROMPT, TOKENS = 100, 100  # read, and then written one by one
OURS = "JAX, float32"

# What a process of its own does: reads the prompt and writes one token after the other.
Answer = Callable[[], Iterator[int]]
_answers: list[Answer] = []


def parameters(size: str, checkpoint: Path | None) -> tuple[SmolRGPTConfig, Mapping[str, Any]]:
    """Those of a checkpoint, or random ones."""
    import jax

    from smolrgpt_jax.checkpoint.load import read_checkpoint
    from smolrgpt_jax.models.smolrgpt import init_params

    if checkpoint is None:
        return SIZES[size], init_params(SIZES[size], jax.random.key(0))
    read = read_checkpoint(checkpoint)
    return read.config, read.on_devices().params


def with_jax(prompt: np.ndarray, size: str, checkpoint: Path | None) -> Answer:
    """Our loop over one row."""

    from smolrgpt_jax.generation import decode

    config, params = parameters(size, checkpoint)
    weights = decode.decode_weights(config, Compute.of(config), params)
    given = {"tokens": prompt[None], "feature_index": np.full_like(prompt[None], -1)}
    given |= decode.left_padded(np.ones_like(prompt[None]))
    side = config.vision.image_size
    given["images"] = np.zeros((1, 1, side, side, 3), np.float32)
    return lambda: (int(column[0]) for column in decode.stream(weights, given, max_new_tokens=TOKENS, eos_id=-1))


def with_onnx(prompt: np.ndarray, file: Path) -> Answer:
    from smolrgpt_jax.export.onnx_runner import Decoder, load

    decoder = Decoder(load(file), PROMPT + TOKENS)

    def write() -> Iterator[int]:
        logits = decoder.read(prompt, 0)
        for place in range(PROMPT, PROMPT + TOKENS):
            token = np.argmax(logits)
            yield int(token)
            logits = decoder.read(np.array([token]), place)

    return write


def memory() -> float:
    """MB that this process takes."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1000


def start(make: Callable[..., Answer], *given: Any) -> float:
    """Makes what a process does and has it done once; returns the MB of memory that this added."""
    before = memory()
    _answers.append(make(*given))
    list(_answers[0]())
    return memory() - before


def take_turn() -> tuple[list[int], list[float]]:
    """The tokens, and the seconds that each took but the first, for which the prompt is read."""
    tokens, times = zip(*((token, time.perf_counter()) for token in _answers[0]()))
    return list(tokens), np.diff(times).tolist()


def measure(size: str, checkpoint: Path | None, rounds: int, folder: Path) -> str:
    from smolrgpt_jax.export.onnx_decoder import write_decoder
    from smolrgpt_jax.export.onnx_folder import QUANTS
    from smolrgpt_jax.export.onnx_graph import Graph

    config, params = parameters(size, checkpoint)
    prompt = np.random.default_rng(0).integers(0, config.decoder.vocab_size, PROMPT).astype(np.int32)
    runs: dict[str, tuple[Any, ...]] = {OURS: (with_jax, prompt, size, checkpoint)}
    megabytes = {OURS: sum(p.size * 4 for name, p in params.items() if name.startswith("decoder/")) / 1e6}
    for quant, stored in QUANTS.items():
        name, file = f"ONNX, {quant or 'float32'}", folder / f"{quant}.onnx"
        progress(f"writing {name}")
        with Graph(file) as graph:
            write_decoder(graph, config.decoder, params, PROMPT + TOKENS, stored)
        runs[name] = (with_onnx, prompt, file)
        megabytes[name] = sum(part.stat().st_size for part in folder.glob(f"{quant}.*")) / 1e6
    context = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(1, mp_context=context) for name in runs}
    added = {name: pools[name].submit(start, *given).result() for name, given in runs.items()}
    tokens: dict[str, list[int]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}")
        for name, pool in pools.items():
            tokens[name], taken = pool.submit(take_turn).result()
            seconds[name] += taken
    for pool in pools.values():
        pool.shutdown()
    median, fast = ({name: np.percentile(taken, share) for name, taken in seconds.items()} for share in (50, 10))
    rows = [
        f"{name} | {1 / median[name]:.1f} | {median[OURS] / median[name]:.2f} x | {1 / fast[name]:.1f} "
        f"| {fast[OURS] / fast[name]:.2f} x | {megabytes[name]:.0f} | {added[name]:.0f} "
        f"| {added[name] / added['ONNX, float32']:.2f} | {np.equal(tokens[name], tokens[OURS]).sum()} of {TOKENS}"
        for name in runs
    ]
    head = "| tokens/s | ratio | of the fastest tenth | ratio | stored, MB | memory, MB | of ONNX's float32 | same tokens as ours"
    return markdown(head, rows)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    a = command_line("benchmarks.exported", __doc__, size=SIZES).parse_args(arguments)
    print(f"writing {a.rounds} x {TOKENS} tokens with {a.checkpoint or f'a random model of size {a.size}'}", flush=True)
    with tempfile.TemporaryDirectory(prefix="exported-") as folder:
        show(measure(a.size, a.checkpoint, a.rounds, Path(folder)), a.out)


if __name__ == "__main__":
    main()
