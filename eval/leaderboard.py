"""Puts finished evaluations side by side, as a table here and as one HTML file."""

from collections.abc import Sequence

from eval.command_line import command_line, typed_command
from eval.report.html import render_leaderboard
from eval.scoring.standings import describe_sets, describe_table, make_table, question_sets, read_finished
from smolrgpt_jax.errors import told


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    args = command_line("eval.leaderboard", __doc__).parse_args(arguments)
    print(f"reading {len(args.runs)} run{'s' * (len(args.runs) != 1)}, writing {args.out}")
    tables = [make_table(runs) for runs in question_sets(read_finished(args.runs))]
    render_leaderboard(args.out, tables, {"command": typed_command("eval.leaderboard")})
    for text in filter(None, (describe_sets(tables), *map(describe_table, tables))):
        print(f"\n{text}")
    print(f"\nleaderboard: {args.out}")


if __name__ == "__main__":
    main()
