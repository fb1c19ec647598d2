"""A small folder of one's own data, in the warehouse's format, in which nothing is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from smolrgpt_jax.data import masks

HEIGHT, WIDTH = 180, 240  # a picture whose every pixel is not looked up by a grid of 64
SPLITS = {"train": 6, "val": 3}


def rle(x1: int, y1: int, x2: int, y2: int) -> dict:
    region = masks.encode(masks.box_mask((x1, y1, x2, y2), HEIGHT, WIDTH))
    return {"size": [HEIGHT, WIDTH], "counts": region.counts.decode()}


def distance(name: str, metres: float, **changes) -> dict:
    """A record about two boxes of a picture."""
    said = f"The box [Region 0] is {metres} meters from the box [Region 1]."
    asked = [
        {"from": "human", "value": "How far is the box <mask> from the box <mask>?"},
        {"from": "gpt", "value": said},
    ]
    about = {"id": f"{name}-d", "image": f"{name}.png", "category": "distance", "normalized_answer": metres}
    return {**about, "conversations": asked, "rle": [rle(8, 30, 30, 60), rle(50, 20, 80, 50)]} | changes


def side(name: str, answer: str, **changes) -> dict:
    asked = [
        {"from": "human", "value": "Is the box <mask> to the left or right of the box <mask>?"},
        {"from": "gpt", "value": f"The box [Region 0] is to the {answer} of the box [Region 1]."},
    ]
    places = [rle(8, 30, 30, 60), rle(50, 20, 80, 50)]
    places = places if answer == "left" else places[::-1]
    about = {"id": f"{name}-s", "image": f"{name}.png", "category": "left_right", "normalized_answer": answer}
    return {**about, "conversations": asked, "rle": places} | changes


def floor(number: int) -> np.ndarray:
    """A depth float64[H, W] as a floor is seen, far above and near below, with something near at a place of its own."""
    ramp = np.linspace(255, 0, HEIGHT)[:, None] + np.zeros((HEIGHT, WIDTH))
    ramp[HEIGHT // 2 :, 9 * number : 9 * number + 9] = 10
    return ramp


class Own:
    """The folder, to be damaged by a test."""

    def __init__(self, root: Path):
        self.root = root
        rng = np.random.default_rng(0)
        for split, number in SPLITS.items():
            records = []
            for index in range(number):
                name = f"{split}{index}"
                rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
                self.save(rgb, f"{split}/images/{name}.png")
                self.save(floor(number + index).astype(np.uint8), f"{split}/depths/{name}_depth.png")
                records += [distance(name, index + 1.5), side(name, ("left", "right")[index % 2])]
            self.write(records, f"{split}.json")

    def save(self, pixels: np.ndarray, name: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)

    def depths(self) -> list[str]:
        return [str(file.relative_to(self.root)) for file in sorted(self.root.glob("*/depths/*"))]

    def records(self, name: str = "train.json") -> list:
        return json.loads((self.root / name).read_text())

    def write(self, records: object, name: str = "train.json") -> None:
        (self.root / name).write_text(json.dumps(records))

    def change(self, number: int, **changes) -> None:
        """Other fields of one training record."""
        records = self.records()
        records[number] |= changes
        self.write(records)
