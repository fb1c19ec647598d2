"""Makes a procedural warehouse in the published folder format.

python -m launch.make_warehouse --out DIR --scenes N --seed S [--width 256 --height 144]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from smolrgpt_jax.data.records import DataError
from smolrgpt_jax.data.warehouse_sim.config import MIXES, WarehouseConfig
from smolrgpt_jax.data.warehouse_sim.write import make_warehouse

NUMBERS = {
    "scenes": "pictures of the training split",
    "val_scenes": "pictures of the validation split",
    "test_scenes": "pictures of the test split",
    "seed": "of everything that is drawn",
    "width": "of the pictures, in pixels",
    "height": "of the pictures, in pixels",
    "max_pallets": "most pallets of a scene, 4 to 10",
}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.make_warehouse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    for name, what in NUMBERS.items():
        parser.add_argument(
            f"--{name}",
            type=int,
            default=getattr(WarehouseConfig, name),
            help=f"{what} (default %(default)s)",
        )
    parser.add_argument(
        "--mix",
        choices=MIXES,
        default=WarehouseConfig.mix,
        help="shares of the categories in the training split (default %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, help="processes, without effect on the result (default: one per core)"
    )
    arguments = vars(parser.parse_args())
    out, workers = arguments.pop("out"), arguments.pop("workers")
    try:
        if workers is not None and workers < 1:
            raise ValueError(f"{workers} workers are too few")
        config = WarehouseConfig(**arguments)
        sizes = ", ".join(f"{size} {split}" for split, size in config.split_sizes().items())
        print(
            f"making a warehouse in {out}: scenes {sizes}; {config.width}x{config.height} pixels, "
            f"seed {config.seed}"
        )
        metadata = make_warehouse(out, config, workers)
    except (DataError, ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    for split, found in metadata["splits"].items():
        questions = ", ".join(f"{category} {number}" for category, number in found["questions"].items())
        print(
            f"{split}: {questions}; {found['region_captions']} region captions, "
            f"{found['scene_captions']} scene captions"
        )


if __name__ == "__main__":
    main()
