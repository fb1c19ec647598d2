"""One HTML file that shows what an evaluation found: scores, errors, training curves, answers.

The file needs nothing beside itself: pictures are data URIs, plots are SVG that the templates draw
from the numbers prepared here.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from eval import write_aside
from eval.overlay import colour_of, draw_regions
from eval.warehouse_scorer import is_correct
from smolrgpt_jax.data.records import MASK, WAREHOUSE_CATEGORIES, Picture, Question

GALLERY_PER_CATEGORY = 8
_GALLERY_WIDTH = 560
_MOST_POINTS = 1500
_MOST_CURVE_POINTS = 300
_OTHER = "other"

_TITLES = {"left_right": "Left or right", "count": "Count", "mcq": "Multiple choice", "distance": "Distance"}


def write_report(
    path: str | Path,
    metrics: Mapping,
    predictions: Sequence[Mapping],
    pictures: Sequence[Picture],
    loss_curves: Mapping[str, str | Path] | None = None,
    run_info: Mapping | None = None,
) -> None:
    """Writes the report, whole or not at all.

    Args:
      path: the HTML file.
      metrics: as in metrics.json of ``eval.warehouse``: S1, the four categories, questions,
        unreadable, optionally blind_S1, blind and official.
      predictions: as in predictions.json: dicts of id, image, category, question, answer,
        normalized_answer, truth.
      pictures: those the predictions are about; pictures that cannot be drawn are left out of the
        gallery.
      loss_curves: CSV file per training stage with columns step and loss, and any of
        validation_loss and lr_*; files, columns and cells may be missing.
      run_info: what produced the numbers; "command", "seed" and "config" (a dict) have their own
        places, anything else is listed.
    """
    run_info = dict(run_info or {})
    judged = [
        dict(item, right=is_correct(item["category"], item["normalized_answer"], item["truth"]))
        for item in predictions
    ]
    groups = {
        category: [item for item in judged if item["category"] == category]
        for category in WAREHOUSE_CATEGORIES
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = lambda value: "\u2013" if value is None else f"{value:.1f}"
    config = run_info.pop("config", None)
    html = environment.get_template("report.html").render(
        titles=_TITLES,
        s1=metrics["S1"],
        blind_s1=metrics.get("blind_S1"),
        questions=metrics["questions"],
        unreadable=metrics.get("unreadable", 0),
        rows=[_score_row(category, metrics, groups[category]) for category in WAREHOUSE_CATEGORIES],
        confusions=[_confusion(name, groups[name]) for name in ("left_right", "count") if groups[name]],
        bars=_mcq_bars(groups["mcq"], pictures),
        scatter=_scatter(groups["distance"]),
        curves=[curve for name, file in (loss_curves or {}).items() if (curve := _curve(name, Path(file)))],
        gallery=_gallery(groups, pictures),
        official=metrics.get("official") or {},
        command=run_info.pop("command", None),
        seed=run_info.pop("seed", None),
        run_info=run_info,
        config=None if config is None else json.dumps(config, indent=2, default=str),
    )
    write_aside(path, html)


def _score_row(category: str, metrics: Mapping, items: Sequence[Mapping]) -> dict:
    return {
        "category": category,
        "accuracy": metrics.get(category),
        "blind": (metrics.get("blind") or {}).get(category),
        "n": len(items),
        "correct": sum(item["right"] for item in items),
        "unreadable": sum(item["normalized_answer"] is None for item in items),
    }


def _confusion(category: str, items: Sequence[Mapping]) -> dict:
    """Rows: truth; columns: what was answered, with whatever no truth ever is as "other"."""
    labels = sorted({item["truth"] for item in items})
    counts = Counter(
        (item["truth"], item["normalized_answer"] if item["normalized_answer"] in labels else _OTHER)
        for item in items
    )
    columns = labels + ([_OTHER] if any(answered == _OTHER for _, answered in counts) else [])
    rows = []
    for truth in labels:
        total = sum(counts[truth, column] for column in columns)
        rows.append(
            {
                "label": truth,
                "total": total,
                "cells": [
                    {
                        "count": counts[truth, column],
                        "share": counts[truth, column] / total,
                        "right": truth == column,
                    }
                    for column in columns
                ],
            }
        )
    return {"category": category, "columns": columns, "rows": rows}


def _mcq_bars(items: Sequence[Mapping], pictures: Iterable[Picture]) -> list[dict]:
    if not items:
        return []
    regions = {question.id: len(question.regions) for picture in pictures for question in picture.questions}
    charts = []
    for title, key in (
        ("by the right region\u2019s number", lambda item: item["truth"]),
        ("by the number of regions in the question", lambda item: regions.get(item["id"], 0)),
    ):
        groups: dict[int, list[bool]] = defaultdict(list)
        for item in items:
            groups[key(item)].append(item["right"])
        charts.append(
            {
                "title": title,
                "bars": [
                    {"label": label, "n": len(rights), "value": 100 * sum(rights) / len(rights)}
                    for label, rights in sorted(groups.items())
                ],
            }
        )
    return charts


def _scatter(items: Sequence[Mapping]) -> dict | None:
    readable = [item for item in items if item["normalized_answer"] is not None]
    if not readable:
        return None
    limit = max(1.0, 1.08 * max(item["truth"] for item in readable))
    step = max(1, math.ceil(len(readable) / _MOST_POINTS))
    points = [
        {
            "truth": item["truth"],
            "answer": min(item["normalized_answer"], limit),
            "right": item["right"],
            "beyond": item["normalized_answer"] > limit,
            "said": item["normalized_answer"],
        }
        for item in readable[::step]
    ]
    return {
        "limit": limit,
        "ticks": _ticks(0, limit),
        "points": points,
        "n": len(readable),
        "shown": len(points),
    }


def _curve(name: str, file: Path) -> dict | None:
    """The drawable columns of one stage's CSV, None if it has no loss to draw."""
    try:
        with open(file, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError:
        return None
    columns = {
        column: _points(rows, column) for column in (rows[0] if rows else {}) if column and column != "step"
    }
    losses = {
        label: columns[column]
        for label, column in (("training", "loss"), ("validation", "validation_loss"))
        if columns.get(column)
    }
    if not losses:
        return None
    rates = {
        column.removeprefix("lr_"): points
        for column, points in columns.items()
        if column.startswith("lr_") and points
    }
    steps = [step for points in losses.values() for step, _ in points]
    values = sorted(value for points in losses.values() for _, value in points)
    # The first few losses of a run are often far above all others and would flatten the curve.
    top = min(values[-1], 1.5 * values[int(0.98 * (len(values) - 1))])
    low = min(0.0, values[0]) if values[0] < 0.35 * top else values[0] - 0.08 * (top - values[0])
    top = top if top > low else low + 1
    return {
        "name": name,
        "last": {label: points[-1][1] for label, points in losses.items()},
        "steps": (min(steps), max(max(steps), min(steps) + 1)),
        "range": (low, top),
        "x_ticks": _ticks(min(steps), max(steps)),
        "y_ticks": _ticks(low, top),
        "losses": {label: _thinned(points) for label, points in losses.items()},
        "rates": {label: _thinned(points) for label, points in rates.items()},
        "peak_rate": max((value for points in rates.values() for _, value in points), default=0.0),
    }


def _points(rows: Sequence[Mapping], column: str) -> list[tuple[float, float]]:
    points = []
    for row in rows:
        try:
            step, value = float(row["step"]), float(row[column])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(step) and math.isfinite(value):
            points.append((step, value))
    return points


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most _MOST_CURVE_POINTS points, each the mean of its neighbours."""
    size = max(1, math.ceil(len(points) / _MOST_CURVE_POINTS))
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return [tuple(sum(values) / len(chunk) for values in zip(*chunk)) for chunk in chunks]


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between low and high."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / 5
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _gallery(groups: Mapping[str, Sequence[Mapping]], pictures: Iterable[Picture]) -> list[dict]:
    known = {question.id: (picture, question) for picture in pictures for question in picture.questions}
    entries = []
    for category, items in groups.items():
        shown = 0
        for item in _chosen([item for item in items if item["id"] in known]):
            picture, question = known[item["id"]]
            try:
                with Image.open(picture.image) as image:
                    marked = draw_regions(image, question.regions, _GALLERY_WIDTH)
            except (OSError, SyntaxError, ValueError):
                continue
            entries.append(
                dict(item, picture=_data_uri(marked), size=marked.size, prompt=_with_chips(question))
            )
            shown += 1
            if shown == GALLERY_PER_CATEGORY:
                break
    return entries


def _chosen(items: Sequence[Mapping]) -> list[Mapping]:
    """Right and wrong answers in turn, new pictures before known ones, otherwise in their order."""
    first, again, seen = [], [], set()
    for item in items:
        (again if item["image"] in seen else first).append(item)
        seen.add(item["image"])
    ordered = first + again
    right = [item for item in ordered if item["right"]]
    wrong = [item for item in ordered if not item["right"]]
    shared = min(len(right), len(wrong))
    pairs = [item for pair in zip(right, wrong) for item in pair]
    return pairs + right[shared:] + wrong[shared:]


def _data_uri(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _with_chips(question: Question) -> Markup:
    """The question with every "<mask>" shown as its region's number on its colour."""
    parts = question.prompt.split(MASK)
    chips = [
        Markup('<span class="chip" style="--c:rgb({},{},{})">{}</span>').format(*colour_of(index), index)
        for index in range(len(parts) - 1)
    ] + [Markup("")]
    return Markup("").join(escape(part) + chip for part, chip in zip(parts, chips))
