"""From the command to a run's first batch, on prepared data of the published size."""

import dataclasses
import gc
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.shared import TOKENIZER, make_questions, markdown, show
from eval.command_line import command_line
from smolrgpt_jax import files
from smolrgpt_jax.data.batches import train_batches
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.errors import told
from smolrgpt_jax.training.run import Run
from smolrgpt_jax.training.settings import defaults
from smolrgpt_jax.training.stages import STAGES


def make_prepared(folder: Path, pictures: int, scenes: int = 512) -> Path:
    """Prepared data of so many pictures, up to whole shards: one shard over and over."""
    out, times = folder / "prepared", -(-pictures // scenes)
    raw = make_questions(folder / "data", scenes, 96, 54, mix="published")
    prepare({"train": raw}, out, PrepareConfig(128, 32, pictures_per_shard=scenes))  # as the demo's model needs them
    shard, about = (
        next(out.glob("*.array_record*")).rename(folder / "shard"),
        files.read_json(out / "dataset_info.json"),
    )
    about["splits"][0]["shardLengths"] = [str(scenes)] * times
    files.write_json(out / "dataset_info.json", about)
    table = pq.read_table(out / "questions-train.parquet")
    with pq.ParquetWriter(out / "questions-train.parquet", table.schema) as writer:
        for i in range(times):
            files.link(shard, out / f"prepared_pictures-train.array_record-{i:05}-of-{times:05}")
            rows = table.to_pylist()
            for row in rows:
                row |= {"picture": row["picture"] + i * scenes, "id": f"{row['id']}_{i}"}
            for row in rows[::2]:  # the same texts come again in about every other question
                row["turns"] = [f"{text} {i}" for text in row["turns"]]
            writer.write_table(pa.Table.from_pylist(rows, table.schema))
    return out


def start_run(root: Path, began: float) -> tuple[list[float], dict[str, int | str]]:
    """Seconds and CPU seconds until the first batch and GiB of memory, and what `data_facts` tells of the data."""
    gc.set_threshold(100_000)  # as launch.train
    run = defaults() | {"tokenizer": TOKENIZER}
    run["model"]["preset"] = "demo"
    run["data"]["sources"]["warehouse"] = {"format": "prepared", "root": str(root), "split": "train"}
    this = Run(run, root.with_name("run"), None, dataclasses.replace(STAGES["sft"], after=()))
    next(train_batches(this.rows, this.order, share=this.share))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return [time.time() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20], this.facts


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    a = command_line("benchmarks.start", __doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root, context = make_prepared(Path(folder), a.pictures), multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
            measured = [pool.submit(start_run, root, time.time()).result()[0] for _ in range(a.rounds)]
    show(markdown("seconds | CPU seconds | GiB", ("{:.1f} | {:.1f} | {:.1f}".format(*m) for m in measured)), a.out)


if __name__ == "__main__":
    main()
