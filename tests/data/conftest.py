"""Small warehouse folders, made by the tests themselves, and the golden tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.data.rows import RowShape

DATA_FILES = Path(__file__).parents[1] / "data_files"
HEIGHT, WIDTH = 36, 64


@pytest.fixture(scope="session")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.load(DATA_FILES / "text" / "tokenizer")


@pytest.fixture
def shape() -> RowShape:
    return RowShape(tokens=128, pictures=2, regions=6, image_tokens=4, image_size=16, mask_grid=8)


def encode_mask(mask: np.ndarray) -> dict:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(size) for size in encoded["size"]], "counts": encoded["counts"].decode()}


def box_rle(index: int) -> dict:
    """The index-th of some distinct boxes."""
    mask = np.zeros((HEIGHT, WIDTH))
    mask[index : index + 5, 3 * index : 3 * index + 7] = 1
    return encode_mask(mask)


class Folder:
    """A warehouse folder to be filled by a test."""

    def __init__(self, root: Path):
        self.root = root

    def add_picture(self, name: str, split: str = "train") -> None:
        rng = np.random.default_rng(int(name))
        images, depths = self.root / split / "images", self.root / split / "depths"
        for folder in (images, depths):
            folder.mkdir(parents=True, exist_ok=True)
        rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(rgb).save(images / f"{name}.png")
        Image.fromarray(rgb[..., 0]).save(depths / f"{name}_depth.png")

    def record(self, record_id: str, image: str, regions=(0, 1), **changes) -> dict:
        marks = " and ".join(["<mask>"] * len(regions))
        record = {
            "id": record_id,
            "image": image,
            "conversations": [
                {"from": "human", "value": f"<image>\nHow far apart are {marks}?"},
                {"from": "gpt", "value": f"It is {len(regions)}.5 meters."},
            ],
            "rle": [box_rle(index) for index in regions],
            "category": "distance",
            "normalized_answer": len(regions) + 0.5,
            "freeform_answer": "",
        }
        return record | changes

    def write(self, records: list, name: str = "train.json") -> None:
        (self.root / name).write_text(json.dumps(records))


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def filled(folder) -> Folder:
    """Seven pictures with one to five questions each."""
    records = []
    for picture in range(7):
        folder.add_picture(f"{picture:06d}")
        records += [
            folder.record(
                f"{picture}-{question}", f"{picture:06d}.png", regions=range(question, question + 1 + question % 3)
            )
            for question in range(1 + picture % 5)
        ]
    folder.write(records)
    return folder
