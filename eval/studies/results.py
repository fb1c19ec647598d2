"""What a study found: scores with intervals for each variant, and the table, the plot and the file made of them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval import results_folder, write_json
from eval.learning_curves import intervals
from eval.statistics import describe_interval
from eval.svg import percent_axis
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES

SCORES = ("S1", *WAREHOUSE_CATEGORIES)
COLOURS = ("#3465a4", "#c17d11", "#4e9a06", "#a40000", "#75507b", "#555753")

# Variant -> score -> value in percent and the ends of its 95 % interval; None where there is none.
Found = Mapping[str, Mapping[str, tuple[float | None, tuple[float, float] | None]]]


def of_one_run(metrics: Mapping[str, Any]) -> dict[str, tuple[float | None, tuple[float, float] | None]]:
    """The scores of metrics.json, with its intervals over pictures."""
    found = {}
    for score in SCORES:
        interval = metrics["intervals"].get(score)
        found[score] = metrics[score], None if interval is None else tuple(interval)
    return found


def over_seeds(
    runs: Sequence[Mapping[str, float | None]],
) -> dict[str, tuple[float | None, tuple[float, float] | None]]:
    """Mean of each score over runs that differ by their seed, and its interval (Student's t); none for one run."""
    found = {}
    for score in runs[0]:
        values = [run[score] for run in runs]
        if None in values:
            found[score] = None, None
        elif len(values) == 1:
            found[score] = values[0], None
        else:
            mean, low, high = intervals(np.array([values]))
            found[score] = float(mean[0]), (float(low[0]), float(high[0]))
    return found


def write_study(out: Path, found: Found, **details: Any) -> None:
    """Writes study.json, table.md and plot.svg into a folder, which may hold the variants' own results."""
    command = shlex.join(["python", "-m", "eval.studies", *sys.argv[1:]])
    with results_folder(out) as aside:
        variants = {
            variant: {score: {"value": v, "interval": i} for score, (v, i) in scores.items()}
            for variant, scores in found.items()
        }
        write_json(aside / "study.json", {"command": command, **details, "variants": variants})
        (aside / "table.md").write_text(f"{table(found)}\n\n    {command}\n", encoding="utf-8")
        (aside / "plot.svg").write_text(plot(found), encoding="utf-8")


def _scores(found: Found) -> list[str]:
    return list(next(iter(found.values())))


def table(found: Found) -> str:
    """Markdown: one row per variant, one column per score, percent with the 95 % interval."""
    names = _scores(found)
    lines = ["| variant | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for variant, scores in found.items():
        cells = []
        for name in names:
            value, interval = scores[name]
            if value is None:
                cells.append("-")
            elif interval is None:
                cells.append(f"{value:.1f}")
            else:
                cells.append(f"{value:.1f} ({describe_interval(interval, '.1f')})")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(found: Found) -> str:
    """An SVG of bars, one group per score, one bar per variant, with whiskers for the intervals; bars end at 100 %."""
    width, left, bottom = 720, 40, 250
    names = _scores(found)
    group = (width - left) / len(names)
    bar = 0.8 * group / len(found)
    height = bottom + 40 + 18 * -(-len(found) // 3)
    parts = percent_axis(width, height, left, width, bottom - 200, bottom)
    for g, name in enumerate(names):
        parts.append(
            f'<text x="{left + (g + 0.5) * group:.0f}" y="{bottom + 18}" text-anchor="middle">{name}</text>'
        )
        for v, (variant, scores) in enumerate(found.items()):
            value, interval = scores[name]
            if value is None:
                continue
            x, top = left + g * group + 0.1 * group + v * bar, bottom - 2 * min(value, 100)
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{bar - 2:.1f}" height="{bottom - top:.1f}" fill="{COLOURS[v]}">'
                f"<title>{variant}: {value:.1f} %</title></rect>"
            )
            if interval is not None:
                low, high = (bottom - 2 * end for end in interval)
                parts.append(f'<path d="M{x + bar / 2 - 1:.1f} {low:.1f}V{high:.1f}" stroke="black"/>')
    for v, variant in enumerate(found):
        x, y = left + 225 * (v % 3), bottom + 30 + 18 * (v // 3)
        parts.append(
            f'<rect x="{x}" y="{y}" width="10" height="10" fill="{COLOURS[v]}"/><text x="{x + 15}" y="{y + 9}">{variant}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])
