"""One run compiled in several ways, to see which is fastest by the compiler's clock."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from launch.tpu_report.compiling import compile_run
from launch.tpu_report.report import GIB
from smolrgpt_jax.config import RematPolicy
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.sharding import Strategy


def candidates(run: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and runs: the run itself, then with one thing changed: remat policy, strategy, fsdp axis, rows."""

    def changed(name: str, **changes: Any) -> tuple[str, dict[str, Any]]:
        return name, copy.deepcopy(dict(run)) | changes

    yield changed("as given")
    for policy in get_args(RematPolicy):
        if policy != run["model"]["remat"].replace("auto", "full"):
            yield changed(f"remat {policy}", model={**run["model"], "remat": policy})
    for strategy in get_args(Strategy):
        if strategy != run["strategy"]:
            yield changed(f"strategy {strategy}", strategy=strategy)
    for size in (4, 8, 16, 32):
        yield changed(f"fsdp {size}", mesh={**run["mesh"], "data": -1, "fsdp": size})
    for name, rows in (("half the rows", run["batch_rows"] // 2), ("twice the rows", 2 * run["batch_rows"])):
        yield changed(name, batch_rows=rows)


def tune(run: Mapping[str, Any], topology: str, slices: int) -> str:
    """Compiles every candidate, telling each as it comes; returns the table as text, the fastest per row first.

    Raises RunError where none compiles.
    """
    found, failed, seen = [], [], set()
    for name, trial in candidates(run):
        try:
            report = compile_run(trial, topology, slices)
        except RunError as error:
            failed.append(f"{name}: {error}")
            continue
        time, memory = report["clock"], report["memory"]["total"] / GIB
        per_row = time["seconds"] / report["rows"] * 1e6
        line = f"{name:20} {per_row:8.1f} {time['seconds'] * 1e3:8.1f} {time['cycles'] / 1e6:8.1f} {memory:6.2f} {time['mfu']:6.1%}"
        if (per_row, memory) in seen:
            continue  # the same program, given in other words
        seen.add((per_row, memory))
        found.append((per_row, line))
        print(f"  {line}", flush=True)
    if not found:
        raise RunError(f"none of {len(failed)} ways compiles; {failed[0]}")
    head = f"{'':20} {'us / row':>8} {'ms':>8} {'M cycles':>8} {'GiB':>6} {'MFU':>6}  by the compiler's clock, not run"
    return "\n".join([head, *(line for _, line in sorted(found)), *failed])
