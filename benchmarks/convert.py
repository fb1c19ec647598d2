"""Time and memory of moving a checkpoint, beside copying its file."""

import filecmp
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks.shared import markdown, progress, show
from eval.command_line import command_line
from smolrgpt_jax.checkpoint.mapping import entries
from smolrgpt_jax.checkpoint.torch import write_folder
from smolrgpt_jax.config import PRESETS, SmolRGPTConfig
from smolrgpt_jax.errors import RunError, told
from smolrgpt_jax.models.smolrgpt import init_params

SIZES = {"tiny": "demo", "full": "smolrgpt"}  # presets
ROOT = Path(__file__).parents[1]


def make_checkpoint(folder: Path, config: SmolRGPTConfig, seed: int) -> int:
    """Writes a random float32 checkpoint as the PyTorch release would; returns its parameters."""
    write_folder(folder, config, init_params(config, jax.random.key(seed)))
    return sum(math.prod(entry.torch_shape) for entry in entries(config))


def forget(path: Path) -> None:
    """Drops a file, or all files under a folder, from the page cache."""
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def copy(source: Path, destination: Path) -> float:
    """Copies a file, flushed to the disk; returns seconds."""
    forget(source)
    start = time.perf_counter()
    shutil.copyfile(source, destination)
    with open(destination, "rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - start


def convert(command: str, source: Path, destination: Path) -> tuple[float, int]:
    """Runs `python -m convert COMMAND` on its own; returns seconds and the peak of its resident memory in bytes."""
    forget(source)
    start = time.perf_counter()
    line = [sys.executable, "-m", "convert", command, str(source), str(destination)]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        # Of the process alone: getrusage would count this process's memory at the fork too.
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *(int(s.split()[1]) << 10 for s in status.splitlines() if s.startswith("VmHWM"))])
        except OSError:
            pass
        time.sleep(0.01)
    if process.returncode:
        raise RunError(f"convert {command} failed")
    return time.perf_counter() - start, peak


def measure(folder: Path, work: Path, rounds: int) -> dict[str, list[tuple[float, int]]]:
    """{step: (seconds, peak bytes) per round}; raises RunError if the file does not come back the same."""
    results: dict[str, list[tuple[float, int]]] = {"copy": [], "torch-to-jax": [], "jax-to-torch": []}
    orbax, back = work / "orbax", work / "back"
    for number in range(1, rounds + 1):
        progress(f"round {number} of {rounds}")
        results["copy"].append((copy(folder / "model.safetensors", work / "copy"), 0))
        (work / "copy").unlink()
        results["torch-to-jax"].append(convert("torch-to-jax", folder, orbax))
        results["jax-to-torch"].append(convert("jax-to-torch", orbax, back))
        for name in ("model.safetensors", "config.json"):
            if not filecmp.cmp(folder / name, back / name, shallow=False):
                raise RunError(f"{name} came back changed")
        shutil.rmtree(orbax)
        shutil.rmtree(back)
    return results


def report(results: dict[str, list[tuple[float, int]]], size: int) -> str:
    """The Markdown table: medians over the rounds, with ratios to copying and to the file's size."""
    seconds = {step: statistics.median(s for s, _ in taken) for step, taken in results.items()}
    rows = [f"copying the file | {seconds['copy']:.1f} | 1 | |"]
    for command in ("torch-to-jax", "jax-to-torch"):
        peak = max(p for _, p in results[command])
        rows.append(
            f"`{command}` | {seconds[command]:.1f} | {seconds[command] / seconds['copy']:.1f} | {peak / 1e6:,.0f} MB | "
            f"{peak / size:.2f}"
        )
    return markdown("step | seconds | x copying | peak memory | x file", rows)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    a = command_line("benchmarks.convert", __doc__, size=SIZES).parse_args(arguments)
    work = a.workdir / "benchmark-convert"
    if work.exists():
        raise RunError(f"{work} exists already")
    try:
        work.mkdir(parents=True)
        folder = work / "checkpoint"
        progress(f"making a {a.size} checkpoint in {folder}")
        parameters = make_checkpoint(folder, PRESETS[SIZES[a.size]], a.seed)
        size = (folder / "model.safetensors").stat().st_size
        results = measure(folder, work, a.rounds)
        print(f"{parameters:,} parameters, float32, {size:,} bytes; {os.cpu_count()} cores; {a.rounds} rounds\n")
        show(report(results, size), a.out)
        print("\nmodel.safetensors and config.json came back byte for byte in every round.")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
