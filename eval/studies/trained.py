"""Variants of the model, trained alike and compared; the study is told in eval/options.toml, [study_trained]."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import demo
from configs import studies as configs
from eval.scoring.in_training import WAREHOUSE_SCORES
from eval.studies import findings
from eval.studies.variants import STAGE, VariantConfig
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint.load import read_checkpoint, tokenizer_files
from smolrgpt_jax.checkpoint.orbax import Meta, save
from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.data.sources.formats import read_warehouse
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
Changes = Mapping[str, Any]


class Task:
    """What variants are trained on and asked: questions about the demo's warehouse.

    `root` is the folder of a seed, `out` that of a variant's results, `changes` what the variant changes.
    """

    name = "warehouse"  # of its folder, which tasks can share that train alike
    results = "eval"  # name of a variant's folder of results
    # What is not the demo's: it had these settings when the tables of docs/studies.md were made.
    training: Changes = {"question_balance": 0.0, "optimizer.final": 0.1}

    def prepare(self, root: Path, size: str, seed: int, changes: Changes) -> None:
        """Makes the data of a variant under `root`, unless they are there."""
        ensure_warehouse(data_folder(root, changes), WarehouseConfig(**configs.trained_warehouse(size, seed, changes)))

    def configuration(self, root: Path, config: ConfigDict, changes: Changes) -> ConfigDict:
        """The run's configuration on those data, from what configs.studies.training made."""
        for source in (*config.data.sources.values(), *config.validation_sources.values()):
            source.root = str(data_folder(root, changes))
        config.update_from_flattened_dict({**self.training, **configs.section(changes, "training")})
        return config

    def test(self, model: Model, root: Path, out: Path, limits: findings.Limits, **details: Any) -> None:
        """Writes the results; details: what the report says of them, "variant" and "checkpoint" among it."""
        details["data"] = root / "data"
        curves = {details["variant"]: details["checkpoint"] / "metrics.csv"}
        pictures = read_warehouse(root / "data", "test", annotations="test_answers.json")
        findings.score(model, pictures, out, limits, curves, **details)

    def scores(self, out: Path) -> Values:
        """What the table shows, in percent."""
        metrics = read_json(out / "metrics.json", dict)
        return {score: metrics[score] for score in findings.SCORES}

    # The same with intervals over pictures, for a study of one seed, and what the second of two variants scores more.
    of_run, paired = staticmethod(findings.of_one_run), staticmethod(findings.paired_differences)

    def baselines(self, root: Path) -> dict[str, Values]:
        """Rows of the table that are not trained."""
        return {}

    def write_more(self, out: Path, folders: Mapping[str, Sequence[Path]], gains: findings.Found) -> None:
        """Writes what the study tells beside its tables; folders: of each variant, one per seed; gains: on the first variant."""


WAREHOUSE = Task()


def data_folder(root: Path, changes: Changes) -> Path:
    """Folder of a variant's warehouse: "data", or "data,max_pallets=10" for one that is not the demo's."""
    return root / ",".join(["data", *_named(configs.section(changes, "warehouse"))])


def variant_config(config: SmolRGPTConfig, changes: Changes) -> SmolRGPTConfig:
    """The configuration with the changes of the model; `image_size` (pixels) is the encoder's."""
    changes = configs.section(changes, "model")
    size = changes.pop("image_size", config.vision.image_size)
    config = config.replace(vision=dataclasses.replace(config.vision, image_size=size))
    published = changes.keys() <= vars(config).keys()
    return config.replace(**changes) if published else VariantConfig(**vars(config) | changes)


def variant_folder(changes: Changes) -> str:
    """Name of the folder of a variant's training: what differs from the published model, "depth_pathway=none"."""
    return ",".join(_named(changes)) or "as_published"


