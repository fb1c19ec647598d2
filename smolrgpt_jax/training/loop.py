"""A training run: from a configuration and a work directory to a checkpoint, resumable at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from smolrgpt_jax import sharding
from smolrgpt_jax.compile_report.flops import train_flops
from smolrgpt_jax.data.packing import RowShape
from smolrgpt_jax.data.pipeline import PackedRows, batch_questions, train_batches
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.tokenizer_files import tokenizer_files
from smolrgpt_jax.models.attention import resolve_attention
from smolrgpt_jax.models.smolrgpt import Params, abstract_params, init_params
from smolrgpt_jax.training import speed
from smolrgpt_jax.training.checkpoints import Meta, TrainingCheckpoints
from smolrgpt_jax.training.inputs import (
    RunError,
    Start,
    model_config,
    packed_rows,
    read_data,
    read_start,
    row_shape,
    total_steps,
)
from smolrgpt_jax.training.metrics import MetricsWriter
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer, schedules
from smolrgpt_jax.training.stages import STAGES, Stage
from smolrgpt_jax.training.step import jit_train_step, make_eval_step
from smolrgpt_jax.training.stopping import StopTogether, stop_on_signal

BAD_STEP = "nonfinite_step.json"


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
        "data.workers",
        "data.cached_pictures",
        "mesh",
        "strategy",
        "model.attention",
    }
)


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same over the steps of a run.

    settings: the configuration; start: what it starts from; rows, bad: its data and the records left out of it; shape: of a
    packed row; steps: of the whole run; rates: schedule per trained group.
    """

    settings: Mapping[str, Any]
    stage: Stage
    start: Start
    mesh: Mesh
    rows: list[PackedRows]
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
        # Before the data is read, which can take minutes.
        resolve_attention(run["model"]["attention"], jax.default_backend(), run["data"]["row_tokens"])
    except ValueError as error:
        raise RunError(str(error)) from None
    stage = STAGES[run["stage"]].with_peaks(run["optimizer"]["peaks"])
    start = read_start(run)
    bad = BadRecords(run["data"]["on_bad_record"])
    tokenised = read_data(run["data"], run["data"]["sources"], start.tokenizer, bad)
    shape = row_shape(start.config, run["data"], stage.regions, tokenised)
    rows = packed_rows(run["data"], tokenised, start.tokenizer, shape, bad)
    del tokenised  # with their texts, which the rows do not keep
    start = dataclasses.replace(
        start, config=model_config(start.config, run, jax.default_backend(), shape.tokens)
    )
    steps = total_steps(run, rows)
    trained = stage.trained(abstract_params(start.config))
    optimizer_config = OptimizerConfig(**{k: v for k, v in run["optimizer"].items() if k != "peaks"})
    this = Run(
        settings=_plain(run),
        stage=stage,
        start=start,
        mesh=mesh,
        rows=rows,
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
        print(f"  training data: {packed.plan}, {shape.tokens} tokens each")
    _print_bad(bad)
    print(
        f"  training {len(trained)} of {len(abstract_params(start.config))} parameter arrays; the others are frozen"
    )
    data = iter(
        train_batches(
            rows,
            **_order(run),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=run["data"]["threads"],
            workers=run["data"]["workers"],
            put=lambda batch: (speed.counts(batch), sharding.put_batch(batch, this.mesh)),
        )
    )
    saver = TrainingCheckpoints(workdir, keep=run["keep"])
    try:
        params, opt_state, step = _initial_state(this, saver, data)
        writer = MetricsWriter(
            workdir,
            ["loss", "grad_norm", "validation_loss", *(f"lr_{g}" for g in this.rates), *speed.COLUMNS],
            resumed_step=step,
            active=jax.process_index() == 0,
        )
        try:
            return _run_steps(this, workdir, params, opt_state, step, data, saver, writer)
        finally:
            writer.close()
            _print_bad(bad)
    finally:
        data.close()
        saver.close()


def _order(run: Mapping[str, Any]) -> dict[str, Any]:
    """What decides which rows a batch holds."""
    weights = list(run["data"]["weights"].values()) or None
    return {"batch_rows": run["batch_rows"], "seed": run["seed"], "weights": weights}


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
    workdir: Path,
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

    step_flops = train_flops(this.start.config, this.shape, this.stage)[0] * run["batch_rows"]
    devices = this.mesh.devices
    rates = speed.Speed(devices.size, jax.process_count(), step_flops, this.mesh.local_devices[0])
    together = StopTogether(this.mesh)
    with (
        stop_on_signal() as signals,
        tqdm(
            total=steps,
            initial=step,
            desc=this.stage.name,
            unit="step",
            mininterval=2.0,
            disable=jax.process_index() > 0,
        ) as bar,
    ):
        while step < steps and not together(bool(signals)):
            asked = time.monotonic()
            (questions, tokens), batch = next(data)
            rates.waited(time.monotonic() - asked)
            rates.step(questions, tokens)
            trained, opt_state, metrics = train_step(trained, frozen, opt_state, batch)
            step += 1
            bar.update()
            if due(run["log_every"]) or due(run["save_every"]) or due(run["validate_every"]):
                last = {name: float(value) for name, value in metrics.items()}
                if not (math.isfinite(last["loss"]) and math.isfinite(last["grad_norm"])):
                    raise _not_finite(this, workdir, step, last)
                last |= rates.report()
                last |= {f"lr_{g}": float(rate(step - 1)) for g, rate in this.rates.items()}
                if validate is not None and due(run["validate_every"]):
                    last["validation_loss"] = validate({**trained, **frozen})
                    rates.report()  # what validation took is not the steps'
                writer.write(step, last)
                shown = ("loss", "validation_loss", "samples_per_second")
                bar.set_postfix({name: f"{last[name]:.4g}" for name in shown if name in last})
            if due(run["save_every"]):
                save()
        if step < steps:
            why = f"signal {signals[0]}" if signals else "another process was asked to stop"
            logging.warning("%s: saving step %d and stopping", why, step)
            # The signal may have come in a step that was saved anyway.
            if saver.latest_step() != step:
                save()
    result = {"step": step, "steps": steps, "stopped": step < steps}
    return result | {name: last[name] for name in ("loss", "validation_loss") if name in last}


def _not_finite(this: Run, workdir: Path, step: int, values: Mapping[str, float]) -> RunError:
    """Writes the steps since the last report and the records in their batches; returns the error that names the file."""
    first = max(1, step - this.settings["log_every"] + 1)
    found = {
        "step": step,
        "loss": str(values["loss"]),
        "grad_norm": str(values["grad_norm"]),
        "records": {
            number: batch_questions(this.rows, number - 1, **_order(this.settings))
            for number in range(first, step + 1)
        },
    }
    if jax.process_index() == 0:
        (workdir / BAD_STEP).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return RunError(
        f"the loss is {values['loss']} and the gradient's norm {values['grad_norm']} at step {step}; the records since the last "
        f"finite report are in {workdir / BAD_STEP}, the last good checkpoint is kept"
    )


def _validator(this: Run) -> Callable[[Params], float] | None:
    """A function from parameters to the mean validation loss per answer token, or None without validation sources."""
    run = this.settings
    if not run["validation_sources"]:
        return None
    data = {**run["data"], "weights": {}}
    tokenised = read_data(data, run["validation_sources"], this.start.tokenizer, this.bad)
    rows = packed_rows(data, tokenised, this.start.tokenizer, this.shape, this.bad)
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
            put=lambda batch: sharding.put_batch(batch, this.mesh),
        )
        total = count = 0.0
        with contextlib.closing(iter(batches)) as taken:
            for batch in itertools.islice(taken, math.ceil(limit / run["batch_rows"])):
                loss, tokens = eval_step(params, batch)
                total, count = total + float(loss), count + float(tokens)
        return total / max(count, 1.0)

    return validate
