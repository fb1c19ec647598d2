"""Time to quality: first answers over the seconds of training, as the PyTorch release trains and as `smolrgpt train` does."""

import functools
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from benchmarks.as_released import Asked, AsReleased, micro_batches
from benchmarks.shared import apart, markdown, progress, show
from configs import demo
from convert.folders import jax_to_torch
from convert.torch_model import load_torch
from eval.answering.warehouse import evaluate
from eval.command_line import command_line
from eval.report.plots import COLOURS, percent_plot, require
from eval.studies.findings import SCORES, Limits
from smolrgpt_jax import load
from smolrgpt_jax.checkpoint.load import Checkpoint, write_start
from smolrgpt_jax.checkpoint.orbax import STEPS, TrainingCheckpoints
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.records import BadRecords, spread_questions
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import RunError, told
from smolrgpt_jax.files import read_json, write_json
from smolrgpt_jax.training import run as training_run
from smolrgpt_jax.training.data import read_rows, read_start
from smolrgpt_jax.training.settings import defaults
from smolrgpt_jax.training.stages import STAGES, Stage
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import ensure_warehouse

PYTORCH, PACKED = SIDES = ("PyTorch, as released", "smolrgpt train")
SCORED = demo.STAGES[-1]
BARS = (60, 70, 75)  # of S1
ACCUMULATION = 4  # micro-batches of the release
PROBES = 3  # steps that tell how many fill PyTorch's seconds
MARKS, PLAN, OPTIMIZER = "clock.json", "plan.json", "optimizer/state.safetensors"
PUBLISHED_ROWS = 16  # about 112 questions

# Seconds of training and scores in percent, by checkpoint.
Curve = list[tuple[float, Mapping[str, float]]]


class Clock:
    """Seconds of training at each checkpoint, kept in a file; a run that goes on from a checkpoint begins with its seconds."""

    def __init__(self, file: Path, step: int = 0):
        marks = read_json(file, dict) if step else {}
        self.file, self.marks = file, {int(mark): seconds for mark, seconds in marks.items() if int(mark) <= step}
        self._began = time.monotonic() - (self.marks[step] if step else 0.0)

    @contextmanager
    def standing(self, step: int | None = None) -> Iterator[None]:
        """Stands while something is done that is not to be counted, such as writing the checkpoint of a step."""
        stopped = time.monotonic()
        if step is not None:
            write_json(self.file, self.marks | {step: stopped - self._began})
            self.marks[step] = stopped - self._began
        yield
        self._began += time.monotonic() - stopped


class TimedCheckpoints(TrainingCheckpoints):
    """Checkpoints that are written while the clock stands, in place of beside the steps."""

    def __init__(self, clock: Clock, *given: Any):
        super().__init__(*given)
        self.clock = clock

    def save(self, step: int, *given: Any) -> None:
        with self.clock.standing(step):
            super().save(step, *given)
            self.manager.wait_until_finished()


def kept(folder: Path) -> list[int]:
    """The steps of a training that have a checkpoint."""
    return sorted(int(path.name) for path in (folder / STEPS).glob("*") if path.name.isdecimal())


def newest(folder: Path) -> int:
    return max(kept(folder), default=0)


