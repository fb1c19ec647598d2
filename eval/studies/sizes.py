"""Widths and heights, as published and with two ideas; the study is told in eval/options.toml, [study_sizes]."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import studies as configs
from eval.answering.asking import run_details
from eval.answering.bench import evaluate
from eval.reading.bench_rules import bench_answer
from eval.scoring.bench_scores import answer_error, is_success
from eval.studies.findings import Limits, Scores, Value, read_predictions, value_intervals
from eval.studies.trained import Changes, Task, Values
from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.data.sources.formats import read_bench
from smolrgpt_jax.files import read_json, write_json
from smolrgpt_jax.model import Model
from smolrgpt_jax.warehouse.other_formats import BENCH_FILE
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

CATEGORIES = {"width": "width_data", "height": "height_data"}
ADJECTIVES = {"width_data": "wide", "height_data": "tall"}
SIZES_FILE = "sizes.json"
MEDIAN = "always the median"


def size_records(records: Sequence[dict], reworded: bool) -> list[dict]:
    """The benchmark's records that ask for a width or a height.

    reworded: with answers in metres, two significant digits, as a model is trained on them.
    """
    kept = []
    for record in records:
        category, (question, answer) = record["qa_info"]["category"], record["conversations"]
        if category not in ADJECTIVES:
            continue
        if reworded:
            metres = bench_answer(category, answer["value"])
            text = f"Region [0] is {float(f'{metres:.2g}'):g} meters {ADJECTIVES[category]}."
            record = {**record, "conversations": [question, {**answer, "value": text}]}
        kept.append(record)
    return kept


class Sizes(Task):
    name = "sizes"

    def prepare(self, root: Path, size: str, seed: int, changes: Changes) -> None:
        for split, parameters in configs.size_warehouses(size, seed).items():
            ensure_warehouse(root / split, WarehouseConfig(**parameters))
            bench = root / split / "bench"
            if not (bench / SIZES_FILE).exists():
                records = size_records(read_json(bench / BENCH_FILE, list), reworded=split == "train")
                write_json(bench / SIZES_FILE, records)

    def configuration(self, root: Path, config: ConfigDict, changes: Changes) -> ConfigDict:
        config.update_from_flattened_dict(self.training)
        source = {"format": "bench", "root": str(root / "train" / "bench"), "annotations": SIZES_FILE}
        config.data.sources, config.data.weights = {"sizes": source}, {}
        config.validation_sources, config.validation_answers = {}, 0
        return config

    def test(self, model: Model, root: Path, out: Path, limits: Limits, **details: Any) -> None:
        about = run_details(model, "eval.studies", data=root / "test", **details)
        evaluate(_pictures(root, "test"), limits.answerer(model), out, about)

    def scores(self, out: Path) -> Values:
        """Success and error of widths and heights."""
        found = read_json(out / "metrics.json", dict)["quantitative"]
        scores: Values = {}
        for name in CATEGORIES:
            error = found[name]["error"]
            scores |= {f"{name} right": found[name]["success"], f"{name} error": None if error is None else 100 * error}
        return scores

    def of_run(self, out: Path) -> Scores:
        return _intervals(read_predictions(out).values(), lambda item, field: item[field])

    def paired(self, first: Path, second: Path) -> Scores:
        """On the same questions; errors of those that both answered readably."""
        before = read_predictions(first)

        def gain(item: Mapping[str, Any], field: str) -> float | None:
            pair = before[item["id"]][field], item[field]
            return None if None in pair else float(pair[1]) - float(pair[0])

        return _intervals(read_predictions(second).values(), gain)

    def baselines(self, root: Path) -> dict[str, Values]:
        return {MEDIAN: median_scores(root)}


TASK = Sizes()


def _pictures(root: Path, split: str) -> list[Picture]:
    return read_bench(root / split / "bench", SIZES_FILE, on_bad_record=BadRecords("error"))


def _intervals(
    items: Collection[Mapping[str, Any]], measure: Callable[[Mapping[str, Any], str], float | None]
) -> Scores:
    found: dict[str, Value] = {}
    for field in ("right", "error"):
        measured = [(item["image"], item["category"], measure(item, field)) for item in items]
        found |= value_intervals(measured, {category: f"{name} {field}" for name, category in CATEGORIES.items()})
    return {score: found[score] for score in (f"{name} {field}" for name in CATEGORIES for field in ("right", "error"))}


def median_scores(root: Path) -> Values:
    """What the median of the training answers would score, for each category."""
    scores: Values = {}
    splits = [[q for p in _pictures(root, split) for q in p.questions] for split in ("train", "test")]
    for name, category in CATEGORIES.items():
        known, asked = ([bench_answer(category, q.answer) for q in of if q.category == category] for of in splits)
        guess = float(np.median(known))
        scores[f"{name} right"] = 100 * float(np.mean([is_success(category, guess, truth) for truth in asked]))
        scores[f"{name} error"] = 100 * float(np.mean([answer_error(category, guess, truth) for truth in asked]))
    return scores
