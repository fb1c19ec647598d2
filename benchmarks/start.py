"""From the command to the end of a run's first step, on prepared data of the published size."""

import gc
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.convert import make_checkpoint
from benchmarks.shared import TOKENIZER, apart, make_questions, markdown, show
from eval.command_line import command_line
from smolrgpt_jax import files
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.errors import told
from smolrgpt_jax.training.run import train
from smolrgpt_jax.training.settings import defaults


def make_prepared(folder: Path, pictures: int, scenes: int = 512, sizes: Sequence[int] = (128, 32)) -> Path:
    """Prepared data of so many pictures, up to whole shards: one shard over and over; sizes: of pictures and masks, the demo's model's."""
    out, times = folder / "prepared", -(-pictures // scenes)
    raw = make_questions(folder / "data", scenes, 96, 54, mix="published")
    prepare({"train": raw}, out, PrepareConfig(*sizes, pictures_per_shard=scenes))
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


def start_run(root: Path, model: Path, began: float, rows: int = 16) -> list[float]:
    """Seconds and CPU seconds until a run of one step has ended, with its checkpoint, and GiB of memory."""
    gc.set_threshold(100_000)  # as launch.train
    run = defaults() | {"tokenizer": TOKENIZER, "init_from": str(model), "stage": "sft", "batch_rows": rows, "steps": 1}
    run["model"]["compute_dtype"] = "float32"
    run["data"]["sources"]["warehouse"] = {"format": "prepared", "root": str(root), "split": "train"}
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        ended = train(run, Path(folder) / "run")
    assert ended["step"] == 1, ended
    used = resource.getrusage(resource.RUSAGE_SELF)
    return [time.time() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20]


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    a = command_line("benchmarks.start", __doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root, model = make_prepared(Path(folder), a.pictures), Path(folder) / "model"
        make_checkpoint(model, PRESETS["demo"], 0)
        measured = [apart(start_run, root, model, time.time()) for _ in range(a.rounds)]
    show(markdown("seconds | CPU seconds | GiB", ("{:.1f} | {:.1f} | {:.1f}".format(*m) for m in measured)), a.out)


if __name__ == "__main__":
    main()
