"""The demo's backbone: encoder and decoder trained from scratch on captions, in phases of growing difficulty.

    python -m launch.demo_backbone --workdir runs/demo_backbone
    python -m launch.train --config configs/demo_backbone.py:see --workdir runs/demo_backbone/see

Each phase has scenes of its own, none of them the demo's. The last six ask as the benchmark does and are answered by workings and
bare values.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from configs import default, demo
from smolrgpt_jax.warehouse.parameters import AnswerStyle, only_captions

ROOT = "runs/demo_backbone"


@dataclass(frozen=True)
class Phase:
    """One phase of demo_backbone.json."""

    about: str  # what it teaches, for people
    seed: int
    scenes: int
    steps: int
    row_tokens: int  # of a packed row
    captions: dict[str, int]  # of regions, per picture, by kind
    # Share of the captions of whole pictures among the rows, 0 for as many as there are, None for none of them.
    pictures: float | None = 0.05
    peak: float = 1e-3
    final: float = 0.1  # the last learning rate as a share of the peak
    metres: bool = False  # of worked answers, see AnswerStyle
    summary: bool = False


PHASES = {name: Phase(**phase) for name, phase in json.loads(Path(__file__).with_suffix(".json").read_text()).items()}


def warehouse(name: str) -> dict:
    """Parameters of the warehouse that a phase is trained on."""
    phase = PHASES[name]
    return {
        **demo.WAREHOUSE,
        "scenes": phase.scenes,
        "test_scenes": 0,
        "seed": phase.seed,
        "answers": AnswerStyle(decimals=1, settled=True, worked=True, metres=phase.metres, summary=phase.summary),
        "captions": only_captions(**phase.captions),
        "max_caption_regions": 7,
    }


def get_config(name: str = "see", root: str = ROOT) -> ConfigDict:
    if name not in PHASES:
        raise ValueError(f"the backbone has no phase {name!r}, only {', '.join(PHASES)}")
    phase, data = PHASES[name], f"{root}/{name}_data"
    config = demo.common()
    config.stage = "backbone"
    config.tokenizer = demo.TOKENIZER
    config.steps = phase.steps
    # Nothing is answered at a validation: it tells those who use the backbone how long its worked answers are.
    config.validation_answer_tokens = demo.LONGEST_ANSWER
    config.optimizer.peaks = {"all": phase.peak}
    config.optimizer.final = phase.final
    config.data.row_tokens = phase.row_tokens
    config.data.sources = {"regions": default.warehouse(data, "train", "train_regions.json")}
    config.validation_sources = {"regions": default.warehouse(data, "val", "val_regions.json")}
    if phase.pictures is not None:
        config.data.sources.captions = default.captions(data, "train_captions.json", "train/images")
    if phase.pictures:
        config.data.weights = {"regions": 1 - phase.pictures, "captions": phase.pictures}
    before = list(PHASES)[: list(PHASES).index(name)]
    if before:
        config.init_from = f"{root}/{before[-1]}"
    return config
