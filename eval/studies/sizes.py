"""Widths and heights: the model trained on size questions in the manner of SpatialRGPT-Bench and asked them about unseen scenes, as
published and with two ideas that give it what the mean under a mask forgets.

extent: place and size of the mask, and the depth under it, go into the region's RGB token (eval/studies/region_extent.py).
finer pooling: pixel-shuffle factor 1, so that masks are pooled on a map of twice the resolution.

A success is the benchmark's, 75 to 125 % of the truth; the error is |answer - truth| / truth in percent, of readable answers. Beside the
variants: always the training answers' median, of the same category. Training answers are in metres with two significant digits; test
answers are the benchmark's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs import studies as configs
from eval.answering.bench import evaluate
from eval.answering.model import run_details
from eval.answering.questions import answer_questions
from eval.reading.bench_rules import bench_answer
from eval.scoring.bench_scores import answer_error, is_success
from eval.studies.results import Scores, value_intervals
from eval.studies.trained import Task, Values
from smolrgpt_jax.data.records import BadRecords, Picture
from smolrgpt_jax.data.sources.osd import read_bench
from smolrgpt_jax.files import read_json, write_json
from smolrgpt_jax.model import Model
from smolrgpt_jax.warehouse.other_formats import BENCH_FILE
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

Measure = Callable[[Mapping[str, Any]], float | None]
CATEGORIES = {"width": "width_data", "height": "height_data"}
ADJECTIVES = {"width_data": "wide", "height_data": "tall"}
SIZES_FILE = "sizes.json"
MEDIAN = "always the median"


def size_records(records: Sequence[dict], reworded: bool) -> list[dict]:
    """The benchmark's records that ask for a width or a height.

    reworded: with answers in metres, two significant digits, as a model is trained on them.
    """
    kept = [record for record in records if record["qa_info"]["category"] in ADJECTIVES]
    return [_reworded(record) for record in kept] if reworded else kept


def _reworded(record: dict) -> dict:
    category = record["qa_info"]["category"]
    question, answer = record["conversations"]
    metres = bench_answer(category, answer["value"])
    text = f"Region [0] is {float(f'{metres:.2g}'):g} meters {ADJECTIVES[category]}."
    return {**record, "conversations": [question, {**answer, "value": text}]}


def _prepare(root: Path, size: str, seed: int) -> None:
    for split, parameters in configs.size_warehouses(size, seed).items():
        ensure_warehouse(root / split, WarehouseConfig(**parameters))
        bench = root / split / "bench"
        if not (bench / SIZES_FILE).exists():
            records = size_records(read_json(bench / BENCH_FILE, list), reworded=split == "train")
            write_json(bench / SIZES_FILE, records)


def _configuration(root: Path, config: ConfigDict) -> ConfigDict:
    config.data.sources = {
        "sizes": {"format": "bench", "root": str(root / "train" / "bench"), "annotations": SIZES_FILE}
    }
    config.data.weights = {}
    config.validation_sources = {}
    config.validation_answers = 0
    return config


def _pictures(root: Path, split: str) -> list[Picture]:
    return read_bench(root / split / "bench", SIZES_FILE, on_bad_record=BadRecords("error"))


def _test(
    model: Model, root: Path, out: Path, *, batch_size: int, max_new_tokens: int | None, **details: Any
) -> Mapping[str, Any]:
    from smolrgpt_jax.generation import AnswerOptions

    options = AnswerOptions(batch_size, max_new_tokens or model.answer_tokens)
    return evaluate(
        _pictures(root, "test"),
        lambda asked: answer_questions(model, asked, options),
        out,
        run_details(model, "eval.studies", data=root / "test", **details),
    )


def _scores(metrics: Mapping[str, Any]) -> Values:
    """Success and error of widths and heights, percent."""
    scores: Values = {}
    for name in CATEGORIES:
        found = metrics["quantitative"][name]
        scores[f"{name} right"] = found["success"]
        scores[f"{name} error"] = None if found["error"] is None else 100 * found["error"]
    return scores


def _of_run(folder: Path) -> Scores:
    """Success and error with intervals over pictures."""
    return _intervals(
        read_json(folder / "predictions.json", list), lambda item: item["right"], lambda item: item["error"]
    )


def _paired(first: Path, second: Path) -> Scores:
    """What the second has more, on the same questions; errors of those that both answered readably."""
    before, after = (
        {item["id"]: item for item in read_json(folder / "predictions.json", list)} for folder in (first, second)
    )

    def gain(field: str, item: Mapping[str, Any]) -> float | None:
        pair = before[item["id"]][field], item[field]
        return None if None in pair else float(pair[1]) - float(pair[0])

    return _intervals(list(after.values()), lambda item: gain("right", item), lambda item: gain("error", item))


def _intervals(items: Sequence[Mapping[str, Any]], right: Measure, error: Measure) -> Scores:
    found: dict[str, Any] = {}
    for name, measure in (("right", right), ("error", error)):
        names = {category: f"{quantity} {name}" for quantity, category in CATEGORIES.items()}
        measured = [(item["image"], item["category"], measure(item)) for item in items]
        found |= value_intervals([entry for entry in measured if entry[2] is not None], names)
    return {f"{quantity} {name}": found[f"{quantity} {name}"] for quantity in CATEGORIES for name in ("right", "error")}


def median_scores(root: Path) -> Values:
    """What the median of the training answers would score, for each category."""
    scores: Values = {}
    for name, category in CATEGORIES.items():
        known, asked = (
            [
                bench_answer(category, question.answer)
                for picture in _pictures(root, split)
                for question in picture.questions
                if question.category == category
            ]
            for split in ("train", "test")
        )
        guess = float(np.median(known))
        scores[f"{name} right"] = 100 * float(np.mean([is_success(category, guess, truth) for truth in asked]))
        scores[f"{name} error"] = 100 * float(np.mean([answer_error(category, guess, truth) for truth in asked]))
    return scores


TASK = Task(
    "sizes", _prepare, _configuration, _test, _scores, _of_run, _paired, lambda root: {MEDIAN: median_scores(root)}
)