def settings(root: Path, stage: str, size: str, seed: int, start: Path, checkpoints: int) -> dict[str, Any]:
    """Those of the demo's stage without validation; size "full": with the published optimiser, rows, and dtype."""
    run: dict[str, Any] = demo.get_config(stage, str(root)).to_dict()
    if size == "full":
        published = defaults()
        run |= {name: published[name] for name in ("model", "optimizer", "question_balance", "tokenizer")}
        run["data"] |= {name: published["data"][name] for name in ("row_tokens", "row_pictures", "row_regions")}
        run["batch_rows"] = PUBLISHED_ROWS
    every = -(-run["steps"] // (checkpoints if stage == SCORED else 1))
    run |= {"seed": seed, "init_from": str(start), "save_every": every, "keep": checkpoints}
    return run | {"validation_sources": {}, "validation_answers": 0}


def write_starts(backbone: Path, ours: Path, theirs: Path, seed: int) -> None:
    """Writes what is not there yet of the two starts: a checkpoint, and its numbers as a PyTorch folder, in float32."""
    if not ours.exists():
        write_start(backbone, ours, seed=seed)
    if not theirs.exists():
        jax_to_torch(ours, theirs, dtype="F32")


def train_packed(folder: Path, run: Mapping[str, Any]) -> None:
    """Trains a stage as the demo does; all its seconds count, from reading its data on."""
    made = functools.partial(TimedCheckpoints, Clock(folder / MARKS, newest(folder)))
    with mock.patch.object(training_run, "TrainingCheckpoints", made):
        if training_run.train(run, folder)["stopped"]:
            raise SystemExit("stopped by a signal; the same command goes on from here")


def read_questions(run: Mapping[str, Any], start: Checkpoint, stage: Stage) -> list[tuple[Asked, float]]:
    """The questions of each source that is mixed by weight, or of all, and how many of them our batch has in the mean."""
    data, found = run["data"], []
    mixed = [({name: data["sources"][name]}, weight) for name, weight in data["weights"].items()]
    mixed = mixed or [(data["sources"], 1.0)]
    for sources, weight in mixed:
        bad = BadRecords(data["on_bad_record"])
        (packed,), pictures = read_rows({**data, "weights": {}}, sources, start, bad, regions=stage.regions)
        parts = [(pictures[part.picture], part.questions) for row in packed.plan.rows for part in row]
        asked = [(picture, picture.questions[number]) for picture, numbers in parts for number in numbers]
        rows = run["batch_rows"] * weight / sum(weight for _, weight in mixed)
        found.append((asked, rows * len(asked) / len(packed)))
    return found


@functools.lru_cache(maxsize=4)
def _order(count: int, *seeds: int) -> np.ndarray:
    return np.random.default_rng(seeds).permutation(count)


def drawn(questions: Sequence[tuple[Asked, float]], seed: int, step: int) -> Asked:
    """The questions of a step from 0: of each source its share, all once before one comes again."""
    found = []
    for number, (asked, share) in enumerate(questions):
        for place in range(int(step * share), int((step + 1) * share)):
            epoch, index = divmod(place, len(asked))
            found.append(asked[_order(len(asked), seed, number, epoch)[index]])
    return found


def train_as_released(folder: Path, run: Mapping[str, Any], seconds: float, length: int, checkpoints: int) -> None:
    """Trains a stage with PyTorch for about so many seconds, reading pictures not counted; length: of the padded rows, 0 for ours.

    Peak rates, questions of a batch and dtype are those of the settings, optimiser and schedule the release's.
    """
    jax.config.update("jax_platforms", "cpu")  # which computes rates only, and would take a GPU's memory
    import torch

    if torch.cuda.is_available():
        torch.set_default_device("cuda")
    stage = STAGES[run["stage"]].with_peaks(run["optimizer"]["peaks"])
    start = read_start(run, stage)
    questions = read_questions(run, start, stage)
    assert start.tokenizer is not None
    tokenizer = start.tokenizer.with_format(answer_tokens=run["validation_answer_tokens"])
    length = length or run["data"]["row_tokens"]

    def made(source: Path, planned: int) -> AsReleased:
        return AsReleased(load_torch(source), stage, planned, dtype=run["model"]["compute_dtype"])

    def batches(training: AsReleased, step: int) -> list[Any]:
        asked = drawn(questions, run["seed"], step)
        size = -(-len(asked) // ACCUMULATION)
        return list(micro_batches(training.model, tokenizer, asked, size, length, stage.regions))

    if not (folder / PLAN).exists():
        training, taken = made(Path(run["init_from"]), PROBES), []
        for step in range(PROBES):
            read, began = batches(training, step), time.monotonic()
            training.step(step, read)
            taken.append(time.monotonic() - began)
        write_json(folder / PLAN, {"steps": max(1, round(seconds / statistics.median(taken[1:])))})
    steps, done = read_json(folder / PLAN, dict)["steps"], newest(folder)
    training = made(folder / STEPS / str(done) if done else Path(run["init_from"]), steps)
    if done:
        training.read_optimizer(folder / STEPS / str(done) / OPTIMIZER)
    clock, every = Clock(folder / MARKS, done), -(-steps // checkpoints)
    for step in range(done, steps):
        with clock.standing():
            read = batches(training, step)
        training.step(step, read)
        if (step + 1) % every == 0 or step + 1 == steps:
            with clock.standing(step + 1):
                _save(folder / STEPS / str(step + 1), training, tokenizer)


def _save(folder: Path, training: AsReleased, tokenizer: ChatTokenizer) -> None:
    """A checkpoint that appears whole; only the newest has the optimiser's state."""
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    training.model.save(aside)
    tokenizer.save(aside)
    training.write_optimizer(aside / OPTIMIZER)
    aside.rename(folder)
    for older in folder.parent.glob(f"[0-9]*/{OPTIMIZER}"):
        if older.parents[1] != folder:
            older.unlink()


def score(training: Path, data: Path, out: Path, count: int | None) -> None:
    """Scores the first answers of all checkpoints of a training to `count` questions of the test split, None for all."""
    pictures = spread_questions(read_warehouse(data, "test", annotations="test_answers.json"), count)
    for step in kept(training):
        if not (out / str(step) / "metrics.json").exists():
            out.mkdir(parents=True, exist_ok=True)
            model = load(training / STEPS / str(step))
            metrics = evaluate(pictures, Limits(64, None).answerer(model), out / str(step))
            progress(f"{training}, step {step}: S1 {metrics and metrics['S1']}")


def read_curve(root: Path, scores: Path) -> Curve:
    """The scores of the last stage over the seconds of all stages."""
    ends = [max(read_json(root / stage / MARKS, dict).values()) for stage in demo.STAGES[:-1]]
    marks = read_json(root / SCORED / MARKS, dict)
    found = [
        (sum(ends) + marks[str(n)], read_json(scores / str(n) / "metrics.json", dict)) for n in kept(root / SCORED)
    ]
    if any(metrics[score] is None for _, metrics in found for score in SCORES):
        raise RunError(f"{scores}: no question of some category was asked; ask more with --questions")
    return [(seconds, {score: metrics[score] for score in SCORES}) for seconds, metrics in found]


def train_seed(folder: Path, seed: int, a: Any) -> dict[str, Curve]:
    """Trains and scores what is not done yet of one seed, both sides."""
    ensure_warehouse(folder / "data", WarehouseConfig(seed=seed, **demo.WAREHOUSE))
    starts = {PACKED: folder / "start", PYTORCH: folder / "start_torch"}
    apart(write_starts, a.backbone, starts[PACKED], starts[PYTORCH], seed)
    curves, seconds = {}, {}
    for side, name in ((PACKED, "packed"), (PYTORCH, "pytorch")):
        start = starts[side]
        for stage in demo.STAGES:
            work, count = folder / name / stage, a.checkpoints if stage == SCORED else 1
            run = settings(folder, stage, a.size, seed, start, count)
            steps = run["steps"] if side == PACKED else (work / PLAN).exists() and read_json(work / PLAN)["steps"]
            if not steps or newest(work) < steps:
                progress(f"seed {seed}, {side}: {stage}")
                if side == PACKED:
                    apart(train_packed, work, run)
                else:
                    part = (a.seconds or 2 * sum(seconds.values())) * seconds[stage] / sum(seconds.values())
                    apart(train_as_released, work, run, part, a.max_length, count)
            if side == PACKED:
                seconds[stage] = max(read_json(work / MARKS, dict).values())
            start = work / STEPS / str(newest(work))
        scores = folder / f"scores_{name}"
        apart(score, folder / name / SCORED, folder / "data", scores, a.questions)
        curves[side] = read_curve(folder / name, scores)
    return curves


def reached(curve: Curve, bar: float) -> float | None:
    """Seconds until S1 is at the bar for the first time, on straight lines between checkpoints; None where it never is.

    The first checkpoint's where that is above it.
    """
    before: tuple[float, float] | None = None
    for seconds, scores in curve:
        if scores["S1"] >= bar:
            return seconds if before is None else float(np.interp(bar, *zip(before[::-1], (scores["S1"], seconds))))
        before = seconds, scores["S1"]
    return None


def value_at(curve: Curve, seconds: float | np.ndarray) -> Any:
    return np.interp(seconds, [at for at, _ in curve], [scores["S1"] for _, scores in curve])


def table(found: Mapping[int, Mapping[str, Curve]]) -> str:
    """By side and seed: seconds to each bar and their ratio, S1 at the end of our training, and what the last checkpoint scores."""
    rows = []
    for seed, curves in found.items():
        times = {side: [reached(curve, bar) for bar in BARS] for side, curve in curves.items()}
        ends = {side: curve[-1][0] for side, curve in curves.items()}
        for side, curve in curves.items():
            to = [f"not within {ends[side]:.0f}" if t is None else f"{t:.0f}" for t in times[side]]
            last = ", ".join(f"{curve[-1][1][score]:.1f}" for score in SCORES)
            rows.append(" | ".join([side, str(seed), *to, f"{value_at(curve, ends[PACKED]):.1f}", last]))
        ratios = [
            "" if own is None else f"more than {ends[PYTORCH] / own:.1f} x" if other is None else f"{other / own:.1f} x"
            for own, other in zip(times[PACKED], times[PYTORCH])
        ]
        rows.append(" | ".join(["ratio of times", str(seed), *ratios, "", ""]))
    heads = [f"seconds to S1 {bar}" for bar in BARS]
    return markdown(
        " | ".join(["training", "seed", *heads, "S1 when ours ends", f"{', '.join(SCORES)} at its end"]), rows
    )


def plot(found: Mapping[int, Mapping[str, Curve]], path: Path) -> None:
    """S1 over the seconds of training: every seed a thin line, their mean a thick one as far as all go."""
    with percent_plot(path, (4, 3.2)) as axes:
        axes.set_title("First answers over training time", fontsize=10)
        axes.set(xlabel="seconds of training, the same machine", ylabel="S1")
        for colour, side in zip(COLOURS, SIDES):
            curves = [curves[side] for curves in found.values()]
            for curve in curves:
                axes.plot(*zip(*((at, scores["S1"]) for at, scores in curve)), color=colour, alpha=0.4, linewidth=1)
            first, last = (pick(curve[end][0] for curve in curves) for pick, end in ((max, 0), (min, -1)))
            grid = np.linspace(first, last, 200)
            means = np.mean([value_at(curve, grid) for curve in curves], axis=0)
            axes.plot(grid, means, color=colour, linewidth=2.5, label=side)
        axes.set_xlim(0, None)


@told("interrupted; the same command goes on from here")
def main(arguments: Sequence[str] | None = None) -> None:
    a = command_line("benchmarks.learning", __doc__, size=("demo", "full")).parse_args(arguments)
    if len(set(a.seeds)) < len(a.seeds) or not all(0 <= seed < demo.RESERVED_SEEDS for seed in a.seeds):
        raise RunError(f"--seeds must be different numbers from 0 to {demo.RESERVED_SEEDS - 1}")
    require()
    named = {name: str(value) for name, value in vars(a).items() if name not in ("workdir", "seeds", "out")}
    if (begun := a.workdir / "options.json").exists() and read_json(begun) != named:
        raise RunError(f"{a.workdir} was begun with other options, see {begun}; use another work directory")
    write_json(begun, named)
    print(f"training {demo.STAGES[0]} to {SCORED} twice for each of {len(a.seeds)} seeds in {a.workdir}", flush=True)
    found = {seed: train_seed(a.workdir / f"seed{seed}", seed, a) for seed in a.seeds}
    drawing = a.workdir / "learning.svg" if a.out is None else a.out.with_suffix(".svg")
    show(table(found), a.out)
    plot(found, drawing)
    print(f"plot: {drawing}")


if __name__ == "__main__":
    main()
