"""Prepares a data set once for training: every picture decoded and resized, every mask sampled, written as ArrayRecord."""

import dataclasses
import time
from pathlib import Path

from eval.command_line import command_line
from smolrgpt_jax.data.images import DEPTH_MODES
from smolrgpt_jax.data.prepared.writer import PrepareConfig, prepare
from smolrgpt_jax.data.records import BadRecords, Picture, describe
from smolrgpt_jax.data.sources.archives import unpack_chunks
from smolrgpt_jax.data.sources.formats import READERS, read_source
from smolrgpt_jax.errors import ConfigError, DataError, told

# Source -> its format: every one that is read but prepared data, captions by the name of their data set.
SOURCES = {"llava" if name == "captions" else name: name for name in READERS if name != "prepared"}


def read(source: str, root: Path, split: str, annotations: str | None, bad: BadRecords) -> list[Picture]:
    """One split of a source; raises DataError."""
    given = {"format": SOURCES[source], "root": root, "annotations": annotations}
    if source == "warehouse":
        for kind in ("images", "depths"):
            unpack_chunks(root / split / kind)
    if source == "warehouse" or source == "smolrgpt" and split in ("train", "val"):
        given["split"] = split
    return read_source(given, bad)


@told("interrupted; started again, it goes on where it was")
def main() -> None:
    known = {"source": SOURCES, "depth_mode": DEPTH_MODES, "on_bad_record": BadRecords.POLICIES}
    parser = command_line("launch.prepare_data", __doc__, **known)
    parser.set_defaults(**dataclasses.asdict(PrepareConfig()))
    a = parser.parse_args()
    splits = a.splits or (["train", "val"] if a.source == "warehouse" else ["train"])
    started = time.monotonic()
    if len(splits) > 1 and (a.source not in ("warehouse", "smolrgpt") or a.annotations):
        raise ConfigError(f"several splits of {a.source} would be the same questions")
    if a.workers is not None and a.workers < 1:
        raise ConfigError(f"{a.workers} workers are too few")
    config = PrepareConfig(a.image_size, a.mask_grid, a.depth_mode, a.pictures_per_shard)
    bad = BadRecords(a.on_bad_record)
    print(f"preparing {', '.join(splits)} of {a.root} ({a.source}) into {a.out}", flush=True)
    pictures = {split: read(a.source, a.root, split, a.annotations, bad) for split in splits}
    for split, found in pictures.items():
        print(f"{split}: {describe(found)}", flush=True)
        if not found:
            first = f", the first reason: {bad.reasons[0]}" if bad.reasons else ""
            raise DataError(f"{a.root} holds no usable question of {split}{first}")
    summary = prepare(pictures, a.out, config, workers=a.workers, on_bad_record=bad)
    for split, found in summary.items():
        parts = ", ".join(f"{name} {number}" for name, number in found["categories"].items())
        held = (
            f"{found['pictures']} pictures, {found['questions']} questions ({parts}), {found['masks']} distinct masks"
        )
        size = f"{found['bytes'] / 1e6:.1f} MB before compression in {found['shards']} shards"
        print(f"{split}: {held}, {size}")
    if bad.reasons:
        print(bad.summary())
    print(f"wrote {a.out} in {time.monotonic() - started:.0f} seconds")


if __name__ == "__main__":
    main()
