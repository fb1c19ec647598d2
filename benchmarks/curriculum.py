"""What the published curriculum costs on TPU slices, by the compiler's clock: computed, not run.

    python -m benchmarks.curriculum [--out benchmarks/results] [--only v5e:2x4 ...]

Compiles the train step of every stage at its published batch for every slice, and multiplies its time by the published number of
steps. Where a slice has more chips than the batch has rows, the batch grows to one row for each chip, and the steps become fewer. Writes
curriculum/*.json for every program and the table curriculum.md; needs libtpu (the `tpu` extra). A program whose JSON is there already is
not compiled again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.shared import markdown, show
from benchmarks.tpu_compile import compile_into
from eval.command_line import command_line
from smolrgpt_jax.chips import GIB, find_slice
from smolrgpt_jax.errors import RunError, told
from smolrgpt_jax.files import read_json

TOPOLOGIES = ("v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:8x8", "v5e:16x16", "v6e:2x2", "v6e:2x4", "v5p:2x2x1")


@dataclass(frozen=True)
class Published:
    """A stage as the paper (arXiv 2509.15490) trains it, and the rows that its batch fills."""

    config: str
    samples: int  # of one epoch
    batch: int  # samples
    epochs: int
    rows: int
    row_tokens: int

    def batch_on(self, chips: int) -> int:
        """Samples of a step: the published ones, or as many as fill one row for each chip."""
        return self.batch * max(self.rows, chips) // self.rows

    def steps_on(self, chips: int) -> int:
        """Steps of the whole stage, in which it sees as many samples on every slice."""
        return -(-self.samples * self.epochs // self.batch_on(chips))

    def rows_on(self, chips: int) -> int:
        """Rows of a batch, up to the next number that divides over the chips."""
        return -(-self.rows // chips) * chips


STAGES = {
    "1, connector alignment": Published("configs/stage1_connector.py", 580_491, 240, 20, 60, 512),
    "2, refiner alignment": Published("configs/stage2_refiner.py", 1_072_510, 224, 1, 56, 768),
    # Stopped after four of twenty epochs.
    "3, supervised fine-tuning": Published("configs/stage3_sft.py", 499_083, 112, 4, 16, 768),
}


def lines(topology: str, reports: Mapping[str, dict]) -> list[str]:
    """The table's rows of one slice: its stages, and their sum."""
    chips, hours, found = find_slice(topology).chips, 0.0, []
    for stage, report in reports.items():
        batch, steps = STAGES[stage].batch_on(chips), STAGES[stage].steps_on(chips)
        memory, seconds = report["memory"], report["clock"]["seconds"]
        hours += seconds * steps / 3600
        found.append(
            f"{topology} | {stage} | {batch:,} | {report['rows'] // chips} | {memory['total'] / GIB:.2f} of "
            f"{memory['chip_hbm'] / GIB:.0f} | {seconds * 1e3:.0f} | {steps:,} | {seconds * steps / 3600:.2f} "
            f"| {chips * seconds * steps / 3600:.1f}"
        )
    return [*found, f"{topology} | **all** | | | | | | **{hours:.2f}** | **{chips * hours:.1f}**"]


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = command_line("benchmarks.curriculum", __doc__, only=TOPOLOGIES)
    parser.set_defaults(only=list(TOPOLOGIES))
    a = parser.parse_args(arguments)
    rows, failed = [], []
    for topology in a.only:
        chips, reports = find_slice(topology).chips, {}
        for stage, published in STAGES.items():
            file: Path = a.out / "curriculum" / f"{topology.replace(':', '_')}_{stage[0]}.json"
            size = (published.rows_on(chips), published.row_tokens)
            if compile_into(file, published.config, topology, *size):
                reports[stage] = read_json(file, dict)
            else:
                failed.append(f"{topology} stage {stage}")
        if len(reports) == len(STAGES):
            rows += lines(topology, reports)
    head = "slice | stage | batch, samples | rows per chip | GiB per chip | step, ms | steps | hours | chip-hours"
    said = "Computed by the compiler's clock, collectives hidden that can be; nothing was run."
    if rows:
        show(f"{said}\n\n{markdown(head, rows)}", a.out / "curriculum.md")
    if failed:
        raise RunError(f"did not compile: {', '.join(failed)}")


if __name__ == "__main__":
    main()
