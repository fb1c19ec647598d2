"""What all studies share: a variant is answered and scored; scores with intervals, how they differ from the first, files of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.answering.asking import Answerer, answer_questions, run_details
from eval.answering.warehouse import evaluate
from eval.command_line import typed_command
from eval.report.plots import COLOURS, percent_plot
from eval.scoring.blind import BlindBaseline
from eval.scoring.intervals import category_intervals, describe_interval, student_intervals
from eval.scoring.official import is_right
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Picture
from smolrgpt_jax.files import read_json, results_folder, write_json

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

SCORES = ("S1", *WAREHOUSE_CATEGORIES)

# Value in percent (or percentage points) and the ends of its 95 % interval; None where there is none.
Value = tuple[float | None, tuple[float, float] | None]
Scores = Mapping[str, Value]
# Variant -> its scores.
Found = Mapping[str, Scores]
Paths = Mapping[str, Path]
# The scores of one run, in percent.
Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Limits:
    """Questions answered at once, and tokens of the longest answer, None for what `Model.answer_tokens` says."""

    batch_size: int
    max_new_tokens: int | None

    def answerer(self, model: "Model") -> Answerer:
        from smolrgpt_jax.generation.engine import AnswerOptions

        options = AnswerOptions(self.batch_size, self.max_new_tokens or model.answer_tokens)
        return lambda pictures: answer_questions(model, pictures, options)


def score(
    model: "Model",
    pictures: Sequence[Picture],
    out: Path,
    limits: Limits,
    curves: Paths | None = None,
    blind: BlindBaseline | None = None,
    **details: Any,
) -> None:
    """Answers questions, which have answers to score against, and writes into `out` what eval.warehouse writes.

    curves: name -> metrics.csv, for the report; details: what the report says of the run.
    """
    about = run_details(model, "eval.studies", **details)
    evaluate(pictures, limits.answerer(model), out, loss_curves=curves, blind=blind, run_info=about)


def of_one_run(folder: Path) -> Scores:
    """The scores of a folder of eval.warehouse, with its intervals over pictures."""
    metrics = read_json(folder / "metrics.json", dict)
    intervals = {score: metrics["intervals"].get(score) for score in SCORES}
    return {score: (metrics[score], interval and tuple(interval)) for score, interval in intervals.items()}


def read_predictions(folder: Path) -> dict[str, dict[str, Any]]:
    """The predictions of a folder of results by id."""
    return {item["id"]: item for item in read_json(folder / "predictions.json", list)}


def paired_differences(first: Path, second: Path) -> Scores:
    """What the second of two folders of eval.warehouse scores more than the first on the same questions, in points.

    The intervals draw whole pictures. The truths may differ: a question whose masks were moved has another.
    """
    before, after = map(read_predictions, (first, second))
    gains = [(i["image"], i["category"], float(is_right(i)) - is_right(before[name])) for name, i in after.items()]
    return value_intervals(gains, {category: category for category in WAREHOUSE_CATEGORIES}, "S1")


def value_intervals(
    items: Sequence[tuple[str, str, float | None]], names: Mapping[str, str], mean: str | None = None
) -> Scores:
    """Means in percent of values of questions, with intervals that draw whole pictures (see `eval.scoring.intervals`).

    items: picture, category and value of each question, None for one that does not count; names: category -> name of the score;
    mean: name of the mean over the categories, if it is wanted.
    """
    counted = [item for item in items if item[2] is not None]
    pictures, categories, values = zip(*counted) if counted else ((), (), ())
    present = [category for category in names if category in categories]
    intervals = category_intervals(pictures, categories, values, present) if present else {}
    means = {name: 100 * float(np.mean([v for v, c in zip(values, categories) if c == name])) for name in present}
    if mean is not None:
        names = {"mean": mean, **names}
        means["mean"] = float(np.mean(list(means.values())))
    return {n: (means[p], tuple(intervals[p])) if p in intervals else (None, None) for p, n in names.items()}


def over_seeds(runs: Sequence[Values], differences: bool = False) -> Scores:
    """Mean of each score over runs that differ by their seed, and its interval (Student's t); none for one run.

    Intervals end at 0 and, of shares, at 100 %; what is called an error can be more. Those of `differences` end nowhere.
    """
    found: dict[str, Value] = {}
    for score in runs[0]:
        values = [run[score] for run in runs]
        if None in values:
            found[score] = None, None
        elif len(values) == 1:
            found[score] = values[0], None
        else:
            mean, *ends = student_intervals(np.array(values, float))
            if not differences:
                ends = np.clip(ends, 0.0, np.inf if score.endswith("error") else 100.0)
            found[score] = float(mean), (float(ends[0]), float(ends[1]))
    return found


def differences_over_seeds(first: Sequence[Values], second: Sequence[Values]) -> Scores:
    """Mean of what the second of two variants scores more than the first with the same seed, in points, and its interval.

    A seed's warehouse is the same for both, so that differences vary less than scores do.
    """
    pairs = [{score: (a[score], b[score]) for score in a} for a, b in zip(first, second, strict=True)]
    gains = [{score: None if None in pair else pair[1] - pair[0] for score, pair in run.items()} for run in pairs]
    return over_seeds(gains, differences=True)


def write_study(out: Path, found: Found, differences: Found | None = None, **details: Any) -> None:
    """Writes study.json, table.md and plot.svg into a folder, which may hold the variants' own results."""
    command = typed_command("eval.studies")

    def plain(found: Found) -> dict[str, Any]:
        return {v: {s: dict(zip(("value", "interval"), x)) for s, x in scores.items()} for v, scores in found.items()}

    written = {"command": command, **details, "variants": plain(found)}
    if differences is not None:
        written["differences"] = plain(differences)
    with results_folder(out) as aside:
        write_json(aside / "study.json", written)
        text = f"{describe(found, differences)}\n\n    {command}\n"
        (aside / "table.md").write_text(text, encoding="utf-8")
        plot(found, aside / "plot.svg")


def describe(found: Found, differences: Found | None = None) -> str:
    """Markdown: the table of the scores and, where there is one, that of the differences from the first variant."""
    tables = [table(found)]
    if differences:
        tables.append(table(differences, f"points more than {next(iter(found))}", "+.1f"))
    return "\n\n".join(tables)


def table(found: Found, title: str = "variant", form: str = ".1f") -> str:
    """Markdown: one row per variant, one column per score, percent or points with the 95 % interval."""
    names = list(next(iter(found.values())))

    def cell(value: float | None, interval: tuple[float, float] | None) -> str:
        if value is None:
            return "-"
        return f"{value:{form}}" + (f" ({describe_interval(interval, form)})" if interval else "")

    rows = {variant: [cell(*scores[name]) for name in names] for variant, scores in found.items()}
    return markdown(title, names, rows)


def markdown(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table of named rows, the names under the title."""
    lines = [[title, *columns], ["---"] * (len(columns) + 1), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plot(found: Found, path: Path) -> None:
    """Draws bars with their values, one group per score, one bar per variant, with whiskers for the intervals.

    Bars and whiskers end at 100 %.
    """
    names = list(next(iter(found.values())))
    width = 0.88 / len(found)
    # Of many bars no number fits above its own.
    text = {"ha": "center", "size": 7, "rotation": 90 if len(found) > 8 else 0}
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
                    axes.annotate(f"{value:.0f}", (x, high), (0, 2), textcoords="offset points", **text)
