"""What the demos share: seeds that may be learned from, and stages that are trained one after another."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from configs import demo

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def check_seed(seed: int) -> None:
    """Raises ValueError for the seed of scenes that are not to be learned from."""
    if not 0 <= seed < demo.RESERVED_SEEDS:
        allowed = f"from 0 to {demo.RESERVED_SEEDS - 1}: scenes of others are the backbone's or tested on"
        raise ValueError(f"the seed is {seed}, it must be {allowed}")


def train_stages(
    stages: Iterable[str], get_config: Callable[[str, str], "ConfigDict"], workdir: Path, seed: int
) -> None:
    """Trains the stages that are not finished, each in its folder of the work directory."""
    from eval.scoring.in_training import WAREHOUSE_SCORES
    from smolrgpt_jax.training.run import train

    for stage in stages:
        config = get_config(stage, str(workdir))
        config.seed = seed
        result = train(config.to_dict(), workdir / stage, WAREHOUSE_SCORES)
        if result["stopped"]:
            raise SystemExit("stopped by a signal; the same command goes on from here")
