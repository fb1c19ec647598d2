"""The demo's backbone: encoder and decoder trained from scratch on captions, in phases of growing difficulty.

    python -m launch.demo_backbone --workdir runs/demo_backbone
    python -m launch.train --config configs/demo_backbone.py:see --workdir runs/demo_backbone/see

Each phase has scenes of its own, none of them the demo's. The last five ask as the benchmark does and are answered by workings and
bare values.
"""

from ml_collections import ConfigDict

from configs import default, demo
from smolrgpt_jax.warehouse.parameters import AnswerStyle, CaptionCounts

ROOT = "runs/demo_backbone"
PHASES = ("see", "scan", "measure", "recall", "choose", "ask", "reckon", "conclude", "review")
ROW_TOKENS = {
    "choose": 256,
    "ask": 256,
    "reckon": 320,
    "conclude": 336,
    "review": 336,
}  # of a packed row; 160 in the other phases
SEEDS = {
    "see": 900_001,
    "scan": 900_002,
    "measure": 900_003,
    "recall": 900_004,
    "choose": 900_005,
    "ask": 900_006,
    "reckon": 900_007,
    "conclude": 900_008,
    "review": 900_009,
}
SCENES = {
    "see": 5000,
    "scan": 5000,
    "measure": 5000,
    "recall": 5000,
    "choose": 8000,
    "ask": 8000,
    "reckon": 5000,
    "conclude": 8000,
    "review": 8000,
}
STEPS = {
    "see": 1300,
    "scan": 1500,
    "measure": 2500,
    "recall": 700,
    "choose": 3500,
    "ask": 3000,
    "reckon": 1800,
    "conclude": 2500,
    "review": 3000,
}
CAPTIONS = {
    # Nearly all tokens can be learned early: one digit per coordinate, whole metres, no decimals.
    "see": {"single": 4, "compare": 3, "side": 4, "floor": 4, "apart": 7, "within": 4, "how_many": 2, "name_each": 4},
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
    "measure": {
        "single": 1,
        "compare": 1,
        "side": 3,
        "floor": 1,
        "apart": 1,
        "within": 1,
        "how_many": 1,
        "inside": 2,
        "name_each": 1,
        "place_each": 3,
        "inside_each": 4,
        "near_each": 3,
        "legs": 4,
    },
}
# The captions of whole pictures, which the phases between make it forget, beside those of the last one.
CAPTIONS["recall"] = CAPTIONS["measure"]
# What questions take, several steps, each on what the one before found; first those whose tokens are mostly certain.
CAPTIONS["choose"] = {
    "single": 1,
    "side": 1,
    "floor": 1,
    "within": 2,
    "name_each": 1,
    "inside_each": 2,
    "load": 2,
    "worked_count": 8,
    "worked_mcq": 6,
}
# A few of what was learned before, so that it stays.
KEPT = dict.fromkeys(("single", "side", "floor", "name_each", "inside_each", "load"), 1)
CAPTIONS["ask"] = {**KEPT, "worked_count": 8, "worked_mcq": 5, "worked_distance": 7}
# Places in metres, and distances from them, many in a row: what is a difference of two numbers is learned from such lists in a few
# hundred steps, and not in thousands from the few that an answer has.
CAPTIONS["reckon"] = {**KEPT, "reckon_each": 8, "worked_count": 4, "worked_distance": 1}
CAPTIONS["conclude"] = {**KEPT, "reckon_each": 3, "worked_count": 8, "worked_mcq": 5, "worked_distance": 5}
# All of it once more, in the proportions in which the demo's model gets things wrong.
CAPTIONS["review"] = {**KEPT, "floor": 2, "reckon_each": 2, "worked_count": 7, "worked_mcq": 6, "worked_distance": 8}


def warehouse(phase: str) -> dict:
    """Parameters of the warehouse that a phase is trained on."""
    return {
        **demo.WAREHOUSE,
        "scenes": SCENES[phase],
        "test_scenes": 0,
        "seed": SEEDS[phase],
        "answers": AnswerStyle(
            decimals=1,
            settled=True,
            worked=True,
            metres=phase in ("reckon", "conclude", "review"),
            summary=phase in ("conclude", "review"),
        ),
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
    # Nothing is answered at a validation: it tells those who use the backbone how long its worked answers are.
    config.validation_answer_tokens = demo.LONGEST_ANSWER
    config.optimizer.peaks = {"all": 5e-4 if phase == "recall" else 1e-3}
    config.data.row_tokens = ROW_TOKENS.get(phase, 160)
    config.data.sources = {"regions": default.warehouse(data, "train", "train_regions.json")}
    config.validation_sources = {"regions": default.warehouse(data, "val", "val_regions.json")}
    if phase in ("see", "recall", *ROW_TOKENS):
        config.data.sources.captions = {
            "format": "captions",
            "root": data,
            "annotations": "train_captions.json",
            "images": "train/images",
        }
    if phase in ("recall", *ROW_TOKENS):
        share = 0.15 if phase == "recall" else 0.05
        config.data.weights = {"regions": 1 - share, "captions": share}
    if phase != PHASES[0]:
        config.init_from = f"{root}/{PHASES[PHASES.index(phase) - 1]}"
    return config
