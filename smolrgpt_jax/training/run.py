"""A training run: from a configuration and a work directory to a checkpoint, resumable at any moment."""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import grain
import jax
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from smolrgpt_jax import sharding
from smolrgpt_jax.checkpoint.load import Checkpoint, tokenizer_files, tokenizer_from_files
from smolrgpt_jax.checkpoint.orbax import Meta, NotFinite, TrainingCheckpoints
from smolrgpt_jax.config import RematPolicy
from smolrgpt_jax.data.batches import Order, batch_questions, data_facts, place_of_rows, train_batches
from smolrgpt_jax.data.kept import kept_json
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.trained_on import Shown, TrainedOn
from smolrgpt_jax.distributed import StopTogether, check_alike, gather, stop_on_signal, this_process
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.files import as_path, write_json
from smolrgpt_jax.flops import row_parts, train_flops
from smolrgpt_jax.models.smolrgpt import Params, abstract_params, init_params
from smolrgpt_jax.training import noise
from smolrgpt_jax.training.data import (
    check_shared_memory,
    most_answers,
    naming,
    read_rows,
    read_start,
    run_compute,
    run_lengths,
)
from smolrgpt_jax.training.memory import choose_remat, kept_bytes
from smolrgpt_jax.training.metrics import SPEED, MetricsWriter, Speed, StepsTrace, counts
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer, schedules
from smolrgpt_jax.training.settings import OWN, check_values, differences, flat, plain
from smolrgpt_jax.training.stages import STAGES, Stage
from smolrgpt_jax.training.step import jit_train_step
from smolrgpt_jax.training.validation import LOSS, AnswerScorer, Selection, Validation
from smolrgpt_jax.training.watchdog import Watchdog
from smolrgpt_jax.training.workdir import work_directory

BAD_STEP = "nonfinite_step.json"
SETTINGS_FILE = "settings.json"
SOON = {"xla_backend_optimization_level": 1}  # for what runs once: a third of the time to compile, the same bits
SHOWN = ("loss", LOSS, "S1", "samples_per_second")  # beside the progress bar


