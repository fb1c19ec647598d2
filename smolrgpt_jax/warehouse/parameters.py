"""What a procedural warehouse holds: all its parameters."""

from __future__ import annotations

import dataclasses

from smolrgpt_jax.warehouse.scene.placing import SceneLimits
from smolrgpt_jax.warehouse.words.captions import CaptionCounts
from smolrgpt_jax.warehouse.words.questions import AnswerStyle

SPLITS = ("train", "val", "test")
# Formats of other data sets that a warehouse can be written in besides; see exports.py.
FORMATS = ("bench", "osd", "llava", "parquet")
# Shares of left_right, count, mcq and distance, the order of records.WAREHOUSE_CATEGORIES;
# "published" are those of the published training split.
MIXES = {"equal": (0.25, 0.25, 0.25, 0.25), "published": (0.14, 0.15, 0.22, 0.49)}


@dataclasses.dataclass(frozen=True)
class WarehouseConfig:
    """Parameters of a procedural warehouse.

    Attributes:
      scenes, val_scenes, test_scenes: pictures of each split.
      seed: of everything that is drawn.
      width, height: of the pictures, in pixels.
      max_pallets, max_buffers, max_transporters, max_shelves: most objects of a scene, and with
        that most masks of a question.
      camera_variety, appearance_variety: see SceneLimits.
      clear_lines: whether transporters and shelves, too, stand wholly inside or wholly outside of a buffer. Pallets always do.
      questions_per_picture: mean over a split; fewer where the scenes do not give enough of one
        category to keep the mix.
      mix: shares of the categories in the training split, a key of MIXES; val and test are equal.
      answers: how they are worded.
      scene_captions: captions of the whole picture, per picture.
      captions: region captions of each kind, per picture.
      max_caption_regions: most masks of a region caption.
      min_area: share of the picture below which an object counts as not seen.
      formats: of FORMATS, to be written as well.
    """

    scenes: int = 1000
    val_scenes: int = 100
    test_scenes: int = 100
    seed: int = 0
    width: int = 1920
    height: int = 1080
    max_pallets: int = 10
    max_buffers: int = 3
    max_transporters: int = 3
    max_shelves: int = 2
    camera_variety: float = 1.0
    appearance_variety: float = 1.0
    clear_lines: bool = True
    questions_per_picture: float = 6.4
    mix: str = "equal"
    answers: AnswerStyle = AnswerStyle()
    scene_captions: int = 2
    captions: CaptionCounts = CaptionCounts()
    max_caption_regions: int = 8
    min_area: float = 0.001
    formats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = self.split_sizes()
        if min(sizes.values()) < 0 or not any(sizes.values()):
            raise ValueError(f"the numbers of scenes must be positive, they are {sizes}")
        if not (32 <= self.width <= 1920 and 32 <= self.height <= 1080):
            raise ValueError(f"pictures of {self.width}x{self.height} pixels are outside 32x32 to 1920x1080")
        if self.mix not in MIXES:
            raise ValueError(f"mix {self.mix!r} is not one of {', '.join(MIXES)}")
        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise ValueError(f"format {unknown[0]!r} is not one of {', '.join(FORMATS)}")
        for name, split in (("bench", "test"), ("osd", "train"), ("llava", "train")):
            if name in self.formats and not sizes[split]:
                raise ValueError(f"the format {name} is made of the {split} split, which has no scenes")
        if self.questions_per_picture <= 0:
            raise ValueError("questions_per_picture must be positive")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"the seed is {self.seed}, must be 0 to 4294967295")
        self.limits()

    def limits(self) -> SceneLimits:
        """How full a scene may be. Raises ValueError for impossible limits."""
        return SceneLimits(
            max_pallets=self.max_pallets,
            max_buffers=self.max_buffers,
            max_transporters=self.max_transporters,
            max_shelves=self.max_shelves,
            camera_variety=self.camera_variety,
            appearance_variety=self.appearance_variety,
        )

    def undivided(self) -> tuple[str, ...]:
        """Kinds of things that never lie partly within a buffer."""
        return ("pallet", "transporter", "shelf") if self.clear_lines else ("pallet",)

    def split_sizes(self) -> dict[str, int]:
        """Number of scenes of each split."""
        return dict(zip(SPLITS, (self.scenes, self.val_scenes, self.test_scenes)))

    def shares(self, split: str) -> tuple[float, ...]:
        """Shares of the categories in a split, in the order of records.WAREHOUSE_CATEGORIES."""
        return MIXES[self.mix if split == "train" else "equal"]
