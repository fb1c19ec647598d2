"""Time to first token, tokens/s and memory of a decoder: our loop, ONNX in float32, int8 and int4, transformers and llama.cpp."""

import importlib.util
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np

from benchmarks.shared import SIZES, by_turns, markdown, progress, show
from eval.command_line import command_line
from smolrgpt_jax.errors import RunError, told

PROMPT, TOKENS = 100, 100  # read, and then written one by one
OURS, PLAIN, LLAMA = "JAX, float32", "ONNX, float32", "llama.cpp, the GGUF file"
CORES = len(os.sched_getaffinity(0))
STREAMED = 2**28  # float32 numbers: more than any cache holds

# What a process of its own does: reads the prompt and writes one token after the other.
Answer = Callable[[], Iterable[int]]


class Runner(NamedTuple):
    """Where a way to decode has its weights, and how many bytes of them a token reads."""

    make: Callable[[np.ndarray, Path], Answer]
    weights: Path
    size: int


class Turn(NamedTuple):
    """An answer: its tokens, the seconds until the first and between the others, and MB of memory at the most since the process began."""

    tokens: list[int]
    first: float
    rest: list[float]
    memory: float


def with_jax(prompt: np.ndarray, folder: Path) -> Answer:
    """Our loop over one row."""
    from smolrgpt_jax import load
    from smolrgpt_jax.generation import decode

    model = load(folder)
    weights = decode.decode_weights(model.config, model.compute, model.params)
    given = {"tokens": prompt[None], "feature_index": np.full_like(prompt[None], -1)}
    given |= decode.left_padded(np.ones_like(prompt[None]))
    side = model.config.vision.image_size
    given["images"] = np.zeros((1, 1, side, side, 3), np.float32)
    return lambda: (int(column[0]) for column in decode.stream(weights, given, max_new_tokens=TOKENS, eos_id=-1))


def with_onnx(prompt: np.ndarray, file: Path) -> Answer:
    """The exported folder's runner."""
    from smolrgpt_jax.export.onnx_runner import Decoder, load

    decoder = Decoder(load(file), PROMPT + TOKENS)

    def write() -> Iterator[int]:
        logits = decoder.read(prompt, 0)
        for place in itertools.count(PROMPT):
            token = np.argmax(logits)
            yield int(token)
            logits = decoder.read(np.array([token]), place)

    return write


def with_transformers(prompt: np.ndarray, folder: Path) -> Answer:
    """Its model and cache, without what its `generate` does besides."""
    import torch

    from convert.torch_model import load_torch

    model = load_torch(folder).decoder
    model.set_attn_implementation("sdpa")
    torch.set_num_threads(CORES)

    def write() -> Iterator[int]:
        ids, cache = torch.tensor(prompt[None], dtype=torch.int64), None
        while True:
            with torch.no_grad():
                out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            ids, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
            yield int(ids)

    return write


def with_llama(prompt: np.ndarray, file: Path) -> Answer:
    from llama_cpp import Llama

    model = Llama(str(file), n_ctx=PROMPT + TOKENS, n_threads=CORES, n_threads_batch=CORES, verbose=False)

    def write() -> Iterator[int]:
        model.reset()  # or the prompt would not be read again
        return model.generate(prompt.tolist(), temp=0.0, repeat_penalty=1.0)

    return write


def write_weights(language: str | None, size: str | None, folder: Path) -> tuple[int, dict[str, Runner]]:
    """Writes a language model, or a random one, for every runner; returns how many tokens there are to read, and the runners."""
    from benchmarks.language import with_a_picture_tower
    from convert.folders import EXTRA_TOKENS, jax_to_torch
    from convert.gguf_llama import as_folder
    from convert.torch_model import random_torch
    from smolrgpt_jax.checkpoint.load import read_checkpoint
    from smolrgpt_jax.export.onnx_decoder import write_decoder
    from smolrgpt_jax.export.onnx_folder import QUANTS
    from smolrgpt_jax.export.onnx_graph import Graph
    from smolrgpt_jax.models.smolrgpt import abstract_params

    checkpoint = folder / "checkpoint"
    if language is None:
        random_torch(SIZES[size], 0).save(checkpoint)
    else:
        with as_folder(language) as source:
            jax_to_torch(with_a_picture_tower(source, folder), checkpoint)
    read = read_checkpoint(checkpoint)
    plain = sum(4 * p.size for name, p in abstract_params(read.config).items() if name.startswith("decoder/"))
    runners = {OURS: Runner(with_jax, checkpoint, plain)}
    for quant, stored in QUANTS.items():
        file = folder / f"{quant}.onnx"
        with Graph(file) as graph:
            write_decoder(graph, read.config.decoder, read.params, PROMPT + TOKENS, stored, features=True)
        bytes_ = sum(part.stat().st_size for part in folder.glob(f"{quant}.*"))
        runners[f"ONNX, {quant or 'float32'}"] = Runner(with_onnx, file, bytes_)
    runners["transformers, float32"] = Runner(with_transformers, checkpoint, plain)
    if language is not None and (gguf := Path(language)).is_file():
        runners[LLAMA] = Runner(with_llama, gguf, gguf.stat().st_size)
    return read.config.decoder.vocab_size - EXTRA_TOKENS, runners


