"""Finished runs side by side: which answered the same questions, their scores, what they cost, where they differ most."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.reading.bench_rules import CATEGORIES, QUALITATIVE, QUANTITATIVE, BenchAnswer
from eval.scoring.bench_scores import group_of, is_success
from eval.scoring.breakdown import abstracted
from eval.scoring.intervals import category_intervals, cell, describe_interval, mcnemar
from eval.scoring.official import is_right
from eval.scoring.results import RUN_FILE, predictions_file, read_records, read_run, token_sums
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json

ALL = "all"  # of SpatialRGPT-Bench, what stands in S1's place
TITLES = {"warehouse": "Warehouse benchmark", "bench": "SpatialRGPT-Bench"}


@dataclass(frozen=True)
class Finished:
    """A run that answered its questions.

    Attributes:
      name: for people; kind: a key of TITLES.
      items: predictions by id, with "right", "readable", "group" (what the first score is the mean of), "column" and "sort"
        (the kind of the question).
      about: of run.json, {} where there is none; blind: of metrics.json, scores of guesses without the picture.
    """

    name: str
    kind: str
    items: Mapping[str, Mapping[str, Any]]
    about: Mapping[str, Any] = field(default_factory=dict)
    blind: Mapping[str, float] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The score that runs are sorted by."""
        return "S1" if self.kind == "warehouse" else ALL

    @property
    def questions(self) -> frozenset[tuple[str, ...]]:
        """What tells the questions of a run from those of another."""
        fields = ("image", "category", "truth")
        return frozenset(
            (self.kind, name, *(repr(item[field]) for field in fields)) for name, item in self.items.items()
        )


def read_finished(paths: Sequence[str | Path]) -> list[Finished]:
    """Runs of eval.warehouse and eval.spatialrgpt_bench: folders, or their predictions.json.

    Raises DataError for one that is named twice, and where predictions cannot be read or have no published answers.
    """
    folders = [predictions_file(path).parent for path in paths]
    places = [folder.resolve() for folder in folders]
    short = [place.name for place in places]
    found = []
    for number, path in enumerate(paths):
        if places[number] in places[:number]:
            raise DataError(f"{path} is named twice")
        name = short[number] if short.count(short[number]) == 1 else str(path)
        found.append(_read_one(name, Path(path), folders[number]))
    return found


def _read_one(name: str, path: Path, folder: Path) -> Finished:
    file = predictions_file(path)
    records = read_records(file, ("category",))
    kind = "bench" if records[0]["category"] in CATEGORIES else "warehouse"
    items: dict[str, dict[str, Any]] = {}
    if kind == "warehouse":
        for key, item in read_run(path).items():
            category = item["category"]
            told = {"right": is_right(item), "readable": item["normalized_answer"] is not None}
            sort = abstracted(str(item["question"])) if item.get("question") else category
            items[key] = item | told | {"group": category, "column": category, "sort": sort}
    else:
        for item in read_records(file, ("image", "category", "value", "truth_value")):
            value, truth = (_bench_value(file, item, field) for field in ("value", "truth_value"))
            told = {"image": str(item["image"]), "right": is_success(item["category"], value, truth), "truth": truth}
            told |= {"readable": value is not None, "group": ALL, "column": group_of(item["category"])}
            items[item["id"]] = item | told | {"sort": item["category"]}
    about = _object(folder / RUN_FILE)
    metrics = _object(folder / "metrics.json")
    blind = {"S1": metrics.get("blind_S1")} | (metrics["blind"] if isinstance(metrics.get("blind"), dict) else {})
    return Finished(name, kind, items, about, {n: v for n, v in blind.items() if isinstance(v, int | float)})


def _bench_value(file: Path, item: Mapping, name: str) -> BenchAnswer:
    value, category = item[name], item["category"]
    if category not in CATEGORIES:
        raise DataError(f"{file}: record {item['id']!r}: unknown category {category!r}")
    if value is not None and not (isinstance(value, bool | int | float) and 0 <= value < 1e12):
        raise DataError(f"{file}: record {item['id']!r}: {name} is {value!r}, expected a number, true, false or null")
    return value


def _object(file: Path) -> dict:
    return read_json(file, dict) if file.exists() else {}


def question_sets(runs: Sequence[Finished]) -> list[list[Finished]]:
    """The runs by the questions that they answered, in the order of their first ones."""
    sets: dict[frozenset, list[Finished]] = defaultdict(list)
    for run in runs:
        sets[run.questions].append(run)
    return list(sets.values())


def make_table(runs: Sequence[Finished]) -> dict[str, Any]:
    """The runs of one question set, best first.

    Returns:
      title; questions, pictures: how many; first: the score they are sorted by; columns: those that occur; rows: dicts of run,
      scores and intervals {column: percent or [low, high]}, unreadable, cut_off, tokens (as `token_sums` has them, or None),
      per_second, parameters (None where unknown), and behind: of all but the first row, difference (points of the first
      score, to the best run), interval (of it, 95 %, the same pictures drawn for both) and p (exact McNemar test over all
      questions); blind: rows of {"runs", "scores"}; kinds: see `differences`.
    """
    kind, items = runs[0].kind, runs[0].items
    names = WAREHOUSE_CATEGORIES if kind == "warehouse" else (*QUALITATIVE, *QUANTITATIVE)
    columns = [name for name in names if any(item["column"] == name for item in items.values())]
    rows = sorted((_row(run, columns) for run in runs), key=lambda row: (-row["scores"][row["first"]], row["run"].name))
    best = rows[0]["run"]
    for row in rows[1:]:
        row["behind"] = _behind(best, row["run"])
    blind: dict[tuple, list[str]] = defaultdict(list)
    for row in rows:
        if row["run"].blind:
            blind[tuple(sorted(row["run"].blind.items()))].append(row["run"].name)
    return {
        "title": TITLES[kind],
        "questions": len(items),
        "pictures": len({item["image"] for item in items.values()}),
        "first": runs[0].first,
        "columns": columns,
        "rows": rows,
        "blind": [{"runs": names, "scores": dict(scores)} for scores, names in blind.items()],
        "kinds": differences([row["run"] for row in rows]),
    }


