"""A training run: from a configuration and a work directory to a checkpoint, resumable at any moment."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from smolrgpt_jax import sharding
from smolrgpt_jax.checkpoint.load import tokenizer_files
from smolrgpt_jax.checkpoint.orbax import Meta, TrainingCheckpoints
from smolrgpt_jax.config import Compute
from smolrgpt_jax.data.batches import PackedRows, batch_questions, train_batches
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.rows import RowShape
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.flops import train_flops
from smolrgpt_jax.models.attention import resolve_attention
from smolrgpt_jax.models.smolrgpt import Params, abstract_params, init_params
from smolrgpt_jax.training import speed
from smolrgpt_jax.training.data import (
    Start,
    drawn_anew,
    last_step,
    naming,
    packed_rows,
    read_data,
    read_start,
    row_shape,
    run_compute,
    total_steps,
)
from smolrgpt_jax.training.metrics import MetricsWriter
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer, schedules
from smolrgpt_jax.training.profiling import StepsTrace
from smolrgpt_jax.training.selection import Selection
from smolrgpt_jax.training.settings import check, differences, plain
from smolrgpt_jax.training.stages import STAGES, Stage
from smolrgpt_jax.training.step import jit_train_step
from smolrgpt_jax.training.stopping import StopTogether, stop_on_signal
from smolrgpt_jax.training.validation import LOSS, AnswerScorer, Validation

BAD_STEP = "nonfinite_step.json"


@dataclasses.dataclass(frozen=True)
class Run:
    """What stays the same over the steps of a run.

    settings: the configuration; start: what it starts from; compute: how the model is computed; rows, bad: its data and the records left out of it; shape: of a
    packed row; steps: until the run ends; rates: schedule per trained group; validation: None without validation sources.
    """

    settings: Mapping[str, Any]
    stage: Stage
    start: Start
    compute: Compute
    mesh: Mesh
    rows: list[PackedRows]
    shape: RowShape
    bad: BadRecords
    steps: int
    optimizer: optax.GradientTransformation
    rates: Mapping[str, optax.Schedule]
    validation: Validation | None


def train(run: Mapping[str, Any], workdir: str | Path, scorer: AnswerScorer | None = None) -> dict[str, Any]:
    """Trains one stage, or goes on with what `workdir` holds.

    run: see configs/default.py for every field; scorer: of the answers to `validation_answers` questions. Returns {"step",
    "steps", "loss", "validation_loss", "best_step", "stopped", "ended_early"}: stopped by a signal, or at the end of the patience
    for a better validation. Writes checkpoints/<step>, metrics.csv and tensorboard/ under workdir. Raises RunError, DataError
    or CheckpointError.
    """
    workdir = Path(workdir)
    try:
        check(run)
        mesh = sharding.make_mesh(run["mesh"], strategy=run["strategy"])
        sharding.check_batch_rows(run["batch_rows"], mesh, run["accumulation"])
        # Before the data is read, which can take minutes.
        resolve_attention(run["model"]["attention"], jax.default_backend(), run["data"]["row_tokens"])
        stage = STAGES[run["stage"]].with_peaks(run["optimizer"]["peaks"])
        for group in run["fresh"]:
            stage.members(group, ())
    except ValueError as error:
        raise RunError(str(error)) from None
    start = read_start(run)
    bad = BadRecords(run["data"]["on_bad_record"])
    with naming("data.sources"):
        tokenised = read_data(run["data"], run["data"]["sources"], start.tokenizer, bad)
        shape = row_shape(start.config, run["data"], stage.regions, tokenised)
        rows = packed_rows(run["data"], tokenised, start.tokenizer, shape, bad)
    del tokenised  # with their texts, which the rows do not keep
    with naming("model"):
        compute = run_compute(start.config, run, jax.default_backend(), shape.tokens)
    steps = total_steps(run, rows)
    trained = stage.trained(abstract_params(start.config))
    settings = plain(run)
    validation = None
    if run["validation_sources"]:
        validation = Validation(settings, start.config, compute, start.tokenizer, shape, mesh, bad, scorer)
    if (run["patience"] or run["validation_answers"]) and validation is None:
        raise RunError("config.patience and config.validation_answers need config.validation_sources")
    if validation is not None and run["best_metric"] not in validation.columns:
        raise RunError(f"config.best_metric {run['best_metric']!r} is not one of {', '.join(validation.columns)}")
    optimizer_config = OptimizerConfig(**{k: v for k, v in run["optimizer"].items() if k != "peaks"})
    this = Run(
        settings=settings,
        stage=stage,
        start=start,
        compute=compute,
        mesh=mesh,
        rows=rows,
        shape=shape,
        bad=bad,
        steps=last_step(run, rows),
        optimizer=make_optimizer(stage, trained, steps, optimizer_config),
        rates=schedules(stage, steps, optimizer_config),
        validation=validation,
    )
    devices = this.mesh.devices
    print(
        f"stage {stage.name}: {this.steps} steps of {run['batch_rows']} rows on {devices.size} "
        f"{devices.flat[0].device_kind} device(s)"
    )
    for packed in rows:
        print(f"  training data: {packed.plan}, {shape.tokens} tokens each")
    _print_bad(bad)
    print(f"  training {len(trained)} of {len(abstract_params(start.config))} parameter arrays; the others are frozen")
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
        params, opt_state, step, selection = _initial_state(this, saver, data)
        columns = [*(validation.columns if validation else ()), *(f"lr_{g}" for g in this.rates), *speed.COLUMNS]
        writer = MetricsWriter(
            workdir,
            ["loss", "grad_norm", *columns],
            resumed_step=step,
            active=jax.process_index() == 0,
            wandb_project=run["wandb_project"],
            settings=settings,
        )
        trace = StepsTrace(workdir, **run["profile"])
        try:
            return _run_steps(this, workdir, params, opt_state, step, selection, data, saver, writer, trace)
        finally:
            trace.close()
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


def _initial_state(
    this: Run, saver: TrainingCheckpoints, data: grain.DatasetIterator
) -> tuple[Params, Any, int, Selection]:
    """Parameters, optimiser state, step and validations so far: of the newest checkpoint in the work directory, else of the
    start."""
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
    selection = Selection(this.settings["best_metric"], this.settings["patience"])
    step = saver.latest_step()
    if step is None:
        if this.start.params is None:
            init = jax.jit(lambda key: init_params(this.start.config, key), out_shardings=shardings)
            params = init(jax.random.key(this.settings["seed"]))
        else:
            given = ChainMap(drawn_anew(this.settings, this.start.config), this.start.params)
            params = {n: jax.device_put(np.asarray(given[n], np.float32), shardings[n]) for n in expected}
        return params, init_optimizer({n: params[n] for n in trained}), 0, selection
    meta = saver.read_meta(step)
    changed = differences(meta.run["run"], this.settings)
    if changed:
        raise RunError(
            f"{saver.folder} was started with other settings ({'; '.join(changed)}); use another work directory"
        )
    like = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=shardings[n]) for n, s in expected.items()}
    params, opt_state = saver.restore(step, like, init_optimizer.eval_shape({n: like[n] for n in trained}))
    data.set_state(meta.run["data"])
    print(f"  going on from step {step}")
    return params, opt_state, step, selection.restored(meta.run["selection"])


def _run_steps(
    this: Run,
    workdir: Path,
    params: Params,
    opt_state: Any,
    step: int,
    selection: Selection,
    data: grain.DatasetIterator,
    saver: TrainingCheckpoints,
    writer: MetricsWriter,
    trace: StepsTrace,
) -> dict[str, Any]:
    run, steps = this.settings, this.steps
    trained = {n: params[n] for n in this.stage.trained(params)}
    frozen = {n: v for n, v in params.items() if n not in trained}
    train_step = jit_train_step(
        this.start.config,
        this.optimizer,
        trained,
        this.mesh,
        run["strategy"],
        run["accumulation"],
        run["question_balance"],
        this.compute,
    )
    meta = Meta(this.start.config, tokenizer_files(this.start.tokenizer), this.start.layout)
    last: dict[str, float] = {}

    def save() -> None:
        info = {"run": run, "stage": this.stage.name, "step": step, "steps": steps, "metrics": last}
        info |= {"data": data.get_state(), "selection": selection.state()}
        saver.save(
            step, {**trained, **frozen}, opt_state, dataclasses.replace(meta, run=info), best_step=selection.best_step
        )

    def due(every: int) -> bool:
        return step == steps or (every > 0 and step % every == 0)

    step_flops = train_flops(this.start.config, this.shape, this.stage, False)[0] * run["batch_rows"]
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
        while step < steps and not selection.exhausted and not together(bool(signals)):
            asked = time.monotonic()
            (questions, tokens), batch = next(data)
            rates.waited(time.monotonic() - asked)
            rates.step(questions, tokens)
            trace.before(step + 1)
            trained, opt_state, metrics = train_step(trained, frozen, opt_state, batch)
            step += 1
            trace.after(step, metrics)
            bar.update()
            best = False
            validating = this.validation is not None and due(run["validate_every"])
            if validating or due(run["log_every"]) or due(run["save_every"]):
                last = {name: float(value) for name, value in metrics.items()}
                if not (math.isfinite(last["loss"]) and math.isfinite(last["grad_norm"])):
                    raise _not_finite(this, workdir, step, last)
                last |= rates.report()
                last |= {f"lr_{g}": float(rate(step - 1)) for g, rate in this.rates.items()}
                if validating:
                    found = this.validation({**trained, **frozen})
                    last |= found
                    best = _select(selection, step, found)
                    rates.report()  # what validation took is not the steps'
                writer.write(step, last)
                shown = ("loss", LOSS, "S1", "samples_per_second")
                bar.set_postfix({name: f"{last[name]:.4g}" for name in shown if name in last})
            if best or selection.exhausted or due(run["save_every"]):
                save()
        ended_early = selection.exhausted and step < steps
        if ended_early:
            print(f"  {selection}: ended at step {step}")
        elif step < steps:
            why = f"signal {signals[0]}" if signals else "another process was asked to stop"
            logging.warning("%s: saving step %d and stopping", why, step)
            # The signal may have come in a step that was saved anyway.
            if saver.latest_step() != step:
                save()
    result = {"step": step, "steps": steps, "stopped": step < steps and not ended_early, "ended_early": ended_early}
    result |= {"best_step": selection.best_step}
    return result | {name: last[name] for name in ("loss", LOSS) if name in last}


def _select(selection: Selection, step: int, found: Mapping[str, float]) -> bool:
    try:
        return selection.add(step, found)
    except ValueError as error:
        raise RunError(str(error)) from None


def _not_finite(this: Run, workdir: Path, step: int, values: Mapping[str, float]) -> RunError:
    """Writes the steps since the last report and the records in their batches; returns the error that names the file."""
    first = max(1, step - this.settings["log_every"] + 1)
    found = {
        "step": step,
        "loss": str(values["loss"]),
        "grad_norm": str(values["grad_norm"]),
        "records": {
            number: batch_questions(this.rows, number - 1, **_order(this.settings)) for number in range(first, step + 1)
        },
    }
    if jax.process_index() == 0:
        (workdir / BAD_STEP).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return RunError(
        f"the loss is {values['loss']} and the gradient's norm {values['grad_norm']} at step {step}; the records since the last "
        f"finite report are in {workdir / BAD_STEP}, the last good checkpoint is kept"
    )
