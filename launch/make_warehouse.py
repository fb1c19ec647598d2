"""Makes a procedural warehouse in the published folder format.

    python -m launch.make_warehouse --out DIR --scenes N --seed S [--width 1920 --height 1080]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from smolrgpt_jax.data.records import DataError
from smolrgpt_jax.data.warehouse_sim.write import WarehouseConfig, make_warehouse


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m launch.make_warehouse", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--scenes", type=int, default=WarehouseConfig.scenes, help="training scenes (default %(default)s)")
    parser.add_argument("--val_scenes", type=int, default=WarehouseConfig.val_scenes, help="validation scenes (default %(default)s)")
    parser.add_argument("--test_scenes", type=int, default=WarehouseConfig.test_scenes, help="test scenes (default %(default)s)")
    parser.add_argument("--seed", type=int, default=WarehouseConfig.seed, help="(default %(default)s)")
    parser.add_argument("--width", type=int, default=WarehouseConfig.width, help="pixels (default %(default)s)")
    parser.add_argument("--height", type=int, default=WarehouseConfig.height, help="pixels (default %(default)s)")
    parser.add_argument("--max_pallets", type=int, default=WarehouseConfig.max_pallets, help="most pallets in a scene, 4 to 10 (default %(default)s)")
    parser.add_argument("--workers", type=int, help="processes; the result does not depend on it (default: one per core)")
    arguments = vars(parser.parse_args())
    out, workers = arguments.pop("out"), arguments.pop("workers")
    try:
        config = WarehouseConfig(**arguments)
        print(f"making {config.split_sizes()} scenes of {config.width}x{config.height} pixels in {out}, seed {config.seed}")
        metadata = make_warehouse(out, config, workers)
    except (DataError, ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    for split, counts in metadata["counts"].items():
        print(f"{split}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))


if __name__ == "__main__":
    main()
