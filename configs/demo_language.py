"""The demo with a pretrained language model for its decoder: the three published stages, and a third stage that leaves it frozen.

    python -m launch.demo --language DIR
    python -m launch.train --config configs/demo_language.py:stage3 --workdir runs/demo_language/stage3

Encoder, pictures and cameras are the demo's, answers as published: free wordings, centimetres, no workings. Settings stand in
demo_language.toml. Memory is that of a training of the decoder's size, in float32: 135 million parameters take 3 GB.
"""

import tomllib
from pathlib import Path

from ml_collections import ConfigDict

from configs import demo
from smolrgpt_jax.warehouse.parameters import AnswerStyle, only_captions

_FILE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

ROOT = "runs/demo_language"
STAGES = tuple(_FILE["stages"])
# What is scored: name for people -> stage.
SCORED = {"decoder trained": "stage3", "decoder frozen": "frozen"}
WAREHOUSE = demo.WAREHOUSE | _FILE["warehouse"]
WAREHOUSE |= {"answers": AnswerStyle(), "captions": only_captions(**_FILE["warehouse"]["captions"])}


def get_config(stage: str = "stage3", root: str = ROOT) -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"the demo with a language model has no stage {stage!r}, only {', '.join(STAGES)}")
    return demo.placed(demo.common(), root, _FILE["common"], _FILE["stages"][stage])
