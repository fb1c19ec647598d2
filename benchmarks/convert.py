"""Time and memory of moving a checkpoint, beside copying its file.

    python -m benchmarks.convert --size full --workdir DIR

Makes a random checkpoint in the PyTorch release's layout, copies its file, converts it to JAX and back in processes of their own, and
checks that the file comes back byte for byte. Prints a Markdown table. Before each step the files it reads are dropped from the
page cache, so that all steps read from the disk; all of them flush what they write. Needs four times the checkpoint's size
(full: 7.6 GB) under the work directory, and leaves nothing there.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import statistics
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np

SIZES = {"tiny": "demo", "full": "smolrgpt"}  # presets
ROOT = Path(__file__).parents[1]
BLOCK = 4 << 20  # bytes


def make_checkpoint(folder: Path, preset: str, seed: int) -> int:
    """Writes a random float32 checkpoint as the PyTorch release would, tensor by tensor; returns its parameters."""
    from smolrgpt_jax.checkpoint.mapping import TIED_NAMES, entries
    from smolrgpt_jax.checkpoint.streaming import params_from_tensors
    from smolrgpt_jax.checkpoint.torch import torch_shapes, write_folder
    from smolrgpt_jax.config import PRESETS

    config = PRESETS[preset]
    shapes = torch_shapes(config)

    def draw(name: str) -> np.ndarray:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        return rng.standard_normal(shapes[name], np.float32) * np.float32(0.02)

    table = entries(config)
    write_folder(folder, config, params_from_tensors(table, lambda name: np.dtype(np.float32), draw))
    names = {e.torch for e in table} - ({TIED_NAMES[0]} if config.decoder.tied_head else set())
    return sum(int(np.prod(shapes[n])) for n in names)


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
    with open(source, "rb", buffering=0) as reading, open(destination, "wb", buffering=0) as writing:
        while block := reading.read(BLOCK):
            writing.write(block)
        os.fsync(writing.fileno())
    return time.perf_counter() - start


def convert(command: str, source: Path, destination: Path) -> tuple[float, int]:
    """Runs `python -m convert COMMAND` on its own; returns seconds and the peak of its resident memory in bytes."""
    forget(source)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "convert", command, str(source), str(destination)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
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
        raise SystemExit(f"error: convert {command} failed")
    return time.perf_counter() - start, peak


def measure(folder: Path, work: Path, rounds: int) -> dict[str, list[tuple[float, int]]]:
    """{step: (seconds, peak bytes) per round}; raises SystemExit if the file does not come back the same."""
    results: dict[str, list[tuple[float, int]]] = {"copy": [], "torch-to-jax": [], "jax-to-torch": []}
    orbax, back = work / "orbax", work / "back"
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        results["copy"].append((copy(folder / "model.safetensors", work / "copy"), 0))
        (work / "copy").unlink()
        results["torch-to-jax"].append(convert("torch-to-jax", folder, orbax))
        results["jax-to-torch"].append(convert("jax-to-torch", orbax, back))
        for name in ("model.safetensors", "config.json"):
            if not filecmp.cmp(folder / name, back / name, shallow=False):
                raise SystemExit(f"error: {name} came back changed")
        shutil.rmtree(orbax)
        shutil.rmtree(back)
    return results


def report(results: dict[str, list[tuple[float, int]]], size: int) -> str:
    """The Markdown table: medians over the rounds, with ratios to copying and to the file's size."""
    copying = statistics.median(seconds for seconds, _ in results["copy"])
    lines = [
        "| step | seconds | x copying | peak memory | x file |",
        "|---|---|---|---|---|",
        f"| copying the file | {copying:.1f} | 1 | | |",
    ]
    for command in ("torch-to-jax", "jax-to-torch"):
        seconds = statistics.median(s for s, _ in results[command])
        peak = max(p for _, p in results[command])
        lines.append(
            f"| `{command}` | {seconds:.1f} | {seconds / copying:.1f} | {peak / 1e6:,.0f} MB | {peak / size:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="full", help="tiny: the demo's model; full: the published one")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3, help="the table shows medians")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    work = arguments.workdir / "benchmark-convert"
    if work.exists():
        raise SystemExit(f"error: {work} exists already")
    try:
        work.mkdir(parents=True)
        folder = work / "checkpoint"
        print(f"making a {arguments.size} checkpoint in {folder}", file=sys.stderr, flush=True)
        parameters = make_checkpoint(folder, SIZES[arguments.size], arguments.seed)
        size = (folder / "model.safetensors").stat().st_size
        results = measure(folder, work, arguments.rounds)
        print(
            f"{parameters:,} parameters, float32, {size:,} bytes; {os.cpu_count()} cores; {arguments.rounds} rounds\n"
        )
        print(report(results, size))
        print("\nmodel.safetensors and config.json came back byte for byte in every round.")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
