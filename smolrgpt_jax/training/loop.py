"""A training run: from a configuration and a work directory to a checkpoint, resumable at any moment."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from smolrgpt_jax import sharding
from smolrgpt_jax.config import PRESETS, SmolRGPTConfig
from smolrgpt_jax.data.datasets import read_sources
from smolrgpt_jax.data.packing import RowShape
from smolrgpt_jax.data.pipeline import FileLoader, PackedRows, train_batches
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.text import ChatTokenizer
from smolrgpt_jax.data.tokenizer_files import tokenizer_files, tokenizer_from_files
from smolrgpt_jax.models.smolrgpt import Params, abstract_params, init_params
from smolrgpt_jax.torch_format.folder import TorchLayout, is_torch_folder, read_folder
from smolrgpt_jax.training import checkpoints
from smolrgpt_jax.training.checkpoints import Meta, TrainingCheckpoints
from smolrgpt_jax.training.metrics import MetricsWriter
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer, schedules
from smolrgpt_jax.training.stages import STAGES, Stage
from smolrgpt_jax.training.step import make_eval_step, make_train_step


class RunError(ValueError):
    """A run that cannot start or go on; one sentence."""


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run starts from: configuration, parameters (NumPy), tokenizer files and the PyTorch layout."""

    config: SmolRGPTConfig
    params: Mapping[str, np.ndarray] | None
    tokenizer: ChatTokenizer
    layout: TorchLayout | None


def read_start(run: Mapping[str, Any]) -> Start:
    """Reads `init_from` (a PyTorch folder, a checkpoint or a work directory), or takes the preset with random parameters.

    Raises RunError when the tokenizer does not fit the model's vocabulary.
    """
    params = layout = files = None
    if run["init_from"]:
        path = Path(run["init_from"])
        if is_torch_folder(path):
            config, params, layout = read_folder(path)
        else:
            meta = checkpoints.read_meta(path)
            config, files, layout = meta.config, meta.tokenizer, meta.layout
            params = checkpoints.load_params(path)
    else:
        config = PRESETS[run["model"]["preset"]]
    if run["tokenizer"]:
        tokenizer = ChatTokenizer.load(run["tokenizer"])
    elif files is not None:
        tokenizer = tokenizer_from_files(files)
    else:
        raise RunError("config.tokenizer names no tokenizer and init_from brings none")
    if tokenizer.vocab_size != config.decoder.vocab_size:
        raise RunError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model {config.decoder.vocab_size}"
        )
    config = config.replace(compute_dtype=run["model"]["compute_dtype"], remat=run["model"]["remat"])
    return Start(config, params, tokenizer, layout)


def row_shape(config: SmolRGPTConfig, data: Mapping[str, Any], regions: bool) -> RowShape:
    """The static sizes of a packed row for this model."""
    return RowShape(
        tokens=data["row_tokens"],
        pictures=data["row_pictures"],
        regions=data["row_regions"] if regions else 0,
        image_tokens=config.image_tokens,
        image_size=config.vision.image_size,
        mask_grid=config.mask_grid,
    )


def packed_rows(
    data: Mapping[str, Any],
    sources: Mapping[str, Any],
    tokenizer: ChatTokenizer,
    shape: RowShape,
    bad: BadRecords,
) -> list[PackedRows]:
    """One set of packed rows, or one per source where the sources are mixed by weight."""
    load = FileLoader(shape, data["depth_mode"], cached_pictures=data["cached_pictures"])
    groups = [[sources[name]] for name in data["weights"]] if data["weights"] else [list(sources.values())]
    return [
        PackedRows(
            read_sources(group, bad),
            tokenizer,
            shape,
            load=load,
            depth_mode=data["depth_mode"],
            on_bad_record=bad,
        )
        for group in groups
    ]


