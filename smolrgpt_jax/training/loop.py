"""A training run: from a configuration and a work directory to a checkpoint, resumable at any moment."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from smolrgpt_jax import sharding
from smolrgpt_jax.config import PRESETS, SmolRGPTConfig
from smolrgpt_jax.data.datasets import read_sources
from smolrgpt_jax.data.packing import RowShape
from smolrgpt_jax.data.pipeline import FileLoader, PackedRows, train_batches
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.text import ChatTokenizer
from smolrgpt_jax.data.tokenizer_files import tokenizer_files, tokenizer_from_files
from smolrgpt_jax.models.attention import resolve_attention
from smolrgpt_jax.models.smolrgpt import Params, abstract_params, init_params
from smolrgpt_jax.torch_format.folder import TorchLayout, is_torch_folder, read_folder
from smolrgpt_jax.training import checkpoints
from smolrgpt_jax.training.checkpoints import Meta, TrainingCheckpoints
from smolrgpt_jax.training.metrics import MetricsWriter
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer, schedules
from smolrgpt_jax.training.stages import STAGES, Stage
from smolrgpt_jax.training.step import jit_train_step, make_eval_step


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
    tokenizer = tokenizer.with_region_names(run["data"]["region_names"])
    if tokenizer.vocab_size != config.decoder.vocab_size:
        raise RunError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model {config.decoder.vocab_size}"
        )
    try:
        config = model_config(config, run, jax.default_backend())
    except ValueError as error:
        raise RunError(str(error)) from None
    return Start(config, params, tokenizer, layout)


def model_config(config: SmolRGPTConfig, run: Mapping[str, Any], platform: str) -> SmolRGPTConfig:
    """The model as a run computes it on devices of a platform ("tpu", "gpu", "cpu").

    Raises ValueError for an attention that the platform does not have.
    """
    model = run["model"]
    attention = resolve_attention(model.get("attention", "auto"), platform, run["data"]["row_tokens"])
    return config.replace(compute_dtype=model["compute_dtype"], remat=model["remat"], attention=attention)


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
CHANGEABLE = frozenset(
    {
        "log_every",
        "save_every",
        "keep",
        "data.threads",
        "data.cached_pictures",
        "mesh",
        "strategy",
        "model.attention",
    }
)


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same over the steps of a run.

    settings: the configuration; start: what it starts from; batches, bad: its data and the records left out of it; shape: of
    a packed row; steps: of the whole run; rates: schedule per trained group.
    """

    settings: Mapping[str, Any]
    stage: Stage
    start: Start
    mesh: Mesh
    shape: RowShape
    bad: BadRecords
    steps: int
    optimizer: optax.GradientTransformation
    rates: Mapping[str, optax.Schedule]


def train(run: Mapping[str, Any], workdir: str | Path) -> dict[str, Any]:
    """Trains one stage, or goes on with what `workdir` holds.

    run: see configs/default.py for every field. Returns {"step", "steps", "loss", "validation_loss", "stopped"}. Writes
    checkpoints/<step>, metrics.csv and tensorboard/ under workdir. Raises RunError, DataError or CheckpointError.
    """
    workdir = Path(workdir)
    try:
        mesh = sharding.make_mesh(run["mesh"], strategy=run["strategy"])
        sharding.check_batch_rows(run["batch_rows"], mesh, run["accumulation"])
    except ValueError as error:
        raise RunError(str(error)) from None
    stage = STAGES[run["stage"]].with_peaks(run["optimizer"]["peaks"])
    start = read_start(run)
    bad = BadRecords(run["data"]["on_bad_record"])
    shape = row_shape(start.config, run["data"], stage.regions)
    rows = packed_rows(run["data"], run["data"]["sources"], start.tokenizer, shape, bad)
    steps = total_steps(run, rows)
    trained = stage.trained(abstract_params(start.config))
    optimizer_config = OptimizerConfig(**{k: v for k, v in run["optimizer"].items() if k != "peaks"})
    this = Run(
        settings=_plain(run),
        stage=stage,
        start=start,
        mesh=mesh,
        shape=shape,
        bad=bad,
        steps=steps,
        optimizer=make_optimizer(stage, trained, steps, optimizer_config),
        rates=schedules(stage, steps, optimizer_config),
    )
    devices = this.mesh.devices
    print(
        f"stage {stage.name}: {steps} steps of {run['batch_rows']} rows on {devices.size} "
        f"{devices.flat[0].device_kind} device(s)"
    )
    for packed in rows:
        print(f"  training data: {packed.plan}")
    _print_bad(bad)
    print(
        f"  training {len(trained)} of {len(abstract_params(start.config))} parameter arrays; the others are frozen"
    )
    data = iter(
        train_batches(
            rows,
            batch_rows=run["batch_rows"],
            seed=run["seed"],
            weights=list(run["data"]["weights"].values()) or None,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=run["data"]["threads"],
        )
    )
    saver = TrainingCheckpoints(workdir, keep=run["keep"])
    try:
        params, opt_state, step = _initial_state(this, saver, data)
        writer = MetricsWriter(
            workdir,
            ["loss", "grad_norm", "validation_loss", *(f"lr_{g}" for g in this.rates), "samples_per_second"],
            resumed_step=step,
        )
        try:
            return _run_steps(this, params, opt_state, step, data, saver, writer)
        finally:
            writer.close()
            _print_bad(bad)
    finally:
        saver.close()


