"""The demo's backbone: encoder and decoder trained from scratch on captions, in phases of growing difficulty.

    python -m launch.demo_backbone --workdir runs/demo_backbone
    python -m launch.train --config configs/demo_backbone.py:see --workdir runs/demo_backbone/see

Each phase has scenes of its own, none of them the demo's. No phase sees a question of the benchmark.
"""

from ml_collections import ConfigDict

from configs import default, demo
from smolrgpt_jax.data.warehouse_sim.captions import CaptionCounts

ROOT = "runs/demo_backbone"
PHASES = ("see", "scan", "measure", "recall")
SEEDS = {"see": 900_001, "scan": 900_002, "measure": 900_003, "recall": 900_004}
STEPS = {"see": 1300, "scan": 1500, "measure": 2500, "recall": 700}
CAPTIONS = {
    # Nearly all tokens can be learned early: one digit per coordinate, whole metres, no decimals.
    "see": {
        "single": 4,
        "compare": 3,
        "side": 4,
        "floor": 4,
        "apart": 7,
        "within": 4,
        "how_many": 2,
        "name_each": 4,
    },
    # Several regions in turn, one word each.
    "scan": {
        "single": 2,
        "compare": 2,
        "side": 3,
        "floor": 2,
        "apart": 2,
        "within": 2,
        "how_many": 2,
        "inside": 2,
        "name_each": 3,
        "inside_each": 6,
    },
    # Two digits per coordinate and tenths of metres, which only add noise before.
    "measure": demo.CAPTIONS,
}
# The captions of whole pictures, which the phases between make it forget, beside those of the last one.
CAPTIONS["recall"] = CAPTIONS["measure"]


def warehouse(phase: str) -> dict:
    """Parameters of the warehouse that a phase is trained on."""
    return {
        **demo.WAREHOUSE,
        "scenes": 5000,
        "test_scenes": 0,
        "seed": SEEDS[phase],
        "captions": CaptionCounts.only(**CAPTIONS[phase]),
        "max_caption_regions": 7,
    }


def get_config(phase: str = "see", root: str = ROOT) -> ConfigDict:
    if phase not in PHASES:
        raise ValueError(f"the backbone has no phase {phase!r}, only {', '.join(PHASES)}")
    data = f"{root}/{phase}_data"
    config = demo.common()
    config.stage = "backbone"
    config.tokenizer = demo.TOKENIZER
    config.steps = STEPS[phase]
    config.optimizer.peaks = {"all": 5e-4 if phase == "recall" else 1e-3}
    config.data.row_tokens = 160
    config.data.sources = {"regions": default.warehouse(data, "train", "train_regions.json")}
    config.validation_sources = {"regions": default.warehouse(data, "val", "val_regions.json")}
    if phase in ("see", "recall"):
        config.data.sources.captions = {
            "format": "captions",
            "root": data,
            "annotations": "train_captions.json",
            "images": "train/images",
        }
    if phase == "recall":
        config.data.weights = {"regions": 0.85, "captions": 0.15}
    if phase != PHASES[0]:
        config.init_from = f"{root}/{PHASES[PHASES.index(phase) - 1]}"
    return config
