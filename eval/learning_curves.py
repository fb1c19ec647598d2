"""How the scores of each category grew during trainings that differ by their seed only.

    python -m eval.learning_curves runs/demo0/stage3 runs/demo1/stage3 runs/demo2/stage3 --out docs/curves

Reads the metrics.csv of every run, whose configuration had `validation_answers`. Writes OUT/table.md, plot.svg and curves.json:
at every validated step the mean over the runs and its 95 % interval (Student's t, so at least two runs).
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.report.svg import percent_axis
from eval.scoring.intervals import describe_interval, student_intervals
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import results_folder, write_json

SCORES = ("S1", *WAREHOUSE_CATEGORIES)
COLOURS = ("#000000", "#3465a4", "#c17d11", "#4e9a06", "#a40000")

# Score -> steps, and for each step the values of all runs in the order of the runs: float[steps, runs], percent.
Curves = dict[str, tuple[list[int], np.ndarray]]


def read_curves(runs: Sequence[Path]) -> Curves:
    """The scores that all runs measured at the same steps.

    Raises DataError where there are fewer than two runs or one is named twice, where one has no validated scores, or where two were
    validated at different steps.
    """
    if len(runs) < 2:
        raise DataError("an interval over seeds takes at least two runs")
    if len({run.resolve() for run in runs}) < len(runs):
        raise DataError("a run is named twice; its interval would be too small")
    read = [_read(run / "metrics.csv") for run in runs]
    curves: Curves = {}
    for score in SCORES:
        steps = sorted(read[0].get(score, {}))
        for run, scores in zip(runs, read):
            if sorted(scores.get(score, {})) != steps:
                raise DataError(f"{run} and {runs[0]} measured {score} at different steps")
        if steps:
            curves[score] = steps, np.array([[scores[score][step] for scores in read] for step in steps])
    if not curves:
        raise DataError(f"{runs[0] / 'metrics.csv'}: no scores, was validation_answers set?")
    return curves


def _read(file: Path) -> dict[str, dict[int, float]]:
    """{score: {step: percent}} of one metrics.csv."""
    found: dict[str, dict[int, float]] = {}
    with open(file, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            for score in SCORES:
                if row.get(score):
                    try:
                        found.setdefault(score, {})[int(row["step"])] = float(row[score])
                    except (KeyError, ValueError):
                        raise DataError(f"{file}: {score} is {row[score]!r}, not a number") from None
    return found


def intervals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over runs, and the ends of its 95 % interval within 0 to 100.

    values: float[steps, runs], percent. Returns three float[steps].
    """
    mean, low, high = student_intervals(values)
    return mean, np.clip(low, 0, 100), np.clip(high, 0, 100)


def table(curves: Curves) -> str:
    """Markdown: one row per step, mean and 95 % interval over the runs, in percent."""
    steps = sorted({step for steps, _ in curves.values() for step in steps})
    lines = ["| step | " + " | ".join(curves) + " |", "|---" * (len(curves) + 1) + "|"]
    summaries = {score: dict(zip(at, zip(*intervals(values)))) for score, (at, values) in curves.items()}
    for step in steps:
        cells = []
        for score in curves:
            found = summaries[score].get(step)
            cells.append("-" if found is None else f"{found[0]:.1f} ({describe_interval(found[1:], '.1f')})")
        lines.append(f"| {step} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(curves: Curves) -> str:
    """An SVG: the mean of each score over the steps, a band for its interval, a thin line for every run."""
    width, height, left, right, top, bottom = 720, 380, 46, 600, 16, 340
    last = max(steps[-1] for steps, _ in curves.values())

    def point(step: float, percent: float) -> str:
        return f"{left + (right - left) * step / last:.1f},{bottom - (bottom - top) * percent / 100:.1f}"

    def line(steps: Sequence[int], values: np.ndarray) -> str:
        return " ".join(point(step, value) for step, value in zip(steps, values))

    parts = percent_axis(width, height, left, right, top, bottom)
    ends = []
    for colour, (score, (steps, values)) in zip(COLOURS, curves.items()):
        mean, low, high = intervals(values)
        band = f"{line(steps, low)} {line(steps[::-1], high[::-1])}"
        parts.append(f'<polygon points="{band}" fill="{colour}" fill-opacity="0.12"/>')
        for run in values.T:
            parts.append(f'<polyline points="{line(steps, run)}" fill="none" stroke="{colour}" stroke-opacity="0.4"/>')
        parts.append(
            f'<polyline points="{line(steps, mean)}" fill="none" stroke="{colour}" stroke-width="2.5"><title>{score}</title></polyline>'
        )
        ends.append((mean[-1], score, colour))
    # Labels stand beside the ends of their curves, pushed apart where those nearly meet.
    y = np.inf
    for value, score, colour in sorted(ends):
        y = min(y - 15, bottom - (bottom - top) * value / 100 + 4)
        parts.append(f'<text x="{right + 8}" y="{y:.1f}" fill="{colour}">{score} {value:.1f}</text>')
    for step in {steps[i] for steps, _ in curves.values() for i in range(0, len(steps), -(-len(steps) // 8))}:
        x = left + (right - left) * step / last
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{step}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{height - 6}" text-anchor="middle">step</text>')
    return "\n".join([*parts, "</svg>\n"])


def write_curves(runs: Sequence[Path], out: Path) -> Mapping[str, tuple[list[int], np.ndarray]]:
    """Reads the runs and writes what the module's docstring names; raises DataError or OSError."""
    curves = read_curves(runs)
    command = shlex.join(["python", "-m", "eval.learning_curves", *sys.argv[1:]])
    with results_folder(out) as aside:
        write_json(
            aside / "curves.json",
            {
                "command": command,
                "runs": [str(run) for run in runs],
                "scores": {score: {"steps": at, "values": values.tolist()} for score, (at, values) in curves.items()},
            },
        )
        (aside / "table.md").write_text(f"{table(curves)}\n\n    {command}\n", encoding="utf-8")
        (aside / "plot.svg").write_text(plot(curves), encoding="utf-8")
    return curves


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.learning_curves", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="work directories of trainings")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    args = parser.parse_args(arguments)
    print(f"learning curves of {len(args.runs)} runs, writing to {args.out}")
    try:
        print(table(write_curves(args.runs, args.out)))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
