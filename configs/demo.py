"""The demo's trainings, for two CPU cores: the three published stages on a small backbone.

    python -m convert fresh configs/backbone runs/demo/start
    python -m launch.train --config configs/demo.py:stage1 --workdir runs/demo/stage1

`make demo` runs all of them; their settings stand in demo.toml. The backbone lies in configs/backbone and comes from
configs/demo_backbone.py; as in the published curriculum what lies between encoder and decoder is learned in these stages, from random
parameters, and the encoder stays frozen. Learning rates are higher than published: the model is 200 times smaller and sees a
thousandth of the data.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import default
from smolrgpt_jax.warehouse.parameters import AnswerStyle, only_captions

_FILE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

ROOT = "runs/demo"
STAGES = tuple(_FILE["stages"])
BACKBONE = "configs/backbone"
TOKENIZER: str = _FILE["stages"]["stage1"]["tokenizer"]
RESERVED_SEEDS = 900_000  # and above: scenes that the backbone was trained on, and those of the studies' tests
LONGEST_ANSWER: int = _FILE["stages"]["stage3"]["validation_answer_tokens"]
WAREHOUSE = _FILE["warehouse"] | {
    "answers": AnswerStyle(**_FILE["warehouse"]["answers"]),
    "captions": only_captions(**_FILE["warehouse"]["captions"]),
}
DEMO_WAREHOUSE = WAREHOUSE | _FILE["demo_warehouse"]


def common() -> ConfigDict:
    """What all trainings of the demo share."""
    config = default.get_config()
    config.update(_FILE["common"])
    return config


def get_config(stage: str = "stage3", root: str = ROOT) -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"the demo has no stage {stage!r}, only {', '.join(STAGES)}")
    return placed(common(), root, _FILE["stages"][stage])


def placed(config: ConfigDict, root: str, *changes: Mapping[str, Any]) -> ConfigDict:
    """A configuration with changes, whose paths then lie in the work directory `root`."""
    for change in changes:
        config.update(change)
    config.init_from = f"{root}/{config.init_from}"
    for source in (*config.data.sources.values(), *config.validation_sources.values()):
        source.root = f"{root}/{source.root}"
    return config
