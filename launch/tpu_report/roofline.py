"""An estimate of a program's time on a chip from what it computes and moves. Nothing here was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launch.tpu_report.costs import Collective, Work
from smolrgpt_jax.chips import Chip

ASSUMPTIONS = (
    "matrix products run at the chip's peak bf16 rate; other arithmetic takes no time",
    "HBM traffic is what the compiled instructions read and write, at the full bandwidth; padding of tiles is left out",
    "instructions run one after another, each as long as the larger of its compute and HBM time; asynchronous copies overlap",
    "a collective uses all of a chip's links in one direction; latencies take no time",
    "`seconds` hides communication behind everything else, `seconds_no_overlap` hides none of it",
)


@dataclass(frozen=True)
class Estimate:
    """Seconds of one run on one chip.

    compute, hbm, ici, dcn: each resource by itself; dcn is None where the chip's bandwidth is not public. seconds,
    seconds_no_overlap: see ASSUMPTIONS. mfu: the model's FLOPs over peak FLOPs in `seconds`, mfu_no_overlap likewise.
    """

    compute: float
    hbm: float
    ici: float
    dcn: float | None
    seconds: float
    seconds_no_overlap: float
    mfu: float
    mfu_no_overlap: float


def estimate(chip: Chip, work: Sequence[Work], collectives: Sequence[Collective], model_flops: float) -> Estimate:
    """The time of a program on a chip; model_flops: FLOPs per chip that the model needs, rematerialisation left out.

    Traffic between slices over a network without a public figure adds no time, and `dcn` says None.
    """
    compute = sum(w.flops * w.times for w in work) / chip.flops
    hbm = sum(w.bytes * w.times for w in work) / chip.hbm_bandwidth
    serial = sum(max(w.flops / chip.flops, w.bytes / chip.hbm_bandwidth) * w.times for w in work if not w.overlaps)
    ici = sum(c.ici_bytes * c.times for c in collectives) / chip.ici_bandwidth
    crossing = sum(c.dcn_bytes * c.times for c in collectives)
    dcn = 0.0 if not crossing else crossing / chip.dcn_bandwidth if chip.dcn_bandwidth else None
    busy = max(serial, hbm)
    seconds = max(busy, ici, dcn or 0.0)
    apart = busy + ici + (dcn or 0.0)
    needed = model_flops / chip.flops
    shares = (needed / time if time else 0.0 for time in (seconds, apart))
    return Estimate(compute, hbm, ici, dcn, seconds, apart, *shares)
