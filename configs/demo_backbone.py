"""The demo's backbone: encoder and decoder trained from scratch on captions, in phases of growing difficulty.

    python -m launch.demo_backbone --workdir runs/demo_backbone
    python -m launch.train --config configs/demo_backbone.py:see --workdir runs/demo_backbone/see

Each phase has scenes of its own, none of them the demo's. The last five ask as the benchmark does and are answered by workings and
bare values.
"""

from dataclasses import dataclass

from ml_collections import ConfigDict

from configs import default, demo
from smolrgpt_jax.warehouse.parameters import AnswerStyle, CaptionCounts

ROOT = "runs/demo_backbone"


@dataclass(frozen=True)
class Phase:
    """One phase: its scenes, its length and what its captions are of.

    row_tokens: of a packed row; captions: of regions, per picture, by kind; pictures: share of the captions of whole pictures among
    the rows, 0 for as many as there are, None for none of them; metres, summary: of worked answers, see AnswerStyle.
    """

    seed: int
    scenes: int
    steps: int
    row_tokens: int
    captions: dict[str, int]
    pictures: float | None = 0.05
    peak: float = 1e-3
    metres: bool = False
    summary: bool = False


# Nearly all tokens can be learned early: one digit per coordinate, whole metres, no decimals.
_SEE = {"single": 4, "compare": 3, "side": 4, "floor": 4, "apart": 7, "within": 4, "how_many": 2, "name_each": 4}
# Several regions in turn, one word each.
_SCAN = {"single": 2, "compare": 2, "side": 3, "floor": 2, "apart": 2, "within": 2, "how_many": 2, "inside": 2}
_SCAN |= {"name_each": 3, "inside_each": 6}
# Two digits per coordinate and tenths of metres, which only add noise before.
_MEASURE = {"single": 1, "compare": 1, "side": 3, "floor": 1, "apart": 1, "within": 1, "how_many": 1, "inside": 2}
_MEASURE |= {"name_each": 1, "place_each": 3, "inside_each": 4, "near_each": 3, "legs": 4}
# What questions take, several steps, each on what the one before found; first those whose tokens are mostly certain.
_CHOOSE = {"single": 1, "side": 1, "floor": 1, "within": 2, "name_each": 1, "inside_each": 2, "load": 2}
_CHOOSE |= {"worked_count": 8, "worked_mcq": 6}
# A few of what was learned before, so that it stays.
_KEPT = dict.fromkeys(("single", "side", "floor", "name_each", "inside_each", "load"), 1)
_ASK = {**_KEPT, "worked_count": 8, "worked_mcq": 5, "worked_distance": 7}
# Places in metres, and distances from them, many in a row: what is a difference of two numbers is learned from such lists in a few
# hundred steps, and not in thousands from the few that an answer has.
_RECKON = {**_KEPT, "reckon_each": 8, "worked_count": 4, "worked_distance": 1}
_CONCLUDE = {**_KEPT, "reckon_each": 3, "worked_count": 8, "worked_mcq": 5, "worked_distance": 5}
# All of it once more, in the proportions in which the demo's model gets things wrong.
_REVIEW = {**_KEPT, "floor": 2, "reckon_each": 2, "worked_count": 7, "worked_mcq": 6, "worked_distance": 8}
PHASES = {
    "see": Phase(900_001, 5000, 1300, 160, _SEE, pictures=0),
    "scan": Phase(900_002, 5000, 1500, 160, _SCAN, pictures=None),
    "measure": Phase(900_003, 5000, 2500, 160, _MEASURE, pictures=None),
    # The captions of whole pictures, which the phases between make it forget, beside those of the last one.
    "recall": Phase(900_004, 5000, 700, 160, _MEASURE, pictures=0.15, peak=5e-4),
    "choose": Phase(900_005, 8000, 3500, 256, _CHOOSE),
    "ask": Phase(900_006, 8000, 3000, 256, _ASK),
    "reckon": Phase(900_007, 5000, 1800, 320, _RECKON, metres=True),
    "conclude": Phase(900_008, 8000, 2500, 336, _CONCLUDE, metres=True, summary=True),
    "review": Phase(900_009, 8000, 3000, 336, _REVIEW, metres=True, summary=True),
}


def warehouse(name: str) -> dict:
    """Parameters of the warehouse that a phase is trained on."""
    phase = PHASES[name]
    return {
        **demo.WAREHOUSE,
        "scenes": phase.scenes,
        "test_scenes": 0,
        "seed": phase.seed,
        "answers": AnswerStyle(decimals=1, settled=True, worked=True, metres=phase.metres, summary=phase.summary),
        "captions": CaptionCounts.only(**phase.captions),
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
