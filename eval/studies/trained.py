"""Variants of the model, trained alike and compared: encoder and decoder of the shipped backbone, fresh connectors and refiners, one
stage on the demo's warehouse, several seeds.

Every seed has a warehouse of its own. Warehouses and trainings lie in a folder that studies can share: what several of them have in
common, above all the model as published, is trained once. Stopped at any moment and started again, a study goes on from where it was;
results that were made with other settings are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import demo
from configs import studies as configs
from eval.scoring.validation import WAREHOUSE_SCORES
from eval.studies.results import (
    SCORES,
    Found,
    Scores,
    differences_over_seeds,
    of_one_run,
    over_seeds,
    paired_differences,
    write_study,
)
from eval.studies.scoring import score
from eval.studies.variants import STAGE, VariantConfig
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint.load import tokenizer_files
from smolrgpt_jax.checkpoint.orbax import Meta, save
from smolrgpt_jax.checkpoint.torch import read_folder
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json, write_json
from smolrgpt_jax.model import Model
from smolrgpt_jax.models.smolrgpt import init_params
from smolrgpt_jax.training.run import train
from smolrgpt_jax.training.settings import differences, plain
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

KEPT = ("vision_encoder/", "decoder/")
POSITIONS = "vision_encoder/position_embedding"

Values = dict[str, float | None]


@dataclasses.dataclass(frozen=True)
class Task:
    """What variants are trained on and asked.

    Attributes:
      name: of its folder.
      prepare: (folder of a seed, size, seed) -> makes the data under the folder, unless they are there.
      configuration: (folder of a seed, what configs.studies.training made) -> the run's configuration on those data.
      test: (model, folder of a seed, results folder, batch_size=, max_new_tokens=, study=, variant=, checkpoint=) -> metrics,
        written there as metrics.json too.
      scores: metrics -> what the table shows of them, in percent.
      of_run: (results folder) -> scores with intervals over pictures, for a study of one seed.
      paired: (results folders of two variants) -> what the second scores more, with intervals over pictures.
      baselines: (folder of a seed) -> {row of the table: scores} of what is not trained.
    """

    name: str
    prepare: Callable[[Path, str, int], None]
    configuration: Callable[[Path, ConfigDict], ConfigDict]
    test: Callable[..., Mapping[str, Any]]
    scores: Callable[[Mapping[str, Any]], Values]
    of_run: Callable[[Path], Scores]
    paired: Callable[[Path, Path], Scores]
    baselines: Callable[[Path], dict[str, Values]] = lambda root: {}


def _prepare(root: Path, size: str, seed: int) -> None:
    ensure_warehouse(root / "data", WarehouseConfig(**configs.trained_warehouse(size, seed)))


def _test(model: Model, root: Path, out: Path, *, variant: str, checkpoint: Path, **keywords: Any) -> Mapping[str, Any]:
    data = root / "data"
    return score(
        model,
        data,
        "test",
        out,
        annotations="test_answers.json",
        loss_curves={variant: checkpoint / "metrics.csv"},
        variant=variant,
        checkpoint=checkpoint,
        data=data,
        **keywords,
    )


WAREHOUSE = Task(
    "warehouse",
    _prepare,
    lambda root, config: config,
    _test,
    lambda metrics: {score: metrics[score] for score in SCORES},
    of_one_run,
    paired_differences,
)


def variant_config(config: SmolRGPTConfig, changes: Mapping[str, Any]) -> SmolRGPTConfig:
    """The configuration with the changes; `image_size` (pixels) is the encoder's."""
    changes = dict(changes)
    size = changes.pop("image_size", config.vision.image_size)
    config = config.replace(vision=dataclasses.replace(config.vision, image_size=size))
    published = changes.keys() <= vars(config).keys()
    return config.replace(**changes) if published else VariantConfig(**vars(config) | changes)


def variant_folder(changes: Mapping[str, Any]) -> str:
    """Name of the folder of a variant's training: what differs from the published model, "depth_pathway=none"."""
    return ",".join(f"{field}={value}" for field, value in changes.items()) or "as_published"


