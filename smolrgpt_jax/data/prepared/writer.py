"""Writes prepared data: shards in parallel processes, each whole or not at all, so that a killed run goes on where it was."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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
from smolrgpt_jax.data.prepared import schema
from smolrgpt_jax.data.records import BadRecords, Picture, records_of
from smolrgpt_jax.errors import DataError

# One record per group, so that random access reads nothing else; zstd's fastest level halves the size of pictures.
WRITER_OPTIONS = "group_size:1,zstd:1"


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Sizes and processing of prepared data.

    Attributes:
      image_size: height and width of the pictures in pixels.
      mask_grid: height and width of the grid on which masks are sampled.
      depth_mode: see `images.read_depth`.
      pictures_per_shard: pictures of one ArrayRecord file.
    """

    image_size: int = 256
    mask_grid: int = 64
    depth_mode: str = "training"
    pictures_per_shard: int = 512

    def __post_init__(self) -> None:
        if self.image_size < 16 or self.pictures_per_shard < 1:
            raise ValueError("image_size must be at least 16 and pictures_per_shard at least 1")
        if self.mask_grid < 1:
            raise ValueError(f"mask_grid is {self.mask_grid}, must be at least 1")
        if self.depth_mode not in images.DEPTH_MODES:
            raise ValueError(f"depth mode is {self.depth_mode!r}, must be one of {images.DEPTH_MODES}")
        schema.features(self.image_size, self.mask_grid)


@dataclasses.dataclass(frozen=True)
class _Job:
    """One shard of one split: its pictures and where it goes."""

    file: Path
    pictures: tuple[Picture, ...]
    config: PrepareConfig

    @property
    def result(self) -> Path:
        return self.file.with_name(f"{self.file.name}.json")


def prepare(
    splits: Mapping[str, Sequence[Picture]],
    out: str | Path,
    config: PrepareConfig,
    *,
    workers: int | None = None,
    on_bad_record: BadRecords | None = None,
) -> dict[str, Any]:
    """Prepares pictures with their questions.

    Args:
      splits: pictures of each split, as a reader returned them.
      out: folder that appears when everything is written; until then the work is in "<out>.partial".
      config: sizes.
      workers: processes, without effect on the result; by default one per core.
      on_bad_record: what to do with pictures that cannot be decoded.

    Returns:
      {split: {"pictures", "questions", "masks", "bytes", "shards", "categories"}}.

    Raises:
      DataError: the folder exists, the partial one is of other data or settings, or, under "error", a picture is bad;
        or all pictures of a split are, then nothing is left behind.
    """
    out = Path(out).absolute()
    on_bad_record = on_bad_record or BadRecords("error")
    if out.exists():
        raise DataError(f"{out} exists already; nothing was written")
    aside = out.with_name(f"{out.name}.partial")
    aside.mkdir(parents=True, exist_ok=True)
    _check_settings(aside, splits, config)
    jobs: dict[str, list[_Job]] = {}
    for split, pictures in splits.items():
        template = _template(split, aside)
        size = config.pictures_per_shard
        count = max(1, -(-len(pictures) // size))
        jobs[split] = [
            _Job(
                Path(template.sharded_filepath(shard_index=i, num_shards=count)),
                tuple(pictures[i * size : (i + 1) * size]),
                config,
            )
            for i in range(count)
        ]
    _run([job for split in jobs.values() for job in split], workers, on_bad_record)
    for split, todo in jobs.items():
        reasons = [reason for job in todo for reason, _ in _result(job)["reasons"]]
        if reasons and not any(_result(job)["length"] for job in todo):
            shutil.rmtree(aside)
            raise DataError(f"no picture of {split} can be used, the first reason: {reasons[0]}")
    summary = {split: _finish_split(split, todo, aside) for split, todo in jobs.items()}
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[_result(job)["length"] for job in todo],
            num_bytes=summary[split]["bytes"],
            filename_template=_template(split, aside),
        )
        for split, todo in jobs.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=aside,
        features=schema.features(config.image_size, config.mask_grid),
        split_infos=infos,
        version=schema.VERSION,
        filename_template=_template(None, aside),
        check_data=False,
    )
    for todo in jobs.values():
        for job in todo:
            job.result.unlink()
    aside.rename(out)
    return summary


def _template(split: str | None, folder: Path) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=schema.NAME, split=split, filetype_suffix="array_record"
    )


def _check_settings(aside: Path, splits: Mapping[str, Sequence[Picture]], config: PrepareConfig) -> None:
    """Writes what is prepared, or compares it with what an interrupted run in this folder was about."""
    file = aside / schema.SETTINGS_FILE
    settings = dataclasses.asdict(config) | {
        "splits": {
            split: {
                "pictures": len(pictures),
                "questions": sum(len(picture.questions) for picture in pictures),
                "sha256": _digest(pictures),
            }
            for split, pictures in splits.items()
        }
    }
    if file.exists():
        if json.loads(file.read_text()) != settings:
            raise DataError(f"{aside} was begun with other data or settings; remove it or use another folder")
        return
    partial = file.with_suffix(".tmp")
    partial.write_text(json.dumps(settings, indent=1) + "\n")
    partial.rename(file)


