"""One HTML file that shows what an evaluation found: scores, errors, training curves, answers.

The file needs nothing beside itself: pictures are data URIs, plots are SVG that the templates draw
from the numbers prepared here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from eval.answering.vote import ballots_of, describe_ballots
from eval.report.charts import calibration_plot, confusion, curve, error_bars, mcq_bars, scatter
from eval.report.overlay import colour_of, draw_question, jpeg_data_uri
from eval.scoring.blind import template
from eval.scoring.official import is_correct
from smolrgpt_jax.data.records import MASK, WAREHOUSE_CATEGORIES, Picture, Question
from smolrgpt_jax.files import write_text

GALLERY_PER_CATEGORY = 8
_GALLERY_WIDTH = 560

CATEGORY_TITLES = {"left_right": "Left or right", "count": "Count", "mcq": "Multiple choice", "distance": "Distance"}


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
      metrics: as in metrics.json of ``eval.warehouse``: S1, the four categories and questions; whatever
        else it holds is shown where it is there.
      predictions: as in predictions.json: dicts of id, image, category, question, answer,
        normalized_answer, truth.
      pictures: those the predictions are about; pictures that cannot be drawn are left out of the
        gallery.
      loss_curves: CSV file per training stage with columns step and loss, and any of
        validation_loss and lr_*; files, columns and cells may be missing.
      run_info: what produced the numbers; "command", "seed" and "config" (a dict) have their own
        places, anything else is listed.
    """
    judged = [
        dict(item, right=is_correct(item["category"], item["normalized_answer"], item["truth"])) for item in predictions
    ]
    groups = {category: [item for item in judged if item["category"] == category] for category in WAREHOUSE_CATEGORIES}
    details = metrics.get("calibration") or {}
    render(
        path,
        "report.html",
        run_info,
        titles=CATEGORY_TITLES,
        s1=metrics["S1"],
        blind_s1=metrics.get("blind_S1"),
        s1_interval=(metrics.get("intervals") or {}).get("S1"),
        bootstrap=metrics.get("bootstrap"),
        questions=metrics["questions"],
        unreadable=metrics.get("unreadable", 0),
        cut_off=metrics.get("cut_off", 0),
        left_out=metrics.get("left_out", 0),
        rows=[_score_row(category, metrics, groups[category]) for category in WAREHOUSE_CATEGORIES],
        confusions=[confusion(name, groups[name]) for name in ("left_right", "count") if groups[name]],
        bars=mcq_bars(groups["mcq"], pictures),
        scatter=scatter(groups["distance"]),
        errors=error_bars(metrics.get("distance_errors") or []),
        error_rows=metrics.get("distance_errors") or [],
        calibrations=[
            plot
            for plot in (
                calibration_plot("distance", "m", details.get("distance")),
                calibration_plot("count", "objects", details.get("count")),
            )
            if plot
        ],
        templates=[dict(row, template=_with_regions(row["template"])) for row in metrics.get("templates") or []],
        curves=[found for name, file in (loss_curves or {}).items() if (found := curve(name, Path(file)))],
        gallery=gallery(groups, pictures),
        readability=metrics.get("readability"),
        agreement=metrics.get("agreement"),
        with_regions=_with_regions,
        official=metrics.get("official") or {},
    )


def render(path: str | Path, template: str, run_info: Mapping | None, **values: object) -> None:
    """Fills a template that extends base.html and writes it, whole or not at all.

    Args:
      path: the HTML file.
      template: name of a file in the folder templates.
      run_info: see ``write_report``.
      values: the template's own.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = lambda value: "\u2013" if value is None else f"{value:.1f}"
    environment.filters["interval"] = lambda value: "\u2013" if value is None else f"{value[0]:.1f} to {value[1]:.1f}"
    environment.filters["hundredths"] = lambda value: "\u2013" if value is None else f"{value:.2f}"
    run_info = dict(run_info or {})
    config = run_info.pop("config", None)
    html = environment.get_template(template).render(
        command=run_info.pop("command", None),
        seed=run_info.pop("seed", None),
        run_info=run_info,
        config=None if config is None else json.dumps(config, indent=2, default=str),
        **values,
    )
    write_text(path, html)


def _score_row(category: str, metrics: Mapping, items: Sequence[Mapping]) -> dict:
    return {
        "category": category,
        "accuracy": metrics.get(category),
        "interval": (metrics.get("intervals") or {}).get(category),
        "blind": (metrics.get("blind") or {}).get(category),
        "n": len(items),
        "correct": sum(item["right"] for item in items),
        "unreadable": sum(item["normalized_answer"] is None for item in items),
    }


def gallery(groups: Mapping[str, Sequence[Mapping]], pictures: Iterable[Picture]) -> list[dict]:
    """Up to GALLERY_PER_CATEGORY answers of each group with their pictures, right and wrong in turn.

    Args:
      groups: by category, predictions with "right"; pictures that cannot be drawn are left out.
      pictures: those the predictions are about.
    """
    known = {question.id: (picture, question) for picture in pictures for question in picture.questions}
    entries = []
    for items in groups.values():
        shown = 0
        for item in _chosen([item for item in items if item["id"] in known]):
            picture, question = known[item["id"]]
            try:
                entry = dict(item, **shown_question(picture, question))
            except (OSError, SyntaxError, ValueError):
                continue
            if item.get("further"):
                entry["ballots"] = describe_ballots(ballots_of(item))
            entries.append(entry)
            shown += 1
            if shown == GALLERY_PER_CATEGORY:
                break
    return entries


def shown_question(picture: Picture, question: Question) -> dict:
    """What the templates show of a question: its picture as a data URI with its size, its texts with numbered regions.

    Returns:
      picture, size (width, height in pixels), prompt, and earlier: (prompt, answer) of the turns before.

    Raises:
      DataError, OSError, SyntaxError, ValueError: the picture or a mask cannot be read.
    """
    marked = draw_question(picture, question, _GALLERY_WIDTH)
    numbers = iter(range(question.mask_marks))
    earlier = [(_with_chips(prompt, numbers), answer) for prompt, answer in question.earlier]
    return {
        "picture": jpeg_data_uri(marked),
        "size": marked.size,
        "earlier": earlier,
        "prompt": _with_chips(question.prompt, numbers),
    }


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


def _with_regions(text: str) -> str:
    """A question or template in plain text, runs of "<mask>" as one word."""
    return template(text).replace(MASK, "[regions]")


def _with_chips(text: str, numbers: Iterator[int]) -> Markup:
    """A question with every "<mask>" shown as its region's number, the next of ``numbers``, on its colour."""
    first, *rest = text.split(MASK)
    chip = Markup('<span class="chip" style="--c:rgb({},{},{})">{}</span>')
    shown = escape(first)
    for part in rest:
        number = next(numbers)
        shown += chip.format(*colour_of(number), number) + escape(part)
    return shown
