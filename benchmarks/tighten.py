"""How near the truth boxes and tightened boxes are: intersection over union with the exact masks of procedural regions."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.shared import markdown, show
from eval.assist.tightened import least_box, tighten
from eval.command_line import command_line
from smolrgpt_jax.data.masks import RLE, decode
from smolrgpt_jax.errors import told
from smolrgpt_jax.warehouse.make_scene import draw_scene
from smolrgpt_jax.warehouse.parameters import WarehouseConfig

EVERY = 3  # of a scene's regions, so that there are many scenes


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / (a | b).sum())


def measured(config: WarehouseConfig) -> Iterator[tuple[str, float, float]]:
    """Kind of a region, overlap of its box with its mask, and of the tightened box; of scene after scene without end."""
    for index in itertools.count():
        _, rendering, regions, _ = draw_scene(config, "val", index)
        for region in regions[index % EVERY :: EVERY]:
            truth = RLE(config.height, config.width, region.counts.encode())
            mask, box = decode(truth), least_box(truth)
            yield region.kind, overlap(decode(box), mask), overlap(decode(tighten(rendering.rgb, [box])[0]), mask)


@told()
def main(arguments: Sequence[str] | None = None) -> None:
    a = command_line("benchmarks.tighten", __doc__).parse_args(arguments)
    config = WarehouseConfig(width=a.width, height=a.height, seed=a.seed)
    found = list(itertools.islice(measured(config), a.regions))
    kinds = {"all": found} | {
        kind: [row for row in found if row[0] == kind] for kind in sorted({row[0] for row in found})
    }
    rows = []
    for kind, of_kind in kinds.items():
        boxes, tight = np.array([row[1:] for row in of_kind]).T
        better = (tight > boxes).mean()
        rows.append(
            f"{kind} | {len(of_kind)} | {boxes.mean():.3f} | {tight.mean():.3f} | {np.median(tight):.3f} | {better:.0%}"
        )
    show(markdown("regions | number | boxes | tightened | its median | better than the box", rows), a.out)


if __name__ == "__main__":
    main()