def _values(run: Finished, name: str, order: Mapping[str, Any]) -> list[Any]:
    return [run.items[key][name] for key in order]


def _row(run: Finished, columns: Sequence[str]) -> dict[str, Any]:
    images, rights, groups, of = (_values(run, name, run.items) for name in ("image", "right", "group", "column"))
    present = list(dict.fromkeys(groups))
    intervals = {run.first: category_intervals(images, groups, rights, present)["mean"]}
    intervals |= category_intervals(images, of, rights, columns)
    scores = {run.first: _mean_of_groups(rights, groups)}
    scores |= {name: _mean_of_groups(*zip(*((r, g) for r, g in zip(rights, of) if g == name))) for name in columns}
    seconds, asked = run.about.get("seconds"), run.about.get("questions")
    known = isinstance(seconds, int | float) and isinstance(asked, int) and seconds > 0
    parameters = run.about.get("parameters")
    return {
        "run": run,
        "first": run.first,
        "scores": scores,
        "intervals": {name: intervals[name] for name in scores},
        "unreadable": sum(not item["readable"] for item in run.items.values()),
        "cut_off": sum(item.get("cut_off") is True for item in run.items.values()),
        "tokens": token_sums(list(run.items.values())).get("tokens"),
        "per_second": asked / seconds if known else None,
        "parameters": parameters if isinstance(parameters, int) else None,
        "behind": None,
    }


def _mean_of_groups(values: Sequence[float], groups: Sequence[str]) -> float:
    """The mean in percent over the groups' means."""
    found: dict[str, list[float]] = defaultdict(list)
    for value, group in zip(values, groups):
        found[group].append(value)
    return 100 * sum(sum(part) / len(part) for part in found.values()) / len(found)


def _behind(best: Finished, run: Finished) -> dict[str, Any]:
    order = best.items
    groups = _values(best, "group", order)
    pairs = list(zip(_values(best, "right", order), _values(run, "right", order)))
    gains = [float(other) - float(own) for own, other in pairs]
    present = list(dict.fromkeys(groups))
    interval = category_intervals(_values(best, "image", order), groups, gains, present)["mean"]
    p = mcnemar(pairs.count((True, False)), pairs.count((False, True)))
    return {"difference": _mean_of_groups(gains, groups), "interval": interval, "p": p}


def differences(runs: Sequence[Finished]) -> list[dict[str, Any]]:
    """Kinds of questions, those first on which the most and the least successful run differ by most questions.

    Kinds are question templates, or categories of SpatialRGPT-Bench. Returns dicts of column, kind, questions, correct (one
    number per run) and gap, in questions.
    """
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key, item in runs[0].items.items():
        places[item["column"], item["sort"]].append(key)
    rows = []
    for (column, sort), keys in places.items():
        correct = [sum(run.items[key]["right"] for key in keys) for run in runs]
        gap = max(correct) - min(correct)
        rows.append({"column": column, "kind": sort, "questions": len(keys), "correct": correct, "gap": gap})
    return sorted(rows, key=lambda row: (-row["gap"], row["questions"], row["kind"]))


def describe_sets(tables: Sequence[Mapping]) -> str:
    """Why there are several tables, "" for one."""
    if len(tables) < 2:
        return ""
    named = [", ".join(row["run"].name for row in table["rows"]) for table in tables]
    return f"Runs that answered other questions stand in tables of their own: {'; '.join(named)}."


def describe_table(table: Mapping) -> str:
    """A table for people, in plain text."""
    first, columns = table["first"], table["columns"]
    heads = ["", "run", first, "95 % interval", *columns, "unreadable", "per second", "parameters", "tokens/question"]
    lines = [heads]
    for place, row in enumerate(table["rows"], 1):
        scores = [cell(row["scores"][name]) for name in columns]
        cost = [str(row["unreadable"]), cell(row["per_second"], ".3g"), cell(row["parameters"], ",")]
        taken = row["tokens"]
        cost.append("-" if taken is None else f"{taken['prompt']['mean']:.0f} + {taken['completion']['mean']:.0f}")
        interval = describe_interval(row["intervals"][first])
        lines.append([str(place), row["run"].name, cell(row["scores"][first]), interval, *scores, *cost])
    for row in table["blind"]:
        scores = [cell(row["scores"].get(name)) for name in columns]
        lines.append(["", "blind", cell(row["scores"].get(first)), "", *scores, *[""] * 4])
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = [
        "  ".join(
            text.ljust(wide) if place < 2 else text.rjust(wide) for place, (text, wide) in enumerate(zip(line, widths))
        )
        for line in lines
    ]
    about = f"{table['title']}: {table['questions']} questions about {table['pictures']} pictures"
    return "\n".join([about, *(row.rstrip() for row in rows)])
