"""Numbers of the report's drawings, for the macros of templates/charts.html.

`items` are predictions as in predictions.json with "right" added: whether the answer counts.
"""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from smolrgpt_jax.data.records import Picture

_MOST_POINTS = 1500
_MOST_CURVE_POINTS = 300
_OTHER = "other"

Points = list[tuple[float, float]]


def confusion(category: str, items: Sequence[Mapping]) -> dict:
    """A confusion matrix. Rows: truth; columns: what was answered, with whatever no truth ever is as "other"."""
    totals = dict(sorted(Counter(item["truth"] for item in items).items()))
    answered = [item["normalized_answer"] if item["normalized_answer"] in totals else _OTHER for item in items]
    counts = Counter(zip((item["truth"] for item in items), answered))
    columns = [*totals, *[_OTHER] * (_OTHER in answered)]
    return {"category": category, "totals": totals, "columns": columns, "counts": counts}


def mcq_bars(items: Sequence[Mapping], pictures: Iterable[Picture]) -> list[dict]:
    """Whether each mcq question was right, by the right region and by the number of regions."""
    regions = {question.id: len(question.regions) for picture in pictures for question in picture.questions}
    charts = []
    for title, key in (
        ("by the right region\u2019s number", lambda item: item["truth"]),
        ("by the number of regions in the question", lambda item: regions.get(item["id"])),
    ):
        groups: dict[int, list[bool]] = defaultdict(list)
        for item in items:
            groups[key(item)].append(item["right"])
        groups.pop(None, None)  # a question that was not asked has no regions that are known
        charts.append({"title": title, "groups": dict(sorted(groups.items()))})
    return [chart for chart in charts if chart["groups"]]


def scatter(items: Sequence[Mapping]) -> dict | None:
    """Answered against true distance in metres, None without a readable answer; thinned to _MOST_POINTS."""
    readable = [item for item in items if item["normalized_answer"] is not None]
    if not readable:
        return None
    limit = max(1.0, 1.08 * max(item["truth"] for item in readable))
    points = readable[:: math.ceil(len(readable) / _MOST_POINTS)]
    return {"limit": limit, "ticks": _ticks(0, limit), "points": points, "n": len(readable)}


def curve(name: str, file: Path) -> dict | None:
    """The drawable columns of one stage's CSV of steps, losses and rates, None if it has no loss to draw."""
    try:
        with open(file, newline="", encoding="utf-8-sig", errors="replace") as stream:
            rows = list(csv.DictReader(stream))
    except OSError:
        return None
    columns = {column: _points(rows, column) for column in (rows[0] if rows else {}) if column and column != "step"}
    columns = {column: points for column, points in columns.items() if points}
    named = {"training": "loss", "validation": "validation_loss"}
    losses = {label: columns[column] for label, column in named.items() if column in columns}
    if not losses:
        return None
    rates = {column.removeprefix("lr_"): points for column, points in columns.items() if column.startswith("lr_")}
    steps, values = (sorted(all_) for all_ in zip(*sum(losses.values(), [])))
    # The first few losses of a run are often far above all others and would flatten the curve.
    top = min(values[-1], 1.5 * values[int(0.98 * (len(values) - 1))])
    low = min(0.0, values[0]) if values[0] < 0.35 * top else values[0] - 0.08 * (top - values[0])
    top = top if top > low else low + 1
    last = {label: points[-1][1] for label, points in losses.items()}
    shown = {"steps": (steps[0], max(steps[-1], steps[0] + 1)), "range": (low, top)}
    ticks = {"x_ticks": _ticks(steps[0], steps[-1]), "y_ticks": _ticks(low, top)}
    peak = max((value for points in rates.values() for _, value in points), default=0.0)
    drawn = {"losses": losses, "rates": rates}
    lines = {kind: {label: _thinned(points) for label, points in each.items()} for kind, each in drawn.items()}
    return {"name": name, "last": last, **shown, **ticks, **lines, "peak_rate": peak}


def _points(rows: Sequence[Mapping], column: str) -> Points:
    """(step, value) of the rows where both are finite numbers."""
    points = []
    for row in rows:
        try:
            points.append((float(row["step"]), float(row[column])))
        except (KeyError, TypeError, ValueError):
            continue
    return [point for point in points if all(map(math.isfinite, point))]


def _thinned(points: Points) -> Points:
    """At most _MOST_CURVE_POINTS points, each the mean of its neighbours."""
    size = math.ceil(len(points) / _MOST_CURVE_POINTS)
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return [tuple(sum(values) / len(chunk) for values in zip(*chunk)) for chunk in chunks]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between low and high."""
    if high <= low:
        return [low]
    rough = (high - low) / 5
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def error_bars(bins: Sequence[Mapping]) -> dict | None:
    """Mean and median error by true distance, from `eval.scoring.breakdown.distance_errors`; None without any."""
    bars = [row for row in bins if row["readable"]]
    if not bars:
        return None
    limit = max(0.1, 1.05 * max(bar["mean_absolute_error"] for bar in bars))
    return {"bars": bars, "limit": limit, "ticks": _ticks(0, limit)}


def reliability_plot(found: Mapping) -> dict:
    """How often answers are right against their confidence, in percent, from `eval.scoring.confidence.reliability`.

    Each bin gets "low" and "high", Wilson's 95 % interval of its accuracy.
    """
    bins = []
    for part in found["bins"]:
        n, share, z = part["questions"], part["accuracy"] / 100, 1.96
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        bins.append({**part, "low": 100 * (middle - reach), "high": 100 * (middle + reach)})
    return {"bins": bins, "ticks": (0, 25, 50, 75, 100)}


def calibration_plot(name: str, unit: str, found: Mapping) -> dict:
    """Mean answer and its quartiles against the truth, from `eval.scoring.breakdown.calibration`."""
    limit = max(1.0, 1.05 * max(max(group["truth"], group["upper"], group["answer"]) for group in found["groups"]))
    return {"name": name, "unit": unit, "limit": limit, "ticks": _ticks(0, limit), **found}
