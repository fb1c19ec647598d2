"""Writes prepared data: shards in parallel processes, each whole or not at all, so that a killed run goes on where it was."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import example_serializer
from tqdm import tqdm

from smolrgpt_jax.data import images
from smolrgpt_jax.data.prepared import reader
from smolrgpt_jax.data.prepared.columns import SCHEMA
from smolrgpt_jax.data.records import BadRecords, Picture, records_of
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import file_aside, read_json, write_json, write_text

# One record per group, so that random access reads nothing else; zstd's fastest level halves the size of pictures.
WRITER_OPTIONS = "group_size:1,zstd:1"


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Height and width of prepared pictures in pixels and of the grid on which masks are sampled; pictures of one ArrayRecord file."""

    image_size: int = 256
    mask_grid: int = 64
    depth_mode: str = "training"  # see `images.read_depth`
    pictures_per_shard: int = 512

    def __post_init__(self) -> None:
        if self.image_size < 16 or self.pictures_per_shard < 1:
            raise ValueError("image_size must be at least 16 and pictures_per_shard at least 1")
        if self.mask_grid < 1 or self.mask_grid % 2:
            raise ValueError(f"mask_grid is {self.mask_grid}, must be {'at least 1' if self.mask_grid < 1 else 'even'}")
        if self.depth_mode not in images.DEPTH_MODES:
            raise ValueError(f"depth mode is {self.depth_mode!r}, must be one of {images.DEPTH_MODES}")

    def features(self) -> tfds.features.FeaturesDict:
        """The TFDS features of an example, see `reader`."""
        size, grid, tensor = self.image_size, self.mask_grid, tfds.features.Tensor
        return tfds.features.FeaturesDict(
            {
                "picture": tfds.features.Text(),
                "image": tensor(shape=(size, size, 3), dtype=np.uint8, encoding="bytes"),
                "depth": tensor(shape=(None,), dtype=np.uint8, encoding="bytes"),
                "masks": tensor(shape=(None, grid, grid // 2), dtype=np.uint8, encoding="bytes"),
                "mask_sizes": tensor(shape=(None, 2), dtype=np.int32),
                "questions": tfds.features.Text(),
            }
        )


@dataclasses.dataclass(frozen=True)
class _Job:
    """One shard of one split: its pictures, where it goes, and beside it a note of what it holds, which says that it is whole."""

    file: Path
    pictures: Sequence[Picture]
    config: PrepareConfig

    @property
    def note(self) -> Path:
        return self.file.with_name(f"{self.file.name}.json")


def prepare(
    splits: Mapping[str, Sequence[Picture]],
    out: str | Path,
    config: PrepareConfig,
    *,
    workers: int | None = None,
    on_bad_record: BadRecords = BadRecords(),
) -> dict[str, dict[str, Any]]:
    """Prepares the pictures of each split with their questions.

    `out` appears when everything is written; until then the work is in "<out>.partial". workers: processes, without effect on the
    result, by default one per core. Returns {split: {"pictures", "questions", "masks", "bytes", "shards", "categories"}}.

    Raises:
      DataError: the folder exists, the partial one is of other data or settings, or, under "error", a picture is bad; or all
        pictures of a split are, then nothing is left behind.
    """
    out = Path(out).absolute()
    if out.exists():
        raise DataError(f"{out} exists already; nothing was written")
    if re.search("[\ud800-\udfff]", str(out)):
        raise DataError(f"{out} has a name that is not UTF-8, which ArrayRecord cannot write")
    aside = out.with_name(f"{out.name}.partial")
    aside.mkdir(parents=True, exist_ok=True)
    _check_settings(aside, splits, config)
    jobs = {split: _jobs(_template(split, aside), pictures, config) for split, pictures in splits.items()}
    _run([job for todo in jobs.values() for job in todo], workers, on_bad_record.policy == "error")
    infos, summary = [], {}
    for split, todo in jobs.items():
        lengths, summary[split] = _finish_split(split, aside, todo, on_bad_record)
        sizes = {"shard_lengths": lengths, "num_bytes": summary[split]["bytes"]}
        infos.append(tfds.core.SplitInfo(name=split, filename_template=_template(split, aside), **sizes))
    about = {"features": config.features(), "split_infos": infos, "version": reader.VERSION}
    template = _template(None, aside)
    tfds.folder_dataset.write_metadata(data_dir=aside, **about, filename_template=template, check_data=False)
    notes = [job.note for todo in jobs.values() for job in todo]
    for file in (*notes, *aside.glob(".*")):  # hidden: what a killed run was writing
        file.unlink()
    aside.rename(out)
    return summary


def _template(split: str | None, folder: Path) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=reader.NAME, split=split, filetype_suffix="array_record"
    )


def _jobs(template: tfds.core.ShardedFileTemplate, pictures: Sequence[Picture], config: PrepareConfig) -> list[_Job]:
    size = config.pictures_per_shard
    count = max(1, -(-len(pictures) // size))
    files = [Path(template.sharded_filepath(shard_index=i, num_shards=count)) for i in range(count)]
    return [_Job(file, pictures[i * size : (i + 1) * size], config) for i, file in enumerate(files)]


def _check_settings(aside: Path, splits: Mapping[str, Sequence[Picture]], config: PrepareConfig) -> None:
    """Writes what is prepared, or compares it with what an interrupted run in this folder was about."""
    file = aside / reader.SETTINGS_FILE
    held = {
        split: {"pictures": len(found), "questions": sum(len(p.questions) for p in found), "sha256": _digest(found)}
        for split, found in splits.items()
    }
    settings = dataclasses.asdict(config) | {"splits": held}
    if not file.exists():
        write_json(file, settings)
    elif read_json(file) != settings:
        raise DataError(f"{aside} was begun with other data or settings; remove it or use another folder")


def _digest(pictures: Sequence[Picture]) -> str:
    """A fingerprint of questions, masks and pictures, so that shards of changed data are not joined with those of an interrupted run."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.id}\n{reader.told_by(picture)}\n{reader.question_rows(picture)}\n".encode())
    return digest.hexdigest()


def _run(jobs: Sequence[_Job], workers: int | None, strict: bool) -> None:
    """Writes the shards that are missing; under `strict` raises DataError for the first bad picture."""
    todo = [job for job in jobs if not job.note.exists()]
    total, left = (sum(len(job.pictures) for job in some) for some in (jobs, todo))
    workers = min(workers or os.cpu_count() or 1, max(1, len(todo)))
    write = functools.partial(_write_shard, strict=strict)
    progress = tqdm(total=total, initial=total - left, desc="pictures", unit="picture", mininterval=1.0)
    with progress, contextlib.ExitStack() as stack:
        each: Callable[..., Iterable[Any]] = map
        if workers > 1:
            # Spawned, not forked: the parent may have threads, which a fork would leave behind with their locks held.
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
            stack.callback(pool.shutdown, cancel_futures=True)
            each = pool.map
        for job, _ in zip(todo, each(write, todo)):
            progress.update(len(job.pictures))


def _end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone, so that nobody writes into a folder of a run begun anew."""

    def watch() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_shard(job: _Job, strict: bool) -> None:
    features = job.config.features()
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    note: dict[str, Any] = {"length": 0, "bytes": 0, "masks": 0, "reasons": [], "rows": []}
    digest = hashlib.sha256()
    with file_aside(job.file) as aside:
        writer = ArrayRecordWriter(str(aside), WRITER_OPTIONS)
        for picture in job.pictures:
            try:
                example, rows = _example(picture, job.config)
            except DataError as error:
                reason = f"{records_of(picture)}: {error}"
                if strict:
                    raise DataError(reason) from error
                note["reasons"].append((reason, len(picture.questions)))
                continue
            # The order of a protocol buffer's map changes from process to process unless it is asked for.
            record = serializer.get_tf_example(features.encode_example(example)).SerializeToString(deterministic=True)
            writer.write(record)
            digest.update(record)
            own = {"place": note["length"], "name": picture.id, "has_depth": bool(example["depth"].size)}
            note["rows"] += [own | row for row in rows]
            note["length"] += 1
            note["bytes"] += len(record)
            note["masks"] += len(example["masks"])
        writer.close()
    write_text(job.note, json.dumps(note | {"sha256": digest.hexdigest()}))


def _example(picture: Picture, config: PrepareConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rows, regions = reader.question_rows(picture)
    packed, sizes = reader.pack_masks(regions, config.mask_grid)
    image, depth = images.read_rgb(picture.image, config.image_size), np.zeros(0, np.uint8)
    if picture.depth is not None:
        depth = images.read_depth(picture.depth, config.image_size, config.depth_mode, picture.image).reshape(-1)
    arrays = {"image": image, "depth": depth, "masks": packed, "mask_sizes": sizes}
    return {"picture": picture.id, **arrays, "questions": reader.to_json(rows)}, rows


def _finish_split(split: str, folder: Path, jobs: Sequence[_Job], bad: BadRecords) -> tuple[list[int], dict[str, Any]]:
    """Writes a split's questions; returns how many pictures its shards hold, and sums over the shards."""
    lengths: list[int] = []
    reasons: list[str] = []
    sums: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    digests = [read_json(job.note).get("sha256", "") for job in jobs]
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    schema = SCHEMA.with_metadata({reader.DIGEST: digest})
    with (
        file_aside(folder / f"questions-{split}.parquet") as aside,
        pq.ParquetWriter(aside, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for job in jobs:
            note = read_json(job.note)
            for reason, questions in note["reasons"]:
                bad.reject(DataError(reason), questions)
                reasons.append(reason)
            rows = [{"picture": sum(lengths) + row.pop("place"), **row} for row in note["rows"]]
            writer.write_table(pa.Table.from_pylist(rows, schema))
            categories.update(row["category"] or "without category" for row in rows)
            lengths.append(note["length"])
            sums.update(pictures=note["length"], questions=len(rows), shards=1)
            sums.update(masks=note["masks"], bytes=note["bytes"])
    if reasons and not any(lengths):
        shutil.rmtree(folder)
        raise DataError(f"no picture of {split} can be used, the first reason: {reasons[0]}")
    return lengths, {**sums, "categories": dict(sorted(categories.items()))}
