"""What a procedural warehouse holds and how it is spoken of: all its parameters."""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SPLITS = ("train", "val", "test")
# Formats of other data sets that a warehouse can be written in besides, see other_formats.py, and the split they are made of.
MADE_OF = {"bench": "test", "osd": "train", "llava": "train", "coco": "train"}
FORMATS = (*MADE_OF, "parquet")
# Shares of left_right, count, mcq and distance, the order of records.WAREHOUSE_CATEGORIES;
# "published" are those of the published training split.
MIXES = {"equal": (0.25, 0.25, 0.25, 0.25), "published": (0.14, 0.15, 0.22, 0.49)}
FEWEST_PALLETS = 4  # of a scene
# Kind of region caption -> how many a picture gets.
CAPTIONS: dict[str, int] = tomllib.loads(Path(__file__).with_name("captions.toml").read_text(encoding="utf-8"))


def only_captions(**counts: int) -> dict[str, int]:
    """Region captions of these kinds and none of the others."""
    return {**dict.fromkeys(CAPTIONS, 0), **counts}


@dataclasses.dataclass(frozen=True)
class AnswerStyle:
    """How answers are worded."""

    decimals: int = 2  # of distances in metres, 0 to 2
    # The wording of a question decides that of its answer, from which small models learn sooner; otherwise it is drawn anew.
    settled: bool = False
    # An answer first says of every region in turn what its conclusion needs, see worked.py. The published ones do not.
    worked: bool = False
    # Workings place regions in whole metres, so that distances follow from text; otherwise in tenths of the picture.
    metres: bool = False
    # Workings in metres also say what a conclusion is drawn from: the nearest so far after each of a list, and the distance of a
    # pair in whole metres.
    summary: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decimals <= 2:
            raise ValueError(f"distances have 0 to 2 decimals, not {self.decimals}")


def parameter(default: Any, about: str = "", allowed: tuple[float, float] | None = None) -> Any:
    """A field of WarehouseConfig: what launch.make_warehouse says of it, if it takes it; the least and most that it can be."""
    return dataclasses.field(default=default, metadata={"about": about, "allowed": allowed})


@dataclasses.dataclass(frozen=True)
class WarehouseConfig:
    """Parameters of a procedural warehouse; raises ValueError for impossible ones."""

    scenes: int = parameter(1000, "pictures of the training split")
    val_scenes: int = parameter(100, "pictures of the validation split")
    test_scenes: int = parameter(100, "pictures of the test split")
    seed: int = parameter(0, "of everything that is drawn", (0, 2**32 - 1))
    width: int = parameter(1920, "of the pictures, in pixels", (32, 1920))
    height: int = parameter(1080, "of the pictures, in pixels", (32, 1080))
    # Most objects of a scene, and with that most masks of a question.
    max_pallets: int = parameter(10, "most pallets of a scene, 4 to 10", (FEWEST_PALLETS, 10))
    max_buffers: int = parameter(3, allowed=(1, 3))
    max_transporters: int = parameter(3, allowed=(0, 3))
    max_shelves: int = parameter(2, allowed=(0, 2))
    # Share of the ranges of the camera's height, reach and focal length that is used, about their middle. Its place and heading are
    # drawn from their whole ranges. Metres can be read off a picture the sooner the less cameras differ.
    camera_variety: float = parameter(1.0, allowed=(0, 1))
    # Drawn with a generator of its own, so everything else stays.
    appearance_variety: float = parameter(
        1.0, "how much lamps, surfaces, paint, clutter and camera pitch differ, 0 (one plain look) to 1", (0, 1)
    )
    # Whether transporters and shelves, too, stand wholly inside or wholly outside of a buffer. Pallets always do.
    clear_lines: bool = True
    # Mean over a split; fewer where scenes give too few of a category to keep the mix.
    questions_per_picture: float = 6.4
    # A key of MIXES; val and test are equal.
    mix: str = parameter("equal", "shares of the categories in the training split")
    # The published set words its questions in few ways, and what has learned nothing else fails at others.
    further_wordings: float = parameter(
        0.0, "share of the training questions in wordings that the published set has not, 0 to 1", (0, 1)
    )
    answers: AnswerStyle = AnswerStyle()
    scene_captions: int = 2  # captions of the whole picture, per picture
    captions: Mapping[str, int] = dataclasses.field(default_factory=CAPTIONS.copy)  # of regions, per picture, by kind
    max_caption_regions: int = 8  # most masks of a region caption
    min_area: float = 0.001  # share of the picture below which an object counts as not seen
    formats: tuple[str, ...] = ()  # of FORMATS, to be written as well

    def __post_init__(self) -> None:
        sizes = self.split_sizes()
        if min(sizes.values()) < 0 or not any(sizes.values()):
            told = ", ".join(f"{split} {number}" for split, number in sizes.items())
            raise ValueError(f"no number of scenes may be negative, nor all of them 0; they are {told}")
        for field in dataclasses.fields(self):
            value, allowed = getattr(self, field.name), field.metadata.get("allowed")
            if allowed and not allowed[0] <= value <= allowed[1]:
                raise ValueError(f"{field.name} is {value}, must be {allowed[0]} to {allowed[1]}")
        if self.questions_per_picture <= 0:
            raise ValueError("questions_per_picture must be positive")
        if self.mix not in MIXES:
            raise ValueError(f"mix {self.mix!r} is not one of {', '.join(MIXES)}")
        for kind, number in self.captions.items():
            if kind not in CAPTIONS or number < 0:
                raise ValueError(f"{number} captions of the kind {kind!r}; kinds are {', '.join(CAPTIONS)}")
        for name in self.formats:
            if name not in FORMATS:
                raise ValueError(f"format {name!r} is not one of {', '.join(FORMATS)}")
            if name in MADE_OF and not sizes[MADE_OF[name]]:
                raise ValueError(f"the format {name} is made of the {MADE_OF[name]} split, which has no scenes")

    def split_sizes(self) -> dict[str, int]:
        """Number of scenes of each split."""
        return dict(zip(SPLITS, (self.scenes, self.val_scenes, self.test_scenes)))

    def shares(self, split: str) -> tuple[float, ...]:
        """Shares of the categories in a split, in the order of records.WAREHOUSE_CATEGORIES."""
        return MIXES[self.mix if split == "train" else "equal"]
