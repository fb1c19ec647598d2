"""Trainings forked from one process that has everything imported: starting one costs a second instead of ten.

A request is a line of JSON on the standard input, its answer one on the standard output:

    {"workdir", "data", "count", "port", "model", "settings", "data_settings", ...} -> the ids of so many processes of one run
    [ids]                                                                           -> their exit statuses, once they have ended

Beside these a request may hold "other_data", a folder that the last process reads instead; "syncs", a file for what is on the disk for
certain; "step", a folder for the compiled step; and "slow_answers", a file that is made once answers are generated, slowly from then on.
Each process appends what it says to log0, log1, ... beside its work directory, at the end what its training returned.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path
from unittest import mock

from tests.devices import xla_flags

os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags()}
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", sys.argv[1])
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
from jax._src import compiler
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from configs import demo
from eval.scoring.in_training import WAREHOUSE_SCORES
from smolrgpt_jax import distributed
from smolrgpt_jax.config import PRESETS, DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.generation import answers
from smolrgpt_jax.training import run as loop
from smolrgpt_jax.training.metrics import events_writer
from tests.training.test_run import TINY, VOCAB, run_config

ChatTokenizer.load(demo.TOKENIZER)  # imports too
events_writer()  # a run imports it late
LONGEST = 600  # seconds until the processes that are waited for are killed
PRESETS["tiny"] = TINY
PRESETS["tiniest"] = SmolRGPTConfig(
    vision=VisionConfig(width=16, mlp_width=16, heads=1, layers=1, patch_size=16, image_size=32),
    decoder=DecoderConfig(width=16, mlp_width=16, heads=1, kv_heads=1, layers=1, vocab_size=VOCAB),
)


def keep_all_programs() -> None:
    """JAX writes those of the first process alone to its persistent cache, and the others find none of theirs there."""
    write = compiler._cache_write

    def write_as_the_first(*arguments):
        with mock.patch.object(compiler.distributed.global_state, "process_id", 0):
            write(*arguments)

    compiler._cache_write = write_as_the_first


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


def answer_slowly(file: Path) -> None:
    """From now on an answer takes three seconds, and the first makes the file."""
    answer_prompts = answers.answer_prompts

    def slowly(*arguments):
        for found in answer_prompts(*arguments):
            file.touch()
            time.sleep(3)
            yield found

    answers.answer_prompts = slowly


def train(parent: int, asked: dict, index: int) -> None:
    count, last = asked["count"], index == asked["count"] - 1
    if count > 1:
        # One process each: those that watch over them are tested in tests/test_distributed.py.
        address = f"127.0.0.1:{asked['port']}"
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", distributed.PARENT)
        os.environ |= dict(zip(names, map(str, (address, count, index, parent))))
        distributed.start(initialization_timeout=300)
        keep_all_programs()
    for name, begin in (("syncs", record_syncs), ("step", keep_step), ("slow_answers", answer_slowly)):
        if path := asked.get(name):
            begin(Path(path))
    run = run_config(asked.get("other_data", asked["data"]) if last else asked["data"], **asked["settings"])
    run["model"]["preset"] = asked["model"]
    run["data"] |= asked["data_settings"]
    with distributed.end_on_error():
        print("RESULT", json.dumps(loop.train(run, asked["workdir"], WAREHOUSE_SCORES)))


def kill(processes: list[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def main() -> None:
    parent = os.getpid()
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, list):
            # Processes that wait for each other would be waited for as long.
            limit = threading.Timer(LONGEST, kill, [asked])
            limit.start()
            found = [os.waitpid(pid, 0)[1] for pid in asked]
            limit.cancel()
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
                        train(parent, asked, index)
                        status = 0
                    finally:
                        sys.stdout.flush()
                        sys.stderr.flush()
                        os._exit(status)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
