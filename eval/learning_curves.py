"""How the scores of each category grew during trainings that differ by their seed only."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.command_line import command_line, typed_command
from eval.report.plots import COLOURS, percent_plot
from eval.studies.findings import SCORES, over_seeds, table
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import results_folder, write_json

# Score -> step -> percent of every run, in the order of the runs.
Curves = Mapping[str, Mapping[int, list[float]]]


def read_curves(runs: Sequence[Path]) -> Curves:
    """The scores that all runs measured at the same steps.

    Raises DataError where there are fewer than two runs or one is named twice, where one has no validated scores, or where two were
    validated at different steps.
    """
    if len(runs) < 2:
        raise DataError("an interval over seeds takes at least two runs")
    if len({run.resolve() for run in runs}) < len(runs):
        raise DataError("a run is named twice; its interval would be too small")
    read = [_read(run / "metrics.csv") for run in runs]
    for run, scores in zip(runs, read):
        for score in SCORES:
            if scores[score].keys() != read[0][score].keys():
                raise DataError(f"{run} and {runs[0]} measured {score} at different steps")
    measured = {score: sorted(at) for score, at in read[0].items() if at}
    if not measured:
        raise DataError(f"{runs[0] / 'metrics.csv'}: no scores, was validation_answers set?")
    return {score: {step: [run[score][step] for run in read] for step in steps} for score, steps in measured.items()}


def _read(file: Path) -> dict[str, dict[int, float]]:
    """{score: {step: percent}} of one metrics.csv."""
    found: dict[str, dict[int, float]] = {score: {} for score in SCORES}
    with open(file, newline="", encoding="utf-8-sig", errors="replace") as stream:
        for row in csv.DictReader(stream):
            for score in SCORES:
                if row.get(score):
                    try:
                        found[score][int(row["step"])] = float(row[score])
                    except (KeyError, TypeError, ValueError):
                        raise DataError(f"{file}: {score} is {row[score]!r}, not a number") from None
    return found


def by_step(curves: Curves) -> dict[int, dict]:
    """{step: {score: mean over the runs and its interval}}; None where a score was not measured."""
    found: dict[int, dict] = {}
    for step in sorted({step for at in curves.values() for step in at}):
        found[step] = dict.fromkeys(curves, (None, None))
        for score, at in curves.items():
            if step in at:
                found[step] |= over_seeds([{score: value} for value in at[step]])
    return found


def plot(curves: Curves, path: Path) -> None:
    """Draws the mean of each score over the steps, a band for its interval, a thin line for every run."""
    found = by_step(curves)
    with percent_plot(path) as axes:
        axes.set_xlabel("step")
        for colour, (score, at) in zip(("black", *COLOURS), curves.items()):
            means, intervals = zip(*(found[step][score] for step in at))
            axes.fill_between(list(at), *zip(*intervals), color=colour, alpha=0.12, linewidth=0)
            axes.plot(list(at), list(at.values()), color=colour, alpha=0.4, linewidth=1)
            axes.plot(list(at), means, color=colour, linewidth=2.5, label=f"{score} {means[-1]:.1f}")


def write_curves(runs: Sequence[Path], out: Path) -> str:
    """Reads the runs, writes what the command's help names and returns the table; raises DataError or OSError."""
    curves = read_curves(runs)
    command = typed_command("eval.learning_curves")
    scores = {score: {"steps": list(at), "values": list(at.values())} for score, at in curves.items()}
    text = table({str(step): scores for step, scores in by_step(curves).items()}, "step")
    with results_folder(out) as aside:
        write_json(aside / "curves.json", {"command": command, "runs": [str(run) for run in runs], "scores": scores})
        (aside / "table.md").write_text(f"{text}\n\n    {command}\n", encoding="utf-8")
        plot(curves, aside / "plot.svg")
    return text


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.learning_curves", __doc__).parse_args(arguments)
    print(f"learning curves of {len(args.runs)} runs, writing to {args.out}")
    print(write_curves(args.runs, args.out))


if __name__ == "__main__":
    main()