def total_steps(run: Mapping[str, Any], rows: list[PackedRows]) -> int:
    """Steps of the run: `steps`, or `epochs` over all packed rows."""
    if run["steps"]:
        return int(run["steps"])
    return math.ceil(run["epochs"] * sum(map(len, rows)) / run["batch_rows"])


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them, so that the step under way is finished and saved."""
    received: list[int] = []
    handlers = {
        s: signal.signal(s, lambda number, _: received.append(number))
        for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b and f"{prefix}{key}" not in CHANGEABLE:
            found.append(f"{prefix}{key} was {a!r}, is {b!r}")
    return found


# Settings that do not change what is computed, so a resumed run may have others.
CHANGEABLE = frozenset({"log_every", "save_every", "keep", "data.threads", "data.cached_pictures", "mesh"})


def train(run: Mapping[str, Any], workdir: str | Path) -> dict[str, Any]:
    """Trains one stage, or goes on with what `workdir` holds.

    run: see configs/default.py for every field. Returns {"step", "steps", "loss", "validation_loss", "stopped"}. Writes
    checkpoints/<step>, metrics.csv and tensorboard/ under workdir. Raises RunError, DataError or CheckpointError.
    """
    workdir = Path(workdir)
    stage = STAGES[run["stage"]].with_peaks(run["optimizer"]["peaks"])
    start = read_start(run)
    config, tokenizer = start.config, start.tokenizer
    bad = BadRecords(run["data"]["on_bad_record"])
    shape = row_shape(config, run["data"], stage.regions)
    rows = packed_rows(run["data"], run["data"]["sources"], tokenizer, shape, bad)
    steps = total_steps(run, rows)
    mesh = sharding.make_mesh(run["mesh"])
    trained_names = stage.trained(abstract_params(config))
    print(
        f"stage {stage.name}: {steps} steps of {run['batch_rows']} rows on {mesh.devices.size} {mesh.devices.flat[0].device_kind} device(s)"
    )
    for packed in rows:
        print(f"  training data: {packed.plan}")
    if bad.reasons:
        print(f"  {bad.summary()}")
    print(
        f"  training {len(trained_names)} of {len(abstract_params(config))} parameter arrays; the others are frozen"
    )

    batches = train_batches(
        rows,
        batch_rows=run["batch_rows"],
        seed=run["seed"],
        weights=list(run["data"]["weights"].values()) or None,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=run["data"]["threads"],
    )
    data = iter(batches)
    optimizer_config = OptimizerConfig(**{k: v for k, v in run["optimizer"].items() if k != "peaks"})
    optimizer = make_optimizer(stage, trained_names, steps, optimizer_config)
    saver = TrainingCheckpoints(workdir, keep=run["keep"])
    try:
        params, opt_state, step = _initial_state(run, start, mesh, optimizer, trained_names, saver, data)
        return _run_steps(
            run,
            workdir,
            stage,
            start,
            mesh,
            optimizer,
            optimizer_config,
            saver,
            data,
            params,
            opt_state,
            step,
            steps,
            shape,
            bad,
        )
    finally:
        saver.close()


def _initial_state(
    run, start: Start, mesh, optimizer, trained_names, saver: TrainingCheckpoints, data
) -> tuple[Params, Any, int]:
    """Parameters and optimiser state on the mesh: of the newest step in the work directory, else of the start."""
    expected = abstract_params(start.config)
    shardings = sharding.param_shardings(expected, mesh)
    trained_shapes = {
        n: jax.ShapeDtypeStruct(expected[n].shape, expected[n].dtype, sharding=shardings[n])
        for n in trained_names
    }
    init_optimizer = jax.jit(optimizer.init)
    step = saver.latest_step()
    if step is None:
        if start.params is None:
            params = jax.jit(lambda key: init_params(start.config, key), out_shardings=shardings)(
                jax.random.key(run["seed"])
            )
        else:
            params = {
                n: jax.device_put(np.asarray(v, np.float32), shardings[n]) for n, v in start.params.items()
            }
        return params, init_optimizer({n: params[n] for n in trained_names}), 0
    meta = saver.read_meta(step)
    changed = _differences(meta.run["run"], _plain(run))
    if changed:
        raise RunError(
            f"{saver.folder} was started with other settings ({'; '.join(changed)}); use another work directory"
        )
    like = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=shardings[n]) for n, s in expected.items()}
    opt_like = init_optimizer.eval_shape(trained_shapes)
    params, opt_state = saver.restore(step, like, opt_like)
    data.set_state(meta.run["data"])
    print(f"  going on from step {step}")
    return params, opt_state, step


def _plain(value: Any) -> Any:
    """A configuration as plain JSON types, so that what was saved compares with what is given."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _run_steps(
    run,
    workdir,
    stage: Stage,
    start: Start,
    mesh,
    optimizer,
    optimizer_config,
    saver,
    data,
    params,
    opt_state,
    step,
    steps,
    shape,
    bad,
) -> dict[str, Any]:
    trained_names = stage.trained(params)
    trained = {n: params[n] for n in trained_names}
    frozen = {n: v for n, v in params.items() if n not in trained}
    train_step = jax.jit(make_train_step(start.config, optimizer, run["accumulation"]), donate_argnums=(0, 2))
    rates = schedules(stage, steps, optimizer_config)
    validate = _validator(run, start, mesh, shape, bad)
    writer = MetricsWriter(
        workdir,
        ["loss", "grad_norm", "validation_loss", *(f"lr_{g}" for g in rates), "samples_per_second"],
        resumed_step=step,
    )
    meta = Meta(start.config.replace(remat="none"), tokenizer_files(start.tokenizer), start.layout)
    last: dict[str, float] = {}
    result: dict[str, Any] = {"steps": steps, "stopped": False}

    def save() -> None:
        run_info = {
            "run": _plain(run),
            "stage": stage.name,
            "step": step,
            "steps": steps,
            "metrics": last,
            "data": data.get_state(),
        }
        saver.save(step, {**trained, **frozen}, opt_state, dataclasses.replace(meta, run=run_info))

    samples, since = 0, time.monotonic()
    metrics: dict[str, jax.Array] = {}
    with (
        stop_on_signal() as signals,
        tqdm(total=steps, initial=step, desc=stage.name, unit="step", mininterval=2.0) as bar,
    ):
        while step < steps and not signals:
            batch = next(data)
            samples += len(
                np.unique(batch["question_ids"] + 1000 * np.arange(len(batch["tokens"]))[:, None])
            ) - len(batch["tokens"])
            trained, opt_state, metrics = train_step(
                trained, frozen, opt_state, sharding.put_batch(batch, mesh)
            )
            step += 1
            bar.update()
            if step % run["log_every"] == 0 or step == steps:
                last = {name: float(value) for name, value in metrics.items()}
                if not math.isfinite(last["loss"]):
                    raise RunError(
                        f"the loss is {last['loss']} at step {step}; the last good checkpoint is kept"
                    )
                now = time.monotonic()
                last["samples_per_second"] = samples / (now - since)
                samples, since = 0, now
                last |= {f"lr_{g}": float(rate(step - 1)) for g, rate in rates.items()}
                if validate is not None and (
                    step == steps or (run["validate_every"] and step % run["validate_every"] == 0)
                ):
                    last["validation_loss"] = validate({**trained, **frozen})
                    since = time.monotonic()
                writer.write(step, last)
                bar.set_postfix(
                    {
                        k: f"{last[k]:.4g}"
                        for k in ("loss", "validation_loss", "samples_per_second")
                        if k in last
                    }
                )
            if step == steps or (run["save_every"] and step % run["save_every"] == 0):
                save()
        if step < steps:
            # The signal may have come in a step that was saved anyway.
            logging.warning("signal %s: saving step %d and stopping", signals[0], step)
            if saver.latest_step() != step:
                save()
            result["stopped"] = True
    writer.close()
    if bad.reasons:
        print(f"  {bad.summary()}")
    return {**result, "step": step, **{k: last[k] for k in ("loss", "validation_loss") if k in last}}


def _validator(run, start: Start, mesh, shape: RowShape, bad: BadRecords):
    """A function params -> mean validation loss per answer token, or None without validation sources."""
    if not run["validation_sources"]:
        return None
    rows = packed_rows({**run["data"], "weights": {}}, run["validation_sources"], start.tokenizer, shape, bad)
    eval_step = jax.jit(make_eval_step(start.config))
    limit = min(run["validation_rows"], sum(map(len, rows)))

    def validate(params: Params) -> float:
        batches = train_batches(
            rows,
            batch_rows=run["batch_rows"],
            seed=0,
            num_epochs=1,
            shuffle=False,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        total = count = 0.0
        for number, batch in enumerate(batches):
            if number * run["batch_rows"] >= limit:
                break
            loss, tokens = eval_step(params, sharding.put_batch(batch, mesh))
            total, count = total + float(loss), count + float(tokens)
        return total / max(count, 1.0)

    return validate
