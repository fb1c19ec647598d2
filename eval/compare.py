"""Compares two runs of eval.warehouse on the same questions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.command_line import command_line
from eval.scoring.intervals import category_intervals, describe_bootstrap, describe_interval, mcnemar
from eval.scoring.official import is_right
from eval.scoring.results import Run, check_same, read_run
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import write_text

ALL = "all questions"


def compare_runs(first: Run, second: Run, names: tuple[str, str], out: Path | None = None) -> list[dict]:
    """Compares two runs, "A" and "B", as `read_run` gives them.

    names: of the runs, for messages; out: see `check_same`. Returns a dict for S1, for each category that occurs and for
    all questions: name, questions, a and b (percent), difference (b - a, points), interval of the difference [low, high],
    and, except for S1, only_a, only_b and p. Raises DataError where the runs' questions differ; all ids are listed.
    """
    check_same(first, second, names, out, "the runs cannot be compared: ")
    fields = ("image", "category", "truth")
    changed = [name for name in first if any(first[name][field] != second[name][field] for field in fields)]
    if changed:
        listed = ", ".join(map(repr, changed))
        raise DataError(f"the runs cannot be compared: another picture, category or truth has id {listed}")
    items = [(first[name], second[name]) for name in first]
    clusters = [a["image"] for a, _ in items]
    categories = [a["category"] for a, _ in items]
    right = [tuple(map(is_right, pair)) for pair in items]
    gains = [float(b) - float(a) for a, b in right]
    present = [name for name in WAREHOUSE_CATEGORIES if name in categories]
    intervals = category_intervals(clusters, categories, gains, present)
    intervals |= category_intervals(clusters, [ALL] * len(items), gains, [ALL]) | {"S1": intervals["mean"]}
    rows = []
    for name in (*present, ALL):
        pairs = [pair for pair, category in zip(right, categories) if name in (category, ALL)]
        a, b = (100 * sum(values) / len(pairs) for values in zip(*pairs))
        only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
        row = {"name": name, "questions": len(pairs), "a": a, "b": b}
        rows.append(row | {"only_a": only_a, "only_b": only_b, "p": mcnemar(only_a, only_b)})
    a, b = (sum(row[run] for row in rows[:-1]) / len(present) for run in "ab")
    rows.insert(0, {"name": "S1", "questions": len(items), "a": a, "b": b})
    return [row | {"difference": row["b"] - row["a"], "interval": intervals[row["name"]]} for row in rows]


def describe_comparison(rows: Sequence[Mapping], names: tuple[str, str], pictures: Sequence[str]) -> str:
    """The comparison as Markdown; rows: of `compare_runs`; pictures: that of each question."""
    columns = "| | questions | A, % | B, % | B - A | 95 % interval | only A right | only B right | p |"
    lines = [f"A: `{names[0]}`  ", f"B: `{names[1]}`", "", columns, "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        tested = [str(row["only_a"]), str(row["only_b"]), f"{row['p']:.2g}"] if "p" in row else ["", "", ""]
        scores = f"{row['a']:.2f} | {row['b']:.2f} | {row['difference']:+.2f}"
        cells = [row["name"], str(row["questions"]), scores, describe_interval(row["interval"], "+.2f"), *tested]
        lines.append(f"| {' | '.join(cells)} |")
    made = describe_bootstrap(pictures)
    draws = f"{made['clusters']} pictures, {made['resamples']} resamples, seed {made['seed']}"
    interval = f"Interval: {made['method']} ({draws}), the same draws for both runs; {made['limits']}. "
    lines += ["", f"{interval}p: exact McNemar test, two-sided; it takes questions as independent."]
    return "\n".join(lines) + "\n"


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.compare", __doc__).parse_args(arguments)
    names = (str(args.run_a), str(args.run_b))
    print(f"comparing {names[0]} with {names[1]}" + (f", writing {args.out}" if args.out else ""))
    first, second = read_run(args.run_a), read_run(args.run_b)
    rows = compare_runs(first, second, names, args.out)
    text = describe_comparison(rows, names, [item["image"] for item in first.values()])
    if args.out:
        write_text(args.out, text)
    print(f"\n{text}", end="")


if __name__ == "__main__":
    main()