def _named(changes: Changes) -> list[str]:
    return [f"{field}={value}" for field, value in changes.items()]


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
    name: str, task: Task, out: Path, runs: Path, limits: findings.Limits, seeds: Sequence[int], size: str
) -> tuple[findings.Found, findings.Found]:
    """Trains and tests what is not done yet and writes the study; name, size: keys of configs.studies.TRAINED and SIZES.

    Returns the mean scores of each variant, with 95 % intervals over seeds, and what the others score more than the first; of one
    seed its scores, with intervals over pictures. Raises ValueError or OSError.
    """
    if len(set(seeds)) < len(seeds):
        raise DataError(f"the seeds {' '.join(map(str, seeds))} hold one twice; intervals would be too small")
    if not all(0 <= seed < demo.RESERVED_SEEDS for seed in seeds):
        raise DataError(f"seeds must be from 0 to {demo.RESERVED_SEEDS - 1}; scenes of others are the backbone's")
    variants = configs.TRAINED[name]
    scores: dict[str, list[Values]] = {variant: [] for variant in variants}
    folders: dict[str, list[Path]] = {variant: [] for variant in variants}
    for seed in seeds:
        root = runs / task.name / size / f"seed{seed}"
        for variant, changes in variants.items():
            task.prepare(root, size, seed, changes)
            folder = root / variant_folder(changes)
            print(f"{name}: {variant}, seed {seed}", flush=True)
            _check_settings(folder, settings(task, changes, seed, size, limits.max_new_tokens))
            if not (folder / task.results / "metrics.json").exists():
                _train(folder, root, task, changes, seed, size)
                details = {"study": name, "variant": variant, "checkpoint": folder / "train"}
                task.test(load(folder / "train"), root, folder / task.results, limits, **details)
            folders[variant].append(folder)
            scores[variant].append(task.scores(folder / task.results))
        for row, reached in task.baselines(root).items():
            scores.setdefault(row, []).append(reached)
    found = {variant: findings.over_seeds(reached) for variant, reached in scores.items()}
    first, *others = scores
    gains = {variant: findings.differences_over_seeds(scores[first], scores[variant]) for variant in others}
    if len(seeds) == 1:
        results = {variant: folder / task.results for variant, (folder,) in folders.items()}
        found |= {variant: task.of_run(folder) for variant, folder in results.items()}
        gains |= {v: task.paired(results[first], folder) for v, folder in results.items() if v != first}
    findings.write_study(out, found, gains, study=name, seeds=list(seeds), size=size)
    task.write_more(out, folders, gains)
    return found, gains


def settings(task: Task, changes: Changes, seed: int, size: str, max_new_tokens: int | None) -> dict[str, Any]:
    """What the results of a variant depend on, as plain JSON; without folders, which may be moved."""
    weights = (Path(demo.BACKBONE) / "model.safetensors").read_bytes()
    config = variant_config(read_checkpoint(demo.BACKBONE).config, changes)
    run = task.configuration(Path(), configs.training("", "", size, seed, config.image_tokens), changes)
    found = {"training": run.to_dict(), "model": config.to_dict(), "scenes": configs.SIZES[size]["scenes"]}
    return plain(found | {"backbone": hashlib.sha256(weights).hexdigest(), "max_new_tokens": max_new_tokens})


def _check_settings(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Writes the settings of a variant into its folder, or raises DataError if it was begun with others."""
    file = folder / "settings.json"
    if not file.exists():
        if (folder / "train").exists():
            raise DataError(f"{folder} does not say what it was made with; give another folder for the runs")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, wanted)
        return
    if changed := "; ".join(differences(read_json(file, dict), wanted)):
        raise DataError(f"{folder} was made with other settings ({changed}); give another folder for the runs")


def _train(folder: Path, root: Path, task: Task, changes: Changes, seed: int, size: str) -> None:
    backbone, start = read_checkpoint(demo.BACKBONE), folder / "start"
    config = variant_config(backbone.config, changes)
    if not start.exists():
        save(start, start_params(config, backbone.params, seed), Meta(config, tokenizer_files(backbone.tokenizer)))
    run = configs.training(str(root), str(start), size, seed, config.image_tokens)
    if train(task.configuration(root, run, changes).to_dict(), folder / "train", WAREHOUSE_SCORES, STAGE)["stopped"]:
        raise SystemExit("stopped by a signal; the same command goes on from here")