def _digest(pictures: Sequence[Picture]) -> str:
    """A fingerprint of all questions, so that shards of changed data are not joined with those of an interrupted run."""
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.id}\n{schema.to_json(schema.question_rows(picture)[0])}\n".encode())
    return digest.hexdigest()


def _run(jobs: Sequence[_Job], workers: int | None, on_bad_record: BadRecords) -> None:
    todo = [job for job in jobs if not job.result.exists()]
    progress = tqdm(
        total=sum(len(job.pictures) for job in jobs),
        initial=sum(len(job.pictures) for job in jobs if job.result.exists()),
        desc="pictures",
        unit="picture",
        mininterval=1.0,
    )
    strict = on_bad_record.policy == "error"
    workers = min(workers or os.cpu_count() or 1, max(1, len(todo)))
    with progress:
        if workers == 1:
            for job in todo:
                _write_shard(job, strict)
                progress.update(len(job.pictures))
        else:
            # Spawned, not forked: the parent may have threads, which a fork would leave behind with their locks held.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
                running = {pool.submit(_write_shard, job, strict): job for job in todo}
                try:
                    for done in as_completed(running):
                        done.result()
                        progress.update(len(running[done].pictures))
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    for job in jobs:
        for reason, questions in _result(job)["reasons"]:
            on_bad_record.reject(DataError(reason), questions)


def _end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone, so that nobody writes into a folder of a run begun anew."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _result(job: _Job) -> dict[str, Any]:
    return json.loads(job.result.read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=2)
def _serializer(image_size: int, grid: int) -> tuple[tfds.features.FeaturesDict, Any]:
    features = schema.features(image_size, grid)
    return features, example_serializer.ExampleSerializer(features.get_serialized_info())


def _write_shard(job: _Job, strict: bool) -> None:
    """Writes one shard and then, beside it, what it holds: the second file says that the first is whole."""
    config = job.config
    features, serializer = _serializer(config.image_size, config.mask_grid)
    partial = job.file.with_name(f"{job.file.name}.tmp")
    writer = ArrayRecordWriter(str(partial), WRITER_OPTIONS)
    result: dict[str, Any] = {"length": 0, "bytes": 0, "masks": 0, "reasons": [], "rows": []}
    for picture in job.pictures:
        try:
            example, rows, distinct = _example(picture, config)
        except DataError as error:
            reason = f"{records_of(picture)}: {error}"
            if strict:
                raise DataError(reason) from error
            result["reasons"].append((reason, len(picture.questions)))
            continue
        # The order of a protocol buffer's map changes from process to process unless it is asked for.
        proto = serializer.get_tf_example(features.encode_example(example))
        record = proto.SerializeToString(deterministic=True)
        writer.write(record)
        has_depth = bool(example["depth"].size)
        result["rows"] += [
            {"place": result["length"], "name": picture.id, "has_depth": has_depth, **row} for row in rows
        ]
        result["length"] += 1
        result["bytes"] += len(record)
        result["masks"] += distinct
    writer.close()
    partial.replace(job.file)
    note = job.result.with_suffix(".tmp")
    note.write_text(json.dumps(result), encoding="utf-8")
    note.replace(job.result)


def _example(picture: Picture, config: PrepareConfig) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    rows, regions = schema.question_rows(picture)
    packed, sizes = schema.pack_masks(regions, config.mask_grid)
    depth = np.zeros(0, np.uint8)
    if picture.depth is not None:
        depth = images.read_depth(picture.depth, config.image_size, config.depth_mode).reshape(-1)
    example = {
        "picture": picture.id,
        "image": images.read_rgb(picture.image, config.image_size),
        "depth": depth,
        "masks": packed,
        "mask_sizes": sizes,
        "questions": schema.to_json(rows),
    }
    return example, rows, len(regions)


def _finish_split(split: str, jobs: Sequence[_Job], folder: Path) -> dict[str, Any]:
    """Writes the split's questions and adds up what its shards hold."""
    found: dict[str, Any] = {"pictures": 0, "questions": 0, "masks": 0, "bytes": 0, "shards": len(jobs)}
    categories: Counter[str] = Counter()
    file = folder / f"questions-{split}.parquet"
    partial = file.with_suffix(".tmp")
    with pq.ParquetWriter(partial, schema.QUESTION_COLUMNS, compression="zstd") as writer:
        for job in jobs:
            result = _result(job)
            rows = [{"picture": found["pictures"] + row.pop("place"), **row} for row in result["rows"]]
            writer.write_table(pa.Table.from_pylist(rows, schema.QUESTION_COLUMNS))
            categories.update(row["category"] or "without category" for row in rows)
            found["pictures"] += result["length"]
            found["questions"] += len(rows)
            found["masks"] += result["masks"]
            found["bytes"] += result["bytes"]
    partial.replace(file)
    return found | {"categories": dict(sorted(categories.items()))}
