"""The demo's trainings, for two CPU cores: the three published stages on a small backbone.

    python -m convert fresh configs/backbone runs/demo/start
    python -m launch.train --config configs/demo.py:stage1 --workdir runs/demo/stage1

`make demo` runs all of them. The backbone lies in configs/backbone and comes from configs/demo_backbone.py; as in the published
curriculum what lies between encoder and decoder is learned in these stages, from random parameters, and the encoder stays frozen. Learning rates are higher than published: the model is 200 times smaller and sees a
thousandth of the data.
"""

from ml_collections import ConfigDict

from configs import default
from smolrgpt_jax.warehouse.parameters import AnswerStyle, CaptionCounts

ROOT = "runs/demo"
STAGES = ("stage1", "stage2", "stage3")
BACKBONE = "configs/backbone"
TOKENIZER = "configs/demo_tokenizer"
RESERVED_SEEDS = 900_000  # and above: scenes that the backbone was trained on, and those of the studies' tests
LONGEST_ANSWER = 256  # tokens; the longest worked answers of this warehouse take about 230
# Region captions per picture, by kind. None is asked as a question is: its short answer would compete with the worked one.
CAPTIONS = CaptionCounts.only(single=2, compare=2, floor=1, within=2, name_each=1, inside_each=3, load=2, reckon_each=2)
# Pictures just large enough for the encoder's 128x128, lists of masks short enough for two cores to learn from, and cameras so
# much alike that metres can be learned in minutes; one plain look.
WAREHOUSE = {
    "scenes": 3000,
    "val_scenes": 30,
    "test_scenes": 150,
    "width": 256,
    "height": 144,
    "max_pallets": 6,
    "camera_variety": 0.15,
    "appearance_variety": 0.0,
    "clear_lines": False,
    "questions_per_picture": 6.4,
    "answers": AnswerStyle(decimals=1, settled=True, worked=True, metres=True, summary=True),
    "scene_captions": 1,
    "max_caption_regions": 5,
    "captions": CAPTIONS,
}


def common() -> ConfigDict:
    """What all trainings of the demo share: the small model, float32, short rows of one picture."""
    config = default.get_config()
    config.model.update({"preset": "demo", "compute_dtype": "float32", "remat": "none"})
    config.batch_rows = 8
    config.optimizer.b2 = 0.99
    config.optimizer.warmup = 0.05
    config.data.row_tokens = 336
    config.data.row_pictures = 1
    config.data.row_regions = 16
    config.data.region_names = True
    config.data.cached_pictures = 100_000
    config.data.threads = 1
    config.log_every = 10
    config.save_every = 100
    config.keep = 1
    config.validate_every = 200
    config.validation_rows = 32
    return config


def get_config(stage: str = "stage3", root: str = ROOT) -> ConfigDict:
    data = f"{root}/data"
    regions = default.warehouse(data, "train", "train_regions.json")
    questions = default.warehouse(data, "train")

    config = common()
    if stage == "stage1":
        config.stage = "connector_alignment"
        config.init_from = f"{root}/start"
        config.tokenizer = TOKENIZER
        config.steps = 60
        config.optimizer.peaks = {"rgb_connector": 2e-3}
        config.data.sources = {"captions": default.captions(data, "train_captions.json", "train/images")}
        config.data.row_pictures = 3
        config.validation_sources = {"captions": default.captions(data, "val_captions.json", "val/images")}
    elif stage == "stage2":
        config.stage = "refiner_alignment"
        config.init_from = f"{root}/stage1"
        config.steps = 120
        config.optimizer.peaks = {"rgb_connector": 2e-3, "depth_connector": 2e-3, "refiners": 2e-3}
        config.data.sources = {"regions": regions}
        config.validation_sources = {"regions": default.warehouse(data, "val", "val_regions.json")}
    elif stage == "stage3":
        config.stage = "sft"
        config.init_from = f"{root}/stage2"
        config.steps = 1440
        # Published rates end at a tenth after epochs; of so few steps none should still be large.
        config.optimizer.final = 0.0
        # Sides are told in ten words, distances in a hundred.
        config.question_balance = 0.5
        # Connectors and refiners that are still young learn faster than a decoder that knows its words.
        config.optimizer.peaks = {"rgb_connector": 2e-3, "depth_connector": 2e-3, "refiners": 2e-3, "decoder": 8e-4}
        # Without captions among them the long worked answers would make it forget what the short captions taught.
        config.data.sources = {"questions": questions, "regions": regions}
        config.data.weights = {"questions": 0.8, "regions": 0.2}
        config.validation_sources = {"questions": default.warehouse(data, "val")}
        config.validate_every = 375
        config.validation_answers = 192
        config.validation_answer_tokens = LONGEST_ANSWER
    else:
        raise ValueError(f"the demo has no stage {stage!r}, only {', '.join(STAGES)}")
    return config
