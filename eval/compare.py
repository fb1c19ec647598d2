"""Compares two runs of eval.warehouse on the same questions.

    python -m eval.compare RUN_A RUN_B [--out FILE.md]

A run is a folder of eval.warehouse, or its predictions.json. The table holds both accuracies, the
difference B - A with its 95 % interval, the numbers of questions only one run answered rightly, and
the exact McNemar test's p-value. The interval draws whole pictures, see eval.scoring.intervals; the test takes
questions as independent, so that its p-value is somewhat too small where a picture has many questions.
S1 is a mean of four accuracies, so that it has an interval but no such test; "all questions" counts
every question once.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval import check_unique
from eval.score_warehouse import describe_differing
from eval.scoring.intervals import category_intervals, describe_bootstrap, describe_interval, mcnemar
from eval.scoring.official import is_correct
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, normalize_answer, record_id
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json, write_text

ALL = "all questions"
_FIELDS = ("id", "image", "category", "normalized_answer", "truth")


def read_run(path: str | Path) -> dict[str, dict]:
    """Reads a run's predictions: {id: dict with id, image, category, normalized_answer and truth}.

    Args:
      path: a folder with predictions.json, or such a file.

    Raises:
      DataError: the file is unreadable, a record lacks a field or has no truth, or ids occur twice.
    """
    path = Path(path)
    file = path / "predictions.json" if path.is_dir() else path
    run: dict[str, dict] = {}
    items = read_json(file, list)
    for index, item in enumerate(items):
        missing = [field for field in _FIELDS if not isinstance(item, dict) or field not in item]
        if missing:
            raise DataError(f"{file}: record {index} has no {missing[0]!r}")
        category = item["category"]
        try:
            name = record_id(item["id"])
        except ValueError as error:
            raise DataError(
                f"{file}: record {index} has the id {item['id']!r}, expected text or a whole number"
            ) from error
        if category not in WAREHOUSE_CATEGORIES:
            raise DataError(f"{file}: record {name!r}: unknown category {category!r}")
        try:
            truth, answer = (normalize_answer(category, item[key]) for key in ("truth", "normalized_answer"))
        except ValueError as error:
            raise DataError(f"{file}: record {name!r}: {error}") from error
        if truth is None:
            raise DataError(f"{file}: record {name!r} has no published answer to compare with")
        run[name] = {**item, "image": str(item["image"]), "truth": truth, "normalized_answer": answer}
    check_unique(file, (str(item["id"]) for item in items))
    if not run:
        raise DataError(f"{file}: holds no question")
    return run


def compare_runs(
    first: Mapping[str, dict], second: Mapping[str, dict], names: tuple[str, str], listing: Path | None = None
) -> list[dict]:
    """Compares two runs as ``read_run`` gives them.

    Args:
      first, second: the runs, "A" and "B".
      names: of the runs, for messages.
      listing: file for very many ids, see ``eval.score_warehouse.describe_differing``.

    Returns:
      A dict for S1, for each category that occurs and for all questions: name, questions, a and b
      (percent), difference (b - a, points), interval of the difference [low, high], and, except for
      S1, only_a, only_b and p.

    Raises:
      DataError: the runs' questions differ; all ids are listed.
    """
    differing = describe_differing(first, second, names, listing) or _describe_changed(first, second)
    if differing:
        raise DataError(f"the runs cannot be compared: {differing}")
    items = [(first[name], second[name]) for name in first]
    clusters = [a["image"] for a, _ in items]
    categories = [a["category"] for a, _ in items]
    right = [tuple(_is_right(item) for item in pair) for pair in items]
    gains = [float(b) - float(a) for a, b in right]
    present = [name for name in WAREHOUSE_CATEGORIES if name in categories]
    intervals = category_intervals(clusters, categories, gains, present)
    overall = category_intervals(clusters, [ALL] * len(items), gains, [ALL])
    rows = []
    for name in (*present, ALL):
        pairs = [pair for pair, category in zip(right, categories) if name in (category, ALL)]
        a, b = (100 * sum(values) / len(pairs) for values in zip(*pairs))
        only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
        rows.append(
            {
                "name": name,
                "questions": len(pairs),
                "a": a,
                "b": b,
                "difference": b - a,
                "interval": (intervals | overall)[name],
                "only_a": only_a,
                "only_b": only_b,
                "p": mcnemar(only_a, only_b),
            }
        )
    a, b = (sum(row[run] for row in rows[:-1]) / len(present) for run in "ab")
    s1 = {"name": "S1", "questions": len(items), "a": a, "b": b, "difference": b - a}
    return [s1 | {"interval": intervals["mean"]}, *rows]


def describe_comparison(rows: Sequence[Mapping], names: tuple[str, str], pictures: Sequence[str]) -> str:
    """Returns the comparison as Markdown.

    Args:
      rows: of ``compare_runs``.
      names: of the runs.
      pictures: the picture of each question.
    """
    lines = [
        f"A: `{names[0]}`  ",
        f"B: `{names[1]}`",
        "",
        "| | questions | A, % | B, % | B - A | 95 % interval | only A right | only B right | p |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        tested = [str(row["only_a"]), str(row["only_b"]), f"{row['p']:.2g}"] if "p" in row else ["", "", ""]
        cells = [
            row["name"],
            str(row["questions"]),
            f"{row['a']:.2f}",
            f"{row['b']:.2f}",
            f"{row['difference']:+.2f}",
            describe_interval(row["interval"], "+.2f"),
            *tested,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    made = describe_bootstrap(pictures)
    lines += [
        "",
        f"Interval: {made['method']} ({made['clusters']} pictures, {made['resamples']} resamples, seed "
        f"{made['seed']}), the same draws for both runs; {made['limits']}. p: exact McNemar test, "
        "two-sided; it takes questions as independent.",
    ]
    return "\n".join(lines) + "\n"


def _describe_changed(first: Mapping[str, dict], second: Mapping[str, dict]) -> str | None:
    """A sentence on the ids that stand for another question in the other run."""
    changed = [
        name
        for name in first
        if any(first[name][field] != second[name][field] for field in ("image", "category", "truth"))
    ]
    listed = ", ".join(map(repr, changed))
    return f"another picture, category or truth has id {listed}" if changed else None


def _is_right(item: Mapping) -> bool:
    return is_correct(item["category"], item["normalized_answer"], item["truth"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_a", type=Path, metavar="RUN_A", help="folder of eval.warehouse or predictions.json")
    parser.add_argument("run_b", type=Path, metavar="RUN_B", help="the other run")
    parser.add_argument("--out", type=Path, help="Markdown file to write the table to as well")
    args = parser.parse_args(arguments)

    names = (str(args.run_a), str(args.run_b))
    print(f"comparing {names[0]} with {names[1]}" + (f", writing {args.out}" if args.out else ""))
    try:
        runs = read_run(args.run_a), read_run(args.run_b)
        listing = args.out.with_name(f"{args.out.stem}_differing_ids.json") if args.out else None
        rows = compare_runs(*runs, names, listing)
        text = describe_comparison(rows, names, [item["image"] for item in runs[0].values()])
        if args.out:
            write_text(args.out, text)
    except DataError as error:
        raise SystemExit(f"error: {error}") from None
    except OSError as error:
        raise SystemExit(f"error: {args.out} cannot be written ({error.strerror})") from None
    print(f"\n{text}", end="")


if __name__ == "__main__":
    main()
