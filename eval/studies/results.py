"""What a study found: scores with intervals for each variant, how they differ from the first, and the files made of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.report.plots import COLOURS, percent_plot
from eval.scoring.intervals import category_intervals, describe_interval, student_intervals
from eval.scoring.official import is_correct
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.files import read_json, results_folder, write_json

SCORES = ("S1", *WAREHOUSE_CATEGORIES)

# Score -> value in percent (or percentage points) and the ends of its 95 % interval; None where there is none.
Scores = Mapping[str, tuple[float | None, tuple[float, float] | None]]
# Variant -> its scores.
Found = Mapping[str, Scores]


def of_one_run(folder: Path) -> Scores:
    """The scores of a folder of eval.warehouse, with its intervals over pictures."""
    metrics = read_json(folder / "metrics.json", dict)
    found = {}
    for score in SCORES:
        interval = metrics["intervals"].get(score)
        found[score] = metrics[score], None if interval is None else tuple(interval)
    return found


def paired_differences(first: Path, second: Path) -> Scores:
    """What the second of two folders of eval.warehouse scores more than the first on the same questions, in points.

    The intervals draw whole pictures, see ``eval.scoring.intervals``. The truths may differ: a question whose masks were moved has another.
    """
    before, after = (
        {item["id"]: item for item in read_json(folder / "predictions.json", list)} for folder in (first, second)
    )
    items = [(before[name], after[name]) for name in before]
    right = np.array(
        [[is_correct(item["category"], item["normalized_answer"], item["truth"]) for item in pair] for pair in items],
        float,
    )
    categories = [item["category"] for item, _ in items]
    present = [name for name in WAREHOUSE_CATEGORIES if name in categories]
    gains = right[:, 1] - right[:, 0]
    intervals = category_intervals([item["image"] for item, _ in items], categories, gains, present)
    means = {name: 100 * float(gains[np.array(categories) == name].mean()) for name in present}
    found: dict[str, tuple[float | None, tuple[float, float] | None]] = dict.fromkeys(SCORES, (None, None))
    found |= {name: (means[name], tuple(intervals[name])) for name in present}
    found["S1"] = float(np.mean(list(means.values()))), tuple(intervals["mean"])
    return found


def value_intervals(items: Sequence[tuple[str, str, float]], names: Mapping[str, str]) -> Scores:
    """Means in percent, with intervals that draw whole pictures, of values of questions.

    Args:
      items: picture, category and value of each question.
      names: category -> name of the score.
    """
    pictures, categories, values = zip(*items, strict=True) if items else ((), (), ())
    present = [category for category in names if category in categories]
    intervals = category_intervals(pictures, categories, values, present) if present else {}
    of = {name: [v for c, v in zip(categories, values) if c == name] for name in present}
    return {
        name: (100 * float(np.mean(of[category])), tuple(intervals[category])) if category in of else (None, None)
        for category, name in names.items()
    }


def over_seeds(runs: Sequence[Mapping[str, float | None]]) -> Scores:
    """Mean of each score over runs that differ by their seed, and its interval (Student's t); none for one run.

    Intervals end at 0 and, of shares, at 100 %; what is called an error can be more.
    """
    found: dict[str, tuple[float | None, tuple[float, float] | None]] = {}
    for score, (value, interval) in _over_seeds(runs).items():
        if interval is not None:
            most = np.inf if score.endswith("error") else 100.0
            interval = max(interval[0], 0.0), min(interval[1], most)
        found[score] = value, interval
    return found


def differences_over_seeds(
    first: Sequence[Mapping[str, float | None]], second: Sequence[Mapping[str, float | None]]
) -> Scores:
    """Mean of what the second of two variants scores more than the first with the same seed, in points, and its interval.

    A seed's warehouse is the same for both, so that differences vary less than scores do.
    """
    return _over_seeds(
        [
            {name: None if None in (a[name], b[name]) else b[name] - a[name] for name in a}
            for a, b in zip(first, second, strict=True)
        ]
    )


def _over_seeds(runs: Sequence[Mapping[str, float | None]]) -> Scores:
    found: dict[str, tuple[float | None, tuple[float, float] | None]] = {}
    for score in runs[0]:
        values = [run[score] for run in runs]
        if None in values:
            found[score] = None, None
        elif len(values) == 1:
            found[score] = values[0], None
        else:
            mean, low, high = student_intervals(np.array(values, float))
            found[score] = float(mean), (float(low), float(high))
    return found


def write_study(out: Path, found: Found, differences: Found | None = None, **details: Any) -> None:
    """Writes study.json, table.md and plot.svg into a folder, which may hold the variants' own results."""
    command = shlex.join(["python", "-m", "eval.studies", *sys.argv[1:]])
    parts = {"variants": found} | ({} if differences is None else {"differences": differences})
    written = {
        part: {
            variant: {score: {"value": v, "interval": i} for score, (v, i) in scores.items()}
            for variant, scores in variants.items()
        }
        for part, variants in parts.items()
    }
    with results_folder(out) as aside:
        write_json(aside / "study.json", {"command": command, **details, **written})
        text = f"{describe(found, differences)}\n\n    {command}\n"
        (aside / "table.md").write_text(text, encoding="utf-8")
        plot(found, aside / "plot.svg")


def _scores(found: Found) -> list[str]:
    return list(next(iter(found.values())))


def describe(found: Found, differences: Found | None = None) -> str:
    """Markdown: the table of the scores and, where there is one, that of the differences from the first variant."""
    if not differences:
        return table(found)
    first = next(iter(found))
    return f"{table(found)}\n\n{table(differences, f'points more than {first}', '+.1f')}"


def table(found: Found, title: str = "variant", form: str = ".1f") -> str:
    """Markdown: one row per variant, one column per score, percent or points with the 95 % interval."""
    names = _scores(found)
    lines = [f"| {title} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for variant, scores in found.items():
        cells = []
        for name in names:
            value, interval = scores[name]
            if value is None:
                cells.append("-")
            elif interval is None:
                cells.append(format(value, form))
            else:
                cells.append(f"{value:{form}} ({describe_interval(interval, form)})")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(found: Found, path: Path) -> None:
    """Draws bars with their values, one group per score, one bar per variant, with whiskers for the intervals.

    Bars and whiskers end at 100 %.
    """
    names = _scores(found)
    width = 0.88 / len(found)
    with percent_plot(path) as axes:
        axes.set_xticks(range(len(names)), names)
        for v, ((variant, scores), colour) in enumerate(zip(found.items(), COLOURS)):
            axes.bar(0, 0, color=colour, label=variant)
            for i, name in enumerate(names):
                value, interval = scores[name]
                if value is not None:
                    x = i + (v - (len(found) - 1) / 2) * width
                    low, high = np.minimum(interval or (value, value), 100)
                    axes.bar(x, min(value, 100), 0.9 * width, color=colour)
                    axes.vlines(x, low, high, "black", linewidth=1)
                    axes.annotate(f"{value:.0f}", (x, high), (0, 2), textcoords="offset points", ha="center", size=7)