class Run:
    """What stays the same over the steps of a run.

    settings: all of them; saver: its checkpoints; before: what the newest says, None for a new run; start: what it starts from;
    compute: how the model is computed; rows, bad: its data and the records left out of it; facts: what tells this data from other;
    share: rows of a batch that this process builds; shape: of a packed row; steps: until the run ends; rates: schedule per trained
    group; validation: None without validation sources.
    """

    def __init__(self, settings: dict[str, Any], workdir: Path, scorer: AnswerScorer | None, stage: Stage | None):
        """Checks the settings and reads all that the run needs; `train` has the arguments and what is raised."""
        self.settings, self.workdir, data = settings, workdir, settings["data"]
        try:
            self.mesh = sharding.make_mesh(settings["mesh"], strategy=settings["strategy"])
            sharding.check_batch_rows(settings["batch_rows"], self.mesh, settings["accumulation"])
        except ValueError as error:
            raise RunError(str(error)) from None
        self.stage = (stage or STAGES[settings["stage"]]).with_peaks(settings["optimizer"]["peaks"])
        self.saver = TrainingCheckpoints(workdir, settings["keep"], sharding.replicated(self.mesh))
        self.before: Meta | None = (self.saver.newest() or (None,))[0]
        if self.before is None:
            start = read_start(settings, self.stage)
        else:
            changed = differences(self.before.run["run"], settings)
            if changed:
                raise RunError(
                    f"{workdir} was started with other settings ({'; '.join(changed)}); use another work directory"
                )
            # Its own, whatever has become of those that it began with.
            tokenizer = tokenizer_from_files(self.before.tokenizer or {}, workdir)
            start = Checkpoint(self.before.config, {}, tokenizer, layout=self.before.layout)
        platform = jax.default_backend()
        with naming("model"):
            # Before the data is read, which can take minutes.
            self.compute = run_compute(start.config, settings, platform, data["row_tokens"])
        check_shared_memory(start.config, settings, self.stage.regions)
        self.bad = BadRecords(data["on_bad_record"])
        with naming("data.sources"):
            asked: dict[str, Any] = {"regions": self.stage.regions, "question_balance": settings["question_balance"]}
            asked |= {"replicated": sharding.is_replicated(self.mesh)}
            # The pictures are not kept: the rows do without their texts.
            self.rows, pictures = read_rows(data, data["sources"], start, self.bad, **asked)
        read: Any = start.tokenizer
        names, before = data["weights"] or data["sources"], read.format.trained_on or TrainedOn()
        shown = kept_json(place_of_rows(self.rows), "shown", lambda: vars(Shown.of(pictures)))
        seen = before.and_on(names, Shown(**shown), self.stage.regions)
        self.start = dataclasses.replace(start, tokenizer=read.with_format(trained_on=seen))
        self.shape = self.rows[0].shape
        with naming("model"):
            self.compute = run_compute(start.config, settings, platform, self.shape.tokens)
        self.validation = None
        if settings["validation_sources"]:
            self.validation = Validation(settings, start, self.compute, self.shape, self.mesh, self.bad, scorer)
            Selection(settings["best_metric"]).check(self.validation.columns)
        elif settings["patience"] or settings["validation_answers"]:
            raise RunError("config.patience and config.validation_answers need config.validation_sources")
        self.compute = self.compute.replace(answers=most_answers(self.rows))
        if settings["model"]["remat"] == "auto":
            kept = kept_bytes(abstract_params(start.config), self.stage.trained)
            rows = settings["batch_rows"] // sharding.batch_ways(self.mesh) // settings["accumulation"]
            remat = choose_remat(start.config, self.shape, rows, self.compute, kept, self.mesh.local_devices[0])
            self.compute = self.compute.replace(remat=remat)
        # Hosts may have devices of different memory; the program has to be one.
        remat = max(gather(self.compute.remat), key=get_args(RematPolicy).index)
        self.compute = self.compute.replace(remat=remat)
        self.share = sharding.process_rows(self.mesh, settings["batch_rows"])
        self.facts = data_facts(self.rows, "training")
        if self.validation:
            self.facts |= data_facts(self.validation.rows, "validation")
        planned, self.steps = run_lengths(settings, self.rows)
        optimizer = OptimizerConfig(**{k: v for k, v in settings["optimizer"].items() if k != "peaks"})
        trained = self.stage.trained(abstract_params(start.config))
        self.optimizer = make_optimizer(self.stage, trained, planned, optimizer)
        self.rates = schedules(self.stage, planned, optimizer)

    def print_start(self) -> None:
        devices, parameters = self.mesh.devices, abstract_params(self.start.config)
        size = f"{self.steps} steps of {self.settings['batch_rows']} rows"
        print(f"stage {self.stage.name}: {size} on {devices.size} {devices.flat[0].device_kind} device(s)")
        for packed in self.rows:
            print(f"  training data: {packed.plan}, {self.shape.tokens} tokens each")
        self.print_bad()
        trained = self.stage.trained(parameters)
        print(f"  training {len(trained)} of {len(parameters)} parameter arrays; the others are frozen")
        compute = self.compute
        print(f"  computing in {compute.dtype}, attention {compute.attention}, remat {compute.remat}")
        print(f"  all settings: {self.workdir / SETTINGS_FILE}")

    def print_bad(self) -> None:
        if self.bad.reasons:
            print(f"  {self.bad.summary()}")

    @property
    def order(self) -> Order:
        weights = list(self.settings["data"]["weights"].values()) or None
        return Order(self.settings["batch_rows"], self.settings["seed"], weights)


@dataclasses.dataclass
class State:
    """What the steps change."""

    trained: Params
    frozen: Params
    opt_state: Any
    step: int
    selection: Selection
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)  # of the last report
    unvalidated: bool = False  # whether the run was stopped in the validation of this step

    @property
    def params(self) -> Params:
        return {**self.trained, **self.frozen}


def train(
    settings: Mapping[str, Any], workdir: str | Path, scorer: AnswerScorer | None = None, stage: Stage | None = None
) -> dict[str, Any]:
    """Trains one stage, or goes on with what `workdir` holds.

    Writes checkpoints/<step>, metrics.csv and tensorboard/ under workdir.

    Args:
      settings: every one of `smolrgpt_jax.training.settings`.
      workdir: folder of the run.
      scorer: of the answers to `validation_answers` questions.
      stage: in place of the published one that the settings name.

    Returns:
      {"step", "steps", "loss", "validation_loss", "best_step", "stopped", "ended_early"}: stopped by a signal, or at the end of
      the patience for a better validation.

    Raises:
      RunError, DataError, CheckpointError: one sentence.
    """
    run = plain(settings)
    check_values(run)
    first = jax.process_index() == 0
    workdir = as_path(workdir)
    with work_directory(workdir, first) as check_folder, contextlib.ExitStack() as stack:
        this = Run(run, workdir, scorer, stage)
        stack.enter_context(contextlib.closing(this.saver))
        if first:
            write_json(this.workdir / SETTINGS_FILE, run)
        this.print_start()
        batches = train_batches(
            this.rows,
            this.order,
            share=this.share,
            num_threads=run["data"]["threads"],
            workers=run["data"]["workers"],
            put=lambda batch: (counts(batch), sharding.put_batch(batch, this.mesh)),
        )
        data = stack.enter_context(contextlib.closing(batches))
        state = _initial_state(this, data)
        stack.callback(this.print_bad)
        validated = this.validation.columns if this.validation else ()
        told = ("loss", "grad_norm", *(noise.COLUMNS if run["accumulation"] > 1 else ()), *validated)
        writer = MetricsWriter(
            this.workdir,
            [*told, *(f"lr_{group}" for group in this.rates), *SPEED],
            # The row of a validation that was stopped is still to be written.
            resumed_step=state.step - state.unvalidated,
            active=first,
            wandb_project=run["wandb_project"],
            settings=run,
        )
        stack.enter_context(contextlib.closing(writer))
        trace = stack.enter_context(contextlib.closing(StepsTrace(this.workdir, **run["profile"])))
        return _run_steps(this, state, data, writer, trace, check_folder)