def memory(kind: str) -> float:
    """MB that this process takes, VmRSS, or took at the most, VmHWM."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(kind)).split()[1]) * 1024 / 1e6


def take_turn(runner: Runner, prompt: np.ndarray) -> Turn:
    """Reads weights and answers twice, the first time to warm up."""
    before = memory("VmRSS")
    write = runner.make(prompt, runner.weights)
    for _ in range(2):
        began = time.perf_counter()
        tokens, times = zip(*((token, time.perf_counter()) for token in itertools.islice(write(), TOKENS)))
    return Turn(list(tokens), times[0] - began, np.diff(times).tolist(), memory("VmHWM") - before)


def bandwidth(numbers: int) -> float:
    """Bytes per second that all cores read from memory together."""
    parts = np.array_split(np.ones(numbers, np.float32), CORES)
    with ThreadPoolExecutor(CORES) as threads:
        return 4 * numbers / by_turns([lambda: list(threads.map(np.max, parts))], 5)[0]


def missing(runners: Mapping[str, Runner]) -> str | None:
    """Why llama.cpp is not measured."""
    if LLAMA not in runners:
        return "no GGUF file"
    return None if importlib.util.find_spec("llama_cpp") else "not installed"


def table(runners: Mapping[str, Runner], turns: Mapping[str, Sequence[Turn]], speed: float) -> str:
    """The medians of every runner's turns; speed: of memory, bytes/s."""
    first = {name: np.median([turn.first for turn in some]) for name, some in turns.items()}
    each = {name: np.median([turn.rest for turn in some]) for name, some in turns.items()}
    most = {name: max(turn.memory for turn in some) for name, some in turns.items()}
    rows = []
    for name, some in turns.items():
        size, same = runners[name].size, np.equal(some[0].tokens, turns[OURS][0].tokens).sum()
        rows.append(
            f"{name} | {1e3 * first[name]:.0f} | {1 / each[name]:.1f} | {each[OURS] / each[name]:.2f} x | {size / 1e6:.0f} "
            f"| {size / speed / each[name]:.0%} | {most[name]:.0f} | {most[name] / most[PLAIN]:.2f} | {same} of {TOKENS}"
        )
    if reason := missing(runners):
        rows.append(f"{LLAMA} | {reason}" + " |" * 7)
    head = "| first token, ms | tokens/s | of ours | MB read per token | share of the floor | memory, MB | of ONNX's float32"
    return markdown(f"{head} | same tokens as ours", rows)


def measure(language: str | None, size: str | None, rounds: int) -> str:
    """Every runner in a process of its own for each turn, and one that reads memory."""
    what = language or f"random weights, size {size}"
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool,
        tempfile.TemporaryDirectory(prefix="decode-") as folder,
    ):
        progress(f"writing {what} for every runner")
        tokens, runners = pool.submit(write_weights, language, size, Path(folder)).result()
        prompt = np.random.default_rng(0).integers(0, tokens, PROMPT).astype(np.int32)
        turns: dict[str, list[Turn]] = {name: [] for name in runners if name != LLAMA or not missing(runners)}
        speed = 0.0
        for number in range(rounds):
            speed = max(speed, pool.submit(bandwidth, STREAMED).result())
            for name, taken in turns.items():
                progress(f"round {number + 1} of {rounds}: {name}")
                taken.append(pool.submit(take_turn, runners[name], prompt).result())
    floor = f"{CORES} threads read {speed / 1e9:.1f} GB/s from memory; the floor is reading a token's weights at that speed."
    return f"{what}; {floor}\n\n{table(runners, turns, speed)}"


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    a = command_line("benchmarks.decode", __doc__, size=SIZES).parse_args(arguments)
    asked = [(language, size) for language, size in ((a.language, None), (None, a.size)) if language or size]
    if not asked:
        raise RunError("give --language, --size or both")
    show("\n\n".join(measure(language, size, a.rounds) for language, size in asked), a.out)


if __name__ == "__main__":
    main()
