"""What a procedural warehouse holds and how it is spoken of: all its parameters."""

import dataclasses

SPLITS = ("train", "val", "test")
# Formats of other data sets that a warehouse can be written in besides, see other_formats.py, and the split they are made of.
MADE_OF = {"bench": "test", "osd": "train", "llava": "train"}
FORMATS = (*MADE_OF, "parquet")
# Shares of left_right, count, mcq and distance, the order of records.WAREHOUSE_CATEGORIES;
# "published" are those of the published training split.
MIXES = {"equal": (0.25, 0.25, 0.25, 0.25), "published": (0.14, 0.15, 0.22, 0.49)}
FEWEST_PALLETS = 4  # of a scene
# Least and most that a parameter can be.
RANGES = {
    "seed": (0, 2**32 - 1),
    "width": (32, 1920),
    "height": (32, 1080),
    "max_pallets": (FEWEST_PALLETS, 10),
    "max_buffers": (1, 3),
    "max_transporters": (0, 3),
    "max_shelves": (0, 2),
    "camera_variety": (0, 1),
    "appearance_variety": (0, 1),
}


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


@dataclasses.dataclass(frozen=True)
class CaptionCounts:
    """How many region captions of each kind a picture gets, where its scene allows."""

    single: int = 12  # kind and coarse place of one region: few tokens, nearly all of which can be learned early
    compare: int = 8  # which of two is farther left, and which nearer
    side: int = 2  # the side of one of two pallets or buffers, asked as the warehouse questions ask; one word
    floor: int = 2  # place of one region on the floor in whole metres
    apart: int = 2  # whole metres between two regions; half of them pallets, asked as the warehouse questions ask
    within: int = 2  # whether a pallet is inside a buffer; both answers equally often where a scene has both
    how_many: int = 2  # the number of pallets inside a buffer, asked as the warehouse questions ask; one word
    closest: int = 2  # the number of the region that is closest to another one
    fine: int = 1  # place of one region
    metric: int = 1  # its place on the floor
    several: int = 1  # kinds and places of numbered regions
    which: int = 1  # the number of the region at a place
    order: int = 1  # numbers from left to right
    extreme: int = 1  # the number of the leftmost, rightmost, nearest or farthest region
    pair: int = 1  # offset and distance between two regions
    inside: int = 1  # the numbers of the pallets inside a buffer
    empty: int = 1  # the number of the empty transporter
    # Of each of several regions in turn, as in worked.py: what it is, where across the picture, if inside a buffer, how far away.
    name_each: int = 0
    place_each: int = 0
    inside_each: int = 0
    near_each: int = 0
    reckon_each: int = 0  # where each stands in whole metres, and how far from the first, step by step
    legs: int = 0  # how far two are apart across and along in tenths of metres, and then their distance
    load: int = 0  # whether a transporter carries something
    # Asked as the warehouse questions of a category ask; the opening of the worked answer, and then the value alone.
    worked_count: int = 0
    worked_mcq: int = 0
    worked_distance: int = 0

    def __post_init__(self) -> None:
        if min(dataclasses.astuple(self)) < 0:
            raise ValueError("the numbers of captions must not be negative")

    @classmethod
    def only(cls, **counts: int) -> "CaptionCounts":
        """These kinds and none of the others; raises TypeError for an unknown kind, ValueError for a negative number."""
        return cls(**{**dict.fromkeys(cls.__dataclass_fields__, 0), **counts})


@dataclasses.dataclass(frozen=True)
class WarehouseConfig:
    """Parameters of a procedural warehouse; raises ValueError for impossible ones."""

    scenes: int = 1000  # pictures of the training split, then of the others
    val_scenes: int = 100
    test_scenes: int = 100
    seed: int = 0  # of everything that is drawn
    width: int = 1920  # of the pictures, in pixels
    height: int = 1080
    max_pallets: int = 10  # most objects of a scene, and with that most masks of a question
    max_buffers: int = 3
    max_transporters: int = 3
    max_shelves: int = 2
    # Share of the ranges of the camera's height, reach and focal length that is used, about their middle. Its place and heading are
    # drawn from their whole ranges. Metres can be read off a picture the sooner the less cameras differ.
    camera_variety: float = 1.0
    # How much lamps, surfaces, paint, clutter and camera pitch differ from one plain look: 0 not at all, 1 as much as there is.
    # Drawn with a generator of its own, so everything else stays.
    appearance_variety: float = 1.0
    # Whether transporters and shelves, too, stand wholly inside or wholly outside of a buffer. Pallets always do.
    clear_lines: bool = True
    questions_per_picture: float = (
        6.4  # mean over a split; fewer where scenes give too few of a category to keep the mix
    )
    mix: str = "equal"  # shares of the categories in the training split, a key of MIXES; val and test are equal
    answers: AnswerStyle = AnswerStyle()
    scene_captions: int = 2  # captions of the whole picture, per picture
    captions: CaptionCounts = CaptionCounts()
    max_caption_regions: int = 8  # most masks of a region caption
    min_area: float = 0.001  # share of the picture below which an object counts as not seen
    formats: tuple[str, ...] = ()  # of FORMATS, to be written as well

    def __post_init__(self) -> None:
        sizes = self.split_sizes()
        if min(sizes.values()) < 0 or not any(sizes.values()):
            raise ValueError(f"the numbers of scenes must be positive, they are {sizes}")
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}, must be {least} to {most}")
        if self.questions_per_picture <= 0:
            raise ValueError("questions_per_picture must be positive")
        if self.mix not in MIXES:
            raise ValueError(f"mix {self.mix!r} is not one of {', '.join(MIXES)}")
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