def _initial_state(this: Run, data: grain.DatasetIterator) -> State:
    """The state of the newest good checkpoint in the work directory, and `data` set to where it was; else that of the start."""
    run, strategy = this.settings, this.settings["strategy"]
    expected = abstract_params(this.start.config)
    shardings = sharding.param_shardings(expected, this.mesh, strategy)
    trained = {n: expected[n] for n in this.stage.trained(expected)}
    places = sharding.optimizer_shardings(this.optimizer, trained, this.mesh, strategy)
    init_optimizer = jax.jit(this.optimizer.init, out_shardings=places)
    like = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=shardings[n]) for n, s in expected.items()}
    like_optimizer = init_optimizer.eval_shape({n: like[n] for n in trained})
    selection = Selection(run["best_metric"], run["patience"])
    common = {f"config.{name}": value for name, value in flat(run).items() if name not in OWN}
    check_alike(common | this.facts)
    if this.before is not None:
        meta, (params, opt_state) = this.saver.newest((like, like_optimizer))
        info = meta.run
        _check_data(this, info["step"], meta)
        data.set_state(info["data"])
        selection = dataclasses.replace(selection, **info["selection"])
        print(f"  going on from step {info['step']}")
    else:
        if given := this.start.params:
            params = {n: jax.device_put(np.asarray(given[n], np.float32), shardings[n]) for n in expected}
        else:
            init = jax.jit(init_params, static_argnums=0, out_shardings=shardings, compiler_options=SOON)
            params = init(this.start.config, jax.random.key(run["seed"]))
        opt_state = init_optimizer({n: params[n] for n in trained})
        with naming(f"init_from: {this.start.source}"):
            this.saver.fingerprint(params, opt_state)
        info = {"step": 0}
    frozen = {n: v for n, v in params.items() if n not in trained}
    kept = {name: info[name] for name in ("metrics", "unvalidated") if name in info}
    return State({n: params[n] for n in trained}, frozen, opt_state, info["step"], selection, **kept)


def _check_data(this: Run, step: int, meta: Meta) -> None:
    """Says where the run stands if a checkpoint was trained on other data; RunError unless that is accepted and steps are left."""
    known = meta.run.get("facts") or {}  # older checkpoints know less of their data
    changed = "; ".join(differences(known, {name: fact for name, fact in this.facts.items() if name in known}))
    if changed:
        rows = sum(map(len, this.rows))
        passes = f"{step} steps are {step * this.settings['batch_rows'] / rows:.2f} passes over the {rows} rows of now"
        stands = f"was trained on other data ({changed}): its {passes}, and the run ends at step {this.steps}"
        if not this.settings["accept_changed_data"] or step > this.steps:
            accept = "" if step > this.steps else ", or go on knowingly with --config.accept_changed_data=True"
            raise RunError(f"{this.workdir} {stands}; use another work directory{accept}")
        print(f"  {this.workdir} {stands}")


