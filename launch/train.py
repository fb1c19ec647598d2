"""Trains one stage.

    python -m launch.train --config configs/stage3_sft.py --workdir DIR [--config.any.key=value]

Started again with the same work directory it goes on from its newest checkpoint.
"""

from __future__ import annotations

import logging

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="configuration file of the run", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "where checkpoints and metrics go", required=True)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise SystemExit(f"error: unknown argument {arguments[1]!r}")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    from smolrgpt_jax.data.records import DataError
    from smolrgpt_jax.torch_format.folder import CheckpointError
    from smolrgpt_jax.training.loop import RunError, train

    print(f"training into {WORKDIR.value} with\n{CONFIG.value}")
    try:
        result = train(CONFIG.value.to_dict(), WORKDIR.value)
    except (RunError, DataError, CheckpointError) as error:
        raise SystemExit(f"error: {error}") from None
    print(
        f"step {result['step']} of {result['steps']}"
        + "".join(f", {k} {result[k]:.4f}" for k in ("loss", "validation_loss") if k in result)
    )
    if result["stopped"]:
        raise SystemExit("stopped by a signal; the same command goes on from here")


if __name__ == "__main__":
    # DEFINE_config_file marks --config required only through its value.
    flags.mark_flag_as_required("config")
    app.run(main)