def start_params(config: SmolRGPTConfig, backbone: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Encoder and decoder of the backbone, the rest drawn from the seed; float32.

    The table of positions is resized, cubically, where pictures have another size.
    """
    params = {name: np.asarray(value) for name, value in init_params(config, jax.random.key(seed)).items()}
    for name, fresh in params.items():
        if not name.startswith(KEPT):
            continue
        kept = np.asarray(backbone[name], np.float32)
        if name == POSITIONS and kept.shape != fresh.shape:
            side, wanted = (round(table.shape[0] ** 0.5) for table in (kept, fresh))
            table = kept.reshape(side, side, -1)
            kept = np.asarray(jax.image.resize(table, (wanted, wanted, table.shape[2]), "cubic")).reshape(fresh.shape)
        params[name] = kept
    return params


def run_study(
    name: str,
    task: Task,
    out: Path,
    runs: Path,
    *,
    seeds: Sequence[int],
    size: str,
    batch_size: int,
    max_new_tokens: int | None,
) -> tuple[Found, Found]:
    """Trains and tests what is not done yet and writes the study.

    Args:
      name: of the study, a key of configs.studies.TRAINED.
      task: what its variants are trained on and asked.
      out: folder of the study.
      runs: folder of warehouses and trainings.
      seeds: one training of each variant per seed.
      size: a key of configs.studies.SIZES.
      batch_size: questions answered at once.
      max_new_tokens: longest answer, None for what `Model.answer_tokens` says.

    Returns:
      The mean scores of each variant, with 95 % intervals over seeds, and what the others score more than the first; of one seed its
      scores, with intervals over pictures.

    Raises:
      ValueError, OSError: with one sentence.
    """
    if len(set(seeds)) < len(seeds):
        raise DataError(f"the seeds {' '.join(map(str, seeds))} hold one twice; intervals would be too small")
    if not all(0 <= seed < demo.RESERVED_SEEDS for seed in seeds):
        raise DataError(f"seeds must be from 0 to {demo.RESERVED_SEEDS - 1}; scenes of others are the backbone's")
    scores: dict[str, list[Values]] = {variant: [] for variant in configs.TRAINED[name]}
    for seed in seeds:
        root = runs / task.name / size / f"seed{seed}"
        task.prepare(root, size, seed)
        for variant, changes in configs.TRAINED[name].items():
            folder = root / variant_folder(changes)
            print(f"{name}: {variant}, seed {seed}", flush=True)
            results = folder / "eval" / "metrics.json"
            _check_settings(folder, settings(task, changes, seed, size, max_new_tokens))
            if not results.exists():
                _train(folder, root, task, changes, seed, size)
                task.test(
                    load(folder / "train"),
                    root,
                    folder / "eval",
                    batch_size=batch_size,
                    max_new_tokens=max_new_tokens,
                    study=name,
                    variant=variant,
                    checkpoint=folder / "train",
                )
            scores[variant].append(task.scores(read_json(results, dict)))
        for row, reached in task.baselines(root).items():
            scores.setdefault(row, []).append(reached)
    found = {variant: over_seeds(reached) for variant, reached in scores.items()}
    first, *others = scores
    gains = {variant: differences_over_seeds(scores[first], scores[variant]) for variant in others}
    if len(seeds) == 1:
        folders = {v: root / variant_folder(changes) / "eval" for v, changes in configs.TRAINED[name].items()}
        found |= {variant: task.of_run(folder) for variant, folder in folders.items()}
        gains |= {v: task.paired(folders[first], folder) for v, folder in folders.items() if v != first}
    write_study(out, found, gains, study=name, seeds=list(seeds), size=size)
    return found, gains


def settings(
    task: Task, changes: Mapping[str, Any], seed: int, size: str, max_new_tokens: int | None
) -> dict[str, Any]:
    """What the results of a variant depend on, as plain JSON; without folders, which may be moved."""
    weights = (Path(demo.BACKBONE) / "model.safetensors").read_bytes()
    config = variant_config(read_folder(Path(demo.BACKBONE))[0], changes)
    run = task.configuration(Path(), configs.training("", "", size, seed, config.image_tokens))
    return plain(
        {
            "training": run.to_dict(),
            "model": config.to_dict(),
            "scenes": configs.SIZES[size]["scenes"],
            "backbone": hashlib.sha256(weights).hexdigest(),
            "max_new_tokens": max_new_tokens,
        }
    )


def _check_settings(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Writes the settings of a variant into its folder, or raises DataError if it was begun with others."""
    file = folder / "settings.json"
    if not file.exists():
        if (folder / "train").exists():
            raise DataError(f"{folder} does not say what it was made with; give another folder for the runs")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, wanted)
        return
    changed = differences(read_json(file, dict), wanted)
    if changed:
        raise DataError(
            f"{folder} was made with other settings ({'; '.join(changed)}); give another folder for the runs"
        )


def _train(folder: Path, root: Path, task: Task, changes: Mapping[str, Any], seed: int, size: str) -> None:
    config, params, _ = read_folder(Path(demo.BACKBONE))
    config = variant_config(config, changes)
    start = folder / "start"
    if not start.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = tokenizer_files(ChatTokenizer.load(demo.TOKENIZER))
        save(start, start_params(config, params, seed), Meta(config, tokenizer))
    run = configs.training(str(root), str(start), size, seed, config.image_tokens)
    if train(task.configuration(root, run).to_dict(), folder / "train", WAREHOUSE_SCORES, STAGE)["stopped"]:
        raise SystemExit("stopped by a signal; the same command goes on from here")