def _print_bad(bad: BadRecords) -> None:
    if bad.reasons:
        print(f"  {bad.summary()}")


def _plain(value: Any) -> Any:
    """A configuration as plain JSON types, so that what was saved compares with what is given."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _initial_state(
    this: Run, saver: TrainingCheckpoints, data: grain.DatasetIterator
) -> tuple[Params, Any, int]:
    """Parameters, optimiser state and step: of the newest checkpoint in the work directory, else of the start."""
    expected = abstract_params(this.start.config)
    strategy = this.settings["strategy"]
    shardings = sharding.param_shardings(expected, this.mesh, strategy)
    trained = this.stage.trained(expected)
    init_optimizer = jax.jit(
        this.optimizer.init,
        out_shardings=sharding.optimizer_shardings(
            this.optimizer, {n: expected[n] for n in trained}, this.mesh, strategy
        ),
    )
    step = saver.latest_step()
    if step is None:
        if this.start.params is None:
            init = jax.jit(lambda key: init_params(this.start.config, key), out_shardings=shardings)
            params = init(jax.random.key(this.settings["seed"]))
        else:
            given = this.start.params
            params = {n: jax.device_put(np.asarray(given[n], np.float32), shardings[n]) for n in expected}
        return params, init_optimizer({n: params[n] for n in trained}), 0
    meta = saver.read_meta(step)
    changed = _differences(meta.run["run"], this.settings)
    if changed:
        raise RunError(
            f"{saver.folder} was started with other settings ({'; '.join(changed)}); use another work directory"
        )
    like = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=shardings[n]) for n, s in expected.items()}
    params, opt_state = saver.restore(step, like, init_optimizer.eval_shape({n: like[n] for n in trained}))
    data.set_state(meta.run["data"])
    print(f"  going on from step {step}")
    return params, opt_state, step


def _run_steps(
    this: Run,
    params: Params,
    opt_state: Any,
    step: int,
    data: grain.DatasetIterator,
    saver: TrainingCheckpoints,
    writer: MetricsWriter,
) -> dict[str, Any]:
    run, steps = this.settings, this.steps
    trained = {n: params[n] for n in this.stage.trained(params)}
    frozen = {n: v for n, v in params.items() if n not in trained}
    train_step = jit_train_step(
        this.start.config, this.optimizer, trained, this.mesh, run["strategy"], run["accumulation"]
    )
    validate = _validator(this)
    meta = Meta(
        this.start.config.replace(remat="none", attention="xla"),
        tokenizer_files(this.start.tokenizer),
        this.start.layout,
    )
    last: dict[str, float] = {}

    def save() -> None:
        info = {"run": run, "stage": this.stage.name, "step": step, "steps": steps, "metrics": last}
        info["data"] = data.get_state()
        saver.save(step, {**trained, **frozen}, opt_state, dataclasses.replace(meta, run=info))

    def due(every: int) -> bool:
        return step == steps or (every > 0 and step % every == 0)

    samples, since = 0, time.monotonic()
    with (
        stop_on_signal() as signals,
        tqdm(total=steps, initial=step, desc=this.stage.name, unit="step", mininterval=2.0) as bar,
    ):
        while step < steps and not signals:
            batch = next(data)
            samples += questions_in(batch)
            trained, opt_state, metrics = train_step(
                trained, frozen, opt_state, sharding.put_batch(batch, this.mesh)
            )
            step += 1
            bar.update()
            if due(run["log_every"]) or due(run["save_every"]) or due(run["validate_every"]):
                last = {name: float(value) for name, value in metrics.items()}
                if not math.isfinite(last["loss"]):
                    raise RunError(
                        f"the loss is {last['loss']} at step {step}; the last good checkpoint is kept"
                    )
                last["samples_per_second"] = samples / (time.monotonic() - since)
                last |= {f"lr_{g}": float(rate(step - 1)) for g, rate in this.rates.items()}
                if validate is not None and due(run["validate_every"]):
                    last["validation_loss"] = validate({**trained, **frozen})
                samples, since = 0, time.monotonic()
                writer.write(step, last)
                shown = ("loss", "validation_loss", "samples_per_second")
                bar.set_postfix({name: f"{last[name]:.4g}" for name in shown if name in last})
            if due(run["save_every"]):
                save()
        if step < steps:
            logging.warning("signal %s: saving step %d and stopping", signals[0], step)
            # The signal may have come in a step that was saved anyway.
            if saver.latest_step() != step:
                save()
    result = {"step": step, "steps": steps, "stopped": step < steps}
    return result | {name: last[name] for name in ("loss", "validation_loss") if name in last}


def questions_in(batch: Mapping[str, np.ndarray]) -> int:
    """Questions in this process's rows of a packed batch."""
    return sum(len(np.unique(row[row > 0])) for row in batch["question_ids"])


def _validator(this: Run) -> Callable[[Params], float] | None:
    """A function from parameters to the mean validation loss per answer token, or None without validation sources."""
    run = this.settings
    if not run["validation_sources"]:
        return None
    data = {**run["data"], "weights": {}}
    rows = packed_rows(data, run["validation_sources"], this.start.tokenizer, this.shape, this.bad)
    eval_step = jax.jit(make_eval_step(this.start.config, this.mesh))
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
            loss, tokens = eval_step(params, sharding.put_batch(batch, this.mesh))
            total, count = total + float(loss), count + float(tokens)
        return total / max(count, 1.0)

    return validate
