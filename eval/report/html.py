"""One HTML file that shows what an evaluation found: scores, errors, training curves, answers.

The file needs nothing beside itself: pictures are data URIs, the templates draw plots as SVG.
"""

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from eval.reading.ballots import ballots_of, describe_ballots, elected
from eval.report.charts import calibration_plot, confusion, curve, error_bars, mcq_bars, reliability_plot, scatter
from eval.report.overlay import colour_of, draw_question, jpeg_data_uri
from eval.scoring.blind import template
from eval.scoring.confidence import ALL as EVERY
from eval.scoring.confidence import described
from eval.scoring.official import is_right
from eval.scoring.standings import ALL, describe_sets
from smolrgpt_jax.data.records import MASK, WAREHOUSE_CATEGORIES, Picture, Question
from smolrgpt_jax.data.workings import split_workings
from smolrgpt_jax.files import write_text

GALLERY_PER_CATEGORY = 8
_GALLERY_WIDTH = 560

# What metrics may lack.
_OPTIONAL = {
    **dict.fromkeys(("S1", "blind_S1", "bootstrap", "readability", "agreement", "confidence", *WAREHOUSE_CATEGORIES)),
    **dict.fromkeys(("unreadable", "cut_off", "left_out"), 0),
    **dict.fromkeys(("intervals", "blind", "calibration", "official"), {}),
    **dict.fromkeys(("distance_errors", "templates"), ()),
}
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
      metrics, predictions: as in the files of `eval.warehouse`; the metrics hold at least S1, the categories and questions.
      pictures: those the predictions are about; pictures that cannot be drawn are left out of the gallery.
      loss_curves: CSV file per training stage with columns step and loss, and any of validation_loss and lr_*; files,
        columns and cells may be missing.
      run_info: what produced the numbers; "checkpoint", "data", "command", "seed" and "config" (a dict) have their own places.
    """
    metrics = _OPTIONAL | {name: value for name, value in metrics.items() if value is not None}
    judged = [dict(item, right=is_right(item)) for item in predictions]
    groups = {category: [item for item in judged if item["category"] == category] for category in WAREHOUSE_CATEGORIES}
    units, calibration = {"distance": "m", "count": "objects"}, metrics["calibration"]
    render(
        path,
        "report.html",
        run_info,
        titles=CATEGORY_TITLES,
        metrics=metrics,
        groups=groups,
        confusions=[confusion(name, groups[name]) for name in ("left_right", "count") if groups[name]],
        bars=mcq_bars(groups["mcq"], pictures),
        scatter=scatter(groups["distance"]),
        errors=error_bars(metrics["distance_errors"]),
        reliability=metrics["confidence"] and reliability_plot(metrics["confidence"][EVERY]),
        calibrations=[calibration_plot(n, unit, calibration[n]) for n, unit in units.items() if calibration.get(n)],
        curves=list(filter(None, (curve(name, Path(file)) for name, file in (loss_curves or {}).items()))),
        gallery=gallery(groups, pictures),
        with_regions=_with_regions,
    )


def render_leaderboard(path: str | Path, tables: Sequence[Mapping], run_info: Mapping) -> None:
    """Writes a page about finished runs, whole or not at all; tables: of `eval.scoring.standings.make_table`, one per question set."""
    titles = CATEGORY_TITLES | {ALL: "All questions"}
    told = {"sentence": describe_sets(tables), "titles": titles, "with_regions": _with_regions}
    render(path, "leaderboard.html", run_info, tables=tables, **told)


def render(path: str | Path, template: str, run_info: Mapping | None, **values: object) -> None:
    """Fills a file of the folder templates that extends base.html and writes it, whole or not at all.

    run_info: see `write_report`. values: the template's own.
    """
    run_info = dict.fromkeys(("command", "checkpoint", "data", "seed", "config")) | dict(run_info or {})
    write_text(path, _environment().get_template(template).render(run_info=run_info, **values))


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    how = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    environment = jinja2.Environment(loader=loader, **how)
    for name, form in (("percent", "{:.1f}"), ("interval", "{0[0]:.1f} to {0[1]:.1f}"), ("hundredths", "{:.2f}")):
        environment.filters[name] = lambda value, form=form: "\u2013" if value is None else form.format(value)
    environment.filters["split_workings"] = split_workings
    environment.filters["described"] = described
    environment.filters["json"] = functools.partial(json.dumps, indent=2, default=str)
    return environment


def gallery(groups: Mapping[str, Sequence[Mapping]], pictures: Iterable[Picture]) -> list[dict]:
    """Up to GALLERY_PER_CATEGORY answers of each group with their pictures, right and wrong in turn.

    groups: predictions with "right". pictures: those they are about; what cannot be drawn is left out.
    """
    known = {question.id: (picture, question) for picture in pictures for question in picture.questions}
    shown = (_entries([item for item in items if item["id"] in known], known) for items in groups.values())
    return [entry for entries in shown for entry in itertools.islice(entries, GALLERY_PER_CATEGORY)]


def _entries(items: Sequence[Mapping], known: Mapping[str, tuple[Picture, Question]]) -> Iterator[dict]:
    for item in _in_turn(items):
        try:
            entry = dict(item, **shown_question(*known[item["id"]]))
        except (OSError, SyntaxError, ValueError):
            continue
        if item.get("further"):
            first, *_ = ballots = ballots_of(item)
            entry["ballots"] = describe_ballots(ballots)
            if first != item["normalized_answer"] == elected(ballots):
                entry["voted"] = "no value" if first is None else first
        yield entry


def shown_question(picture: Picture, question: Question) -> dict:
    """What the templates show of a question: its picture as a data URI, its texts with numbered regions.

    Returns picture, size (width, height in pixels), prompt, and earlier: (prompt, answer) of the turns before. Raises as
    `draw_question` does.
    """
    marked = draw_question(picture, question, _GALLERY_WIDTH)
    numbers = iter(range(question.mask_marks))
    earlier = [(with_chips(prompt, numbers), answer) for prompt, answer in question.earlier]
    texts = {"earlier": earlier, "prompt": with_chips(question.prompt, numbers)}
    return {"picture": jpeg_data_uri(marked), "size": marked.size, **texts}


def _in_turn(items: Sequence[Mapping]) -> list[Mapping]:
    """Right and wrong answers in turn, new pictures before known ones, otherwise in their order."""
    first = {item["image"]: item for item in reversed(items)}
    ordered = sorted(items, key=lambda item: item is not first[item["image"]])
    right, wrong = ([item for item in ordered if bool(item["right"]) is kind] for kind in (True, False))
    shared = min(len(right), len(wrong))
    pairs = [item for pair in zip(right, wrong) for item in pair]
    return pairs + right[shared:] + wrong[shared:]


def _with_regions(text: str) -> str:
    """A question or template in plain text, runs of "<mask>" as one word."""
    return template(text).replace(MASK, "[regions]")


def numbered(text: str, name: str = "") -> str:
    """A question in plain text with every "<mask>" as its region's number, after a name: "[Region 0]", "[Region 1]", ..."""
    first, *rest = text.split(MASK)
    return first + "".join(f"[{name}{number}]{part}" for number, part in enumerate(rest))


def with_chips(text: str, numbers: Iterator[int]) -> Markup:
    """A question with every "<mask>" shown as its region's number, the next of `numbers`, on its colour."""
    first, *rest = map(escape, text.split(MASK))
    return first + Markup("").join(chip(number, number) + part for part, number in zip(rest, numbers))


def chip(index: int, text: object) -> Markup:
    """A text on the colour of "Region index"."""
    return Markup('<span class="chip" style="--c:rgb({},{},{})">{}</span>').format(*colour_of(index), text)