def _run_steps(
    this: Run,
    state: State,
    data: grain.DatasetIterator,
    writer: MetricsWriter,
    trace: StepsTrace,
    check_folder: Callable[[], None],
) -> dict[str, Any]:
    run, steps, selection, config = this.settings, this.steps, state.selection, this.start.config
    train_step = jit_train_step(
        config, this.optimizer, state.trained, this.mesh, run["strategy"], run["accumulation"], this.compute
    )
    parts = row_parts(config, this.shape.tokens, this.shape.pictures, this.shape.regions, this.compute.answers)
    step_flops = train_flops(parts, state.trained) * run["batch_rows"]
    speed = Speed(this.mesh.devices.size, run["batch_rows"] / len(this.share), step_flops, this.mesh.local_devices[0])
    tokenizer: Any = this.start.tokenizer
    meta = Meta(config, tokenizer_files(tokenizer), this.start.layout)

    def save() -> None:
        info = {"run": run, "stage": this.stage.name, "step": state.step, "steps": steps, "metrics": state.metrics}
        info |= {"data": data.get_state(), "facts": this.facts, "selection": selection.state()}
        info |= {"unvalidated": state.unvalidated}
        about = dataclasses.replace(meta, run=info)
        try:
            this.saver.save(state.step, state.params, state.opt_state, about, selection.best_step)
        except NotFinite as error:
            raise _not_finite(this, state, f"{error} after step {state.step}") from None

    def due(every: int) -> bool:
        return state.step == steps or (every > 0 and state.step % every == 0)

    def checked(metrics: Mapping[str, jax.Array]) -> dict[str, float]:
        """What a step gave, once it is known to be finite and the work directory to be there."""
        check_folder()
        values = {name: float(value) for name, value in metrics.items()}
        if not all(map(math.isfinite, values.values())):
            state.metrics |= values
            what = f"the loss is {values['loss']} and the gradient's norm {values['grad_norm']} at step {state.step}"
            raise _not_finite(this, state, what)
        return values

    hidden, watchdog = jax.process_index() > 0, Watchdog(str(this_process()))
    with (
        stop_on_signal() as signals,
        logging_redirect_tqdm(),
        tqdm(
            total=steps, initial=state.step, desc=this.stage.name, unit="step", mininterval=2.0, disable=hidden
        ) as bar,
    ):
        together = StopTogether(this.mesh, signals)
        if this.validation is not None:
            this.validation.stop = together

        def write(validating: bool) -> bool:
            """Validates if that is due, and writes; whether the step is to be saved for it. Sets `unvalidated` if stopped."""
            best = False
            if validating and this.validation is not None:
                found = this.validation(state.params)
                state.unvalidated = found is None
                if found is None:
                    return True
                state.metrics |= found
                best = selection.add(state.step, found)
                speed.report()  # what validation took is not the steps'
            writer.write(state.step, state.metrics)
            bar.set_postfix({name: f"{state.metrics[name]:.4g}" for name in SHOWN if name in state.metrics})
            return best or selection.exhausted

        metrics: Mapping[str, jax.Array] = {}
        if state.unvalidated:
            write(validating=True)
            save()
        stopped = state.unvalidated
        while not stopped and state.step < steps and not selection.exhausted:
            if stopped := together():
                break
            before = metrics
            with watchdog.step(state.step + 1):
                asked = time.monotonic()
                (questions, tokens), batch = next(data)
                speed.step(questions, tokens, time.monotonic() - asked)
                trace.before(state.step + 1)
                state.trained, state.opt_state, metrics = train_step(
                    state.trained, state.frozen, state.opt_state, batch
                )
                # One step is computed while the next waits; with more, a signal had to wait for all of them.
                jax.block_until_ready(before)
            state.step += 1
            trace.after(state.step, metrics)
            bar.update()
            validating, saving = this.validation is not None and due(run["validate_every"]), due(run["save_every"])
            if validating or saving or due(run["log_every"]):
                state.metrics = checked(metrics) | speed.report()
                state.metrics |= {f"lr_{g}": float(rate(state.step - 1)) for g, rate in this.rates.items()}
                saving |= write(validating)
                stopped = state.unvalidated
            if saving:
                save()
    ended_early = selection.exhausted and state.step < steps
    if ended_early:
        print(f"  {selection}: ended at step {state.step}")
    if stopped:
        why = f"signal {signals[0]}" if signals else "another process was asked to stop"
        logging.warning("%s: stopping at step %d", why, state.step)
        # Not where the run was stopped before its first step.
        if metrics and not state.unvalidated:
            state.metrics |= checked(metrics)
            save()
    result: dict[str, Any] = {"step": state.step, "steps": steps, "stopped": stopped, "ended_early": ended_early}
    result |= {"best_step": selection.best_step}
    return result | {name: state.metrics[name] for name in ("loss", LOSS) if name in state.metrics}


def _not_finite(this: Run, state: State, what: str) -> RunError:
    """Writes the steps since the last report and the records in their batches; returns the error that names the file."""
    loss, norm, file = state.metrics.get("loss"), state.metrics.get("grad_norm"), this.workdir / BAD_STEP
    first = max(1, state.step - this.settings["log_every"] + 1)
    records = {n: batch_questions(this.rows, this.order, n - 1) for n in range(first, state.step + 1)}
    if jax.process_index() == 0:
        write_json(file, {"step": state.step, "loss": str(loss), "grad_norm": str(norm), "records": records})
    return RunError(f"{what}; the records since the last finite report are in {file}, the last good checkpoint is kept")
