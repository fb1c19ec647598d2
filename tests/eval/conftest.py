"""A tiny warehouse in the published folder layout, and a model that answers with what it is told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import smolrgpt_jax
from smolrgpt_jax.config import Compute
from smolrgpt_jax.data.masks import RLE


def encode_box(x1: int, y1: int, x2: int, y2: int, height: int, width: int) -> dict:
    """A box of whole pixels in COCO's compressed encoding, as the published records hold it."""
    from pycocotools import mask as coco

    mask = np.zeros((height, width), np.uint8)
    mask[y1:y2, x1:x2] = 1
    encoded = coco.encode(np.asfortranarray(mask))
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


@pytest.fixture
def box_rle():
    def build(x1: int, y1: int, x2: int, y2: int, height: int = 60, width: int = 96) -> RLE:
        encoded = encode_box(x1, y1, x2, y2, height, width)
        return RLE(height, width, encoded["counts"].encode("ascii"))

    return build


def _records(name: str, number: int) -> list[dict]:
    boxes = [encode_box(6 + 12 * k, 10 + 5 * k, 16 + 12 * k, 22 + 5 * k, 60, 96) for k in range(5)]
    count, chosen, metres = number % 4, number % 3, 2.0 + number
    rows = [
        (
            "left_right",
            "<image>\nIs the pallet <mask> to the left or right of the pallet <mask>?",
            "The pallet [Region 0] is to the left of the pallet [Region 1].",
            "left",
            2,
        ),
        (
            "count",
            "How many pallets are present in the leftmost buffer region, given the buffer masks <mask> <mask> "
            "and pallet masks <mask> <mask> <mask>?",
            f"Therefore, there are {('no', 'one', 'two', 'three')[count]} pallets in the buffer area [Region 1].",
            count,
            5,
        ),
        (
            "mcq",
            "Which pallet in <mask> <mask> <mask> is the easiest for the transporter at <mask> to access?",
            f"Pallet [Region {chosen}] is the closest to transporter [Region 3].",
            str(chosen),
            4,
        ),
        (
            "distance",
            "How far is the pallet <mask> from the pallet <mask>?",
            f"The pallet [Region 0] and the pallet [Region 1] are {metres:.2f} meters apart.",
            f"{metres:.2f}",
            2,
        ),
    ]
    return [
        {
            "id": f"{name}-{category}",
            "image": f"{name}.png",
            "category": category,
            "normalized_answer": value,
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
            "freeform_answer": answer,
            "rle": boxes[:masks],
        }
        for category, question, answer, value, masks in rows
    ]


def write_warehouse(root: Path) -> Path:
    """Seven pictures, 28 questions in val and in train; the answers of count, mcq and distance vary."""
    for split in ("train", "val"):
        images, depths = root / split / "images", root / split / "depths"
        images.mkdir(parents=True)
        depths.mkdir()
        records = []
        for number in range(7):
            name = f"{number + (100 if split == 'val' else 0):06d}"
            Image.new("RGB", (96, 60), (40 * number, 100, 90)).save(images / f"{name}.png")
            Image.new("L", (96, 60), 128).save(depths / f"{name}_depth.png")
            records += _records(name, number)
        (root / f"{split}.json").write_text(json.dumps(records), encoding="utf-8")
    return root


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    return write_warehouse(tmp_path / "warehouse")


class FakeModel:
    """What the commands ask of a model beside its answers."""

    class config:
        @staticmethod
        def to_dict() -> dict:
            return {"width": 8}

    source = run = None
    compute = Compute()
    answer_tokens = 120
    params = {"weights": np.zeros(3, np.float32)}


@pytest.fixture
def loaded_model(monkeypatch) -> FakeModel:
    """A model without weights, which smolrgpt_jax.load returns for any path."""
    model = FakeModel()
    monkeypatch.setitem(smolrgpt_jax.__dict__, "load", lambda path, **_: model)
    return model


