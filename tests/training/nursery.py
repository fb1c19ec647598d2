"""Trainings forked from one process that has everything imported: starting one costs a second instead of ten.

A request is a line of JSON on the standard input, its answer one on the standard output:

    {"workdir", "count", "port", "settings"} -> the ids of so many processes of one run
    [ids]                                    -> their exit statuses, once they have ended
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
from pathlib import Path

from tests.devices import xla_flags

os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags()}
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{sys.argv[1]}/../cache")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from smolrgpt_jax import distributed
from smolrgpt_jax.config import PRESETS, DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.training import run as loop
from tests.training.test_run import VOCAB, run_config

PRESETS["tiny"] = SmolRGPTConfig(
    vision=VisionConfig(width=16, mlp_width=16, heads=1, layers=1, patch_size=16, image_size=32),
    decoder=DecoderConfig(width=16, mlp_width=16, heads=1, kv_heads=1, layers=1, vocab_size=VOCAB),
)


def record_syncs(file: Path) -> None:
    """From now on the file gets the number and size of every file that is on the disk for certain."""
    fsync = os.fsync

    def fsync_and_tell(descriptor) -> None:
        fsync(descriptor)
        about = os.fstat(descriptor)
        with open(file, "a") as told:
            told.write(f"{about.st_ino} {about.st_size}\n")

    os.fsync = fsync_and_tell


def keep_step(folder: Path) -> None:
    """Has the step compiled once for all runs of so many processes, as tracing it takes most of the time to the first one."""
    jit = loop.jit_train_step

    def jit_or_load(*arguments, **options):
        step = []

        def call(*inputs):
            if not step:
                file = folder / f"step{os.environ.get('JAX_PROCESS_ID', '')}"
                if not file.exists():
                    # What comes from the persistent cache cannot be serialised again.
                    compilation_cache.reset_cache()
                    jax.config.update("jax_enable_compilation_cache", False)
                    compiled = jit(*arguments, **options).lower(*inputs).compile()
                    file.write_bytes(pickle.dumps(serialize_executable.serialize(compiled)))
                step.append(serialize_executable.deserialize_and_load(*pickle.loads(file.read_bytes())))
            return step[0](*inputs)

        return call

    loop.jit_train_step = jit_or_load


def train(parent: int, data: str, asked: dict, index: int) -> None:
    workdir = Path(asked["workdir"])
    if asked["count"] > 1:
        address = f"127.0.0.1:{asked['port']}"
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", distributed.PARENT)
        os.environ |= dict(zip(names, map(str, (address, asked["count"], index, parent))))
        distributed.start(initialization_timeout=300)
    record_syncs(workdir.parent / "synced")
    keep_step(workdir.parents[1])
    settings = {"save_every": 4, "validation_sources": {}, "batch_rows": 2} | asked["settings"]
    run = run_config(data, **settings)
    run["data"] |= {"row_tokens": 256, "row_pictures": 1}
    with distributed.end_on_error():
        loop.train(run, workdir)


def main(data: str) -> None:
    parent = os.getpid()
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, list):
            found = [os.waitpid(pid, 0)[1] for pid in asked]
        else:
            found = []
            for index in range(asked["count"]):
                if pid := os.fork():
                    found.append(pid)
                    continue
                log = os.open(Path(asked["workdir"]).parent / f"log{index}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                status = 1
                with contextlib.suppress(SystemExit):
                    try:
                        train(parent, data, asked, index)
                        status = 0
                    finally:
                        sys.stdout.flush()
                        sys.stderr.flush()
                        os._exit(status)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
