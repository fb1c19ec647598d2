"""How far a batch may grow at equal samples; the study is told in eval/options.toml, [study_batch]."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from configs import studies as configs
from eval.studies.findings import Found, markdown
from eval.studies.trained import Changes, Task
from smolrgpt_jax.files import read_json, write_text
from smolrgpt_jax.training.noise import noise_scale

PART = 8  # rows of one part of a step
LOST = 1.0  # points of S1: a batch that loses fewer is said to lose nothing


class Batch(Task):
    name = "batch"
    training: Changes = {}

    def configuration(self, root: Path, config: ConfigDict, changes: Changes) -> ConfigDict:
        """As many samples in larger steps; every step in parts, whose gradients tell the noise scale."""
        config = super().configuration(root, config, changes)
        asked = configs.section(changes, "batch")
        times = asked["rows"] / config.batch_rows
        config.batch_rows = asked["rows"]
        config.accumulation = max(2, asked["rows"] // PART)
        config.steps = round(config.steps / times)
        for group, rate in config.optimizer.peaks.items():
            config.optimizer.peaks[group] = rate * times ** asked.get("exponent", 0.0)
        config.log_every = 1  # few steps have to tell the noise
        config.save_every = max(1, round(config.save_every / times))
        return config

    def write_more(self, out: Path, folders: Mapping[str, Sequence[Path]], gains: Found) -> None:
        text = describe(configs.TRAINED["batch"], folders, gains)
        write_text(out / "batches.md", text + "\n")
        print(text)


TASK = Batch()


def describe(variants: Mapping[str, Changes], folders: Mapping[str, Sequence[Path]], gains: Found) -> str:
    """Markdown: steps, S1 and noise scale of each batch, then the largest that loses nothing, measured and predicted.

    variants: the smallest batch first; folders: of each, one per seed; gains: what the others score more, in points.
    """
    base, *_ = variants
    rows: dict[str, list[str]] = {}
    lost: dict[float, list[tuple[int, float]]] = {}  # by exponent, rows and points lost
    predicted = ""
    for variant, changes in variants.items():
        asked = configs.section(changes, "batch")
        steps = read_json(folders[variant][0] / "train" / "settings.json", dict)["steps"]
        scales = [
            scale for run in folders[variant] if (scale := noise_scale(run / "train" / "metrics.csv")) is not None
        ]
        told = f"{statistics.mean(scales):.0f} ({min(scales):.0f} to {max(scales):.0f})" if scales else "-"
        predicted = predicted or told
        gain = 0.0 if variant == base else gains[variant]["S1"][0]
        if variant != base:
            lost.setdefault(asked["exponent"], []).append((asked["rows"], math.inf if gain is None else -gain))
        rows[variant] = [f"{steps:,}", "-" if gain is None else f"{gain:+.1f}", told]
    smallest = configs.section(variants[base], "batch")["rows"]
    found = [f"{largest(batches, smallest)} with the exponent {exponent}" for exponent, batches in lost.items()]
    table = markdown("batch", ["steps", "S1, points more", "noise scale in rows, mean (least to most)"], rows)
    measured = f"Largest batch up to which less than {LOST:g} point is lost, in rows: {', '.join(found)}."
    return f"{table}\n\n{measured} Noise scale at {smallest} rows: {predicted}."


def largest(batches: Sequence[tuple[int, float]], smallest: int) -> int:
    """Rows of the largest batch up to which none loses LOST points or more; batches: rows and points lost of each above `smallest`."""
    held = itertools.takewhile(lambda batch: batch[1] < LOST, sorted(batches))
    return max((rows for rows, _ in held), default=smallest)