@pytest.fixture(scope="session")
def bench_folder(tmp_path_factory) -> Path:
    """SpatialRGPT-Bench's published format about three procedural scenes, with all its categories."""
    from smolrgpt_jax.warehouse.parameters import WarehouseConfig
    from smolrgpt_jax.warehouse.write import make_warehouse

    folder = tmp_path_factory.mktemp("bench") / "warehouse"
    config = WarehouseConfig(
        scenes=1, val_scenes=1, test_scenes=3, seed=4, width=160, height=90, max_pallets=6, formats=("bench",)
    )
    make_warehouse(folder, config, workers=1)
    return folder / "bench"


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint of the demo's tokenizer and a smaller model with random weights."""
    import jax

    from smolrgpt_jax.checkpoint import orbax as checkpoints
    from smolrgpt_jax.checkpoint.load import tokenizer_files
    from smolrgpt_jax.config import PRESETS, DecoderConfig, VisionConfig
    from smolrgpt_jax.data.chat import ChatTokenizer
    from smolrgpt_jax.models.smolrgpt import init_params

    config = PRESETS["demo"].replace(
        vision=VisionConfig(width=32, mlp_width=64, heads=2, layers=1, patch_size=16, image_size=64),
        decoder=DecoderConfig(width=32, mlp_width=64, heads=2, kv_heads=1, layers=2, vocab_size=640),
    )
    # Large weights, so that answers depend on every pixel and on the order of the regions.
    params = {
        name: array if name.startswith("vision") or array.ndim < 2 else 4 * array
        for name, array in init_params(config, jax.random.key(0)).items()
    }
    tokenizer = ChatTokenizer.load(Path(__file__).parents[2] / "configs" / "demo_tokenizer")
    path = tmp_path_factory.mktemp("checkpoints") / "small"
    checkpoints.save(path, params, checkpoints.Meta(config, tokenizer_files(tokenizer)))
    return path


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium without a window, driven by Selenium.

    It is looked for in CHROMIUM and on the PATH, its driver in CHROMEDRIVER and on the PATH. Where there is none
    the test is skipped, or fails if REQUIRE_BROWSER is set.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    driver = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver")
    if not (program and driver):
        missing = "Chromium" if not program else "chromedriver"
        stop = pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip
        stop(f"{missing} is not installed (Debian: apt-get install chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "hide-scrollbars",
        "window-size=1320,940",
        f"user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):
        options.add_argument(f"--{flag}")
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="session")
def tiny_depth_model(tmp_path_factory) -> Path:
    """A folder with a Depth Anything model of random weights."""
    torch = pytest.importorskip("torch")
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    folder = tmp_path_factory.mktemp("depth") / "model"
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
    )
    torch.manual_seed(0)
    model = DepthAnythingForDepthEstimation(config)
    torch.nn.init.constant_(model.head.conv3.bias, 1)  # above the ReLU that ends it
    model.save_pretrained(folder)
    size = {"height": 56, "width": 56}
    DPTImageProcessorPil(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_segmenter(tmp_path_factory) -> Path:
    """A folder with a SAM 2 model of random weights, whose masks cover about half of a picture."""
    torch = pytest.importorskip("torch")
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig

    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[64, 64],
        blocks_per_stage=[1, 2, 1, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[4, 4, 4, 2],
        window_positional_embedding_background_size=[4, 4],
        global_attention_blocks=[2],
    )
    sizes = {"backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    config = Sam2Config(
        vision_config=Sam2VisionConfig(backbone_config=backbone, fpn_hidden_size=32, **sizes),
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "mask_input_channels": 4},
        mask_decoder_config=decoder,
    )
    folder = tmp_path_factory.mktemp("segmenter") / "model"
    torch.manual_seed(0)
    model = Sam2Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # large, so that masks depend on the picture and on the prompt
                parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    model.save_pretrained(folder)
    return folder
