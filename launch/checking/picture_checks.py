"""What is seen on the pictures, one at a time: whether they can be read, what their depth holds, where their masks lie."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from eval.side_questions import MARGIN
from launch.checking.found_sources import Found
from launch.checking.problems import Problems
from smolrgpt_jax.data.images import other_view, stored_depth, upright_depth, upright_rgb
from smolrgpt_jax.data.masks import MASK, RLE, resample_rle
from smolrgpt_jax.data.prepared.reader import load_stored
from smolrgpt_jax.data.records import Picture, PreparedPicture, Question, Region, records_of
from smolrgpt_jax.errors import DataError

NARROW = 32  # levels of grey that depth of 8 bits should at least span
TILTED = 10  # levels of grey by which the lower third differs from the upper one where that tells something
INVERTED, FEWEST = 0.9, 3  # share of such pictures whose lower third is brighter, of at least so many
MANY_HOLES = 0.3  # share of a depth picture
WHOLE = 0.99  # share of a picture
SAME = 0.95  # of the union of two masks, what they share
EDGES = 48  # points along a side where edges of pictures are compared with those of depth
# Share of pictures that are nearer to their own depth than to the one before, where the two differ: 0.95 of the procedural
# warehouse's, all of five published ones, 0.5 where depth is another picture's.
OWN, FEWEST_COMPARED, ALIKE = 0.6, 20, 0.9


@dataclasses.dataclass
class DepthFacts:
    """What the depth of one source holds, of one kind of file."""

    pictures: int = 0
    nearest: float = np.inf  # least and most that was measured, in the file's own numbers
    farthest: float = -np.inf
    holes: float = 0.0  # sum over pictures of the share that was not measured
    up: int = 0  # pictures whose upper third is clearly farther than the lower one, as floors are seen
    down: int = 0  # the other way round
    edges: np.ndarray | None = None  # of the last depth, see `_edges`
    compared: int = 0  # pictures whose edges were compared with those of their depth and of the one before
    own: int = 0  # whose edges are rather those of their own


class PictureChecks:
    """Looks at the pictures of sources and keeps a few numbers of them."""

    def __init__(self, mask_grid: int, problems: Problems):
        """mask_grid: points of the grid on which regions are pooled, along a side."""
        self._grid, self._problems = mask_grid, problems
        self.depth: dict[tuple[str, str], DepthFacts] = {}  # (file, kind of file)
        self.looked = self.regions = 0
        self.smallest: float | None = None  # share of its picture that the smallest mask covers
        self.same: dict[Any, bytes] = {}  # prepared picture -> digest of its pixels
        self.same_depth: dict[Any, bytes] = {}  # and of its depth

    def look(self, asked: Sequence[tuple[Found, Picture]]) -> None:
        """Reads one picture with its depth, and the masks of all sources' questions about it."""
        self.looked += 1
        found, picture = next((part for part in asked if part[1].depth is not None), asked[0])
        where, problems = f"{found.file}: {records_of(picture)}", self._problems
        masks: dict[Any, np.ndarray] = {}
        try:
            if isinstance(picture, PreparedPicture):
                stored = load_stored(picture)
                image, grey, masks = Image.fromarray(stored.image), stored.depth, dict(enumerate(stored.weights))
                self.same[picture.image] = _digest(stored.image)
                if grey is not None:
                    self.same_depth[picture.image] = _digest(grey)
            else:
                image, grey = upright_rgb(picture.image), None
        except DataError as error:
            problems.add("picture", f"{where}: {error}")
            return
        problems.looked(1, "blank")
        if all(low == high for low, high in image.getextrema()):
            problems.add("blank", f"{where}: picture {picture.image} is {image.getpixel((0, 0))} everywhere")
        if grey is not None:
            self._look_at_depth(found, f"{where}: depth of picture {picture.id}", "prepared", image, grey, grey)
        elif picture.depth is not None:
            self._read_depth(found, where, picture, image)
        known: dict[Region, np.ndarray] = {}
        for found, picture in asked:
            self._look_at_masks(found, picture, masks, known)

    def _read_depth(self, found: Found, where: str, picture: Picture, image: Image.Image) -> None:
        name = f"{where}: depth picture {picture.depth}"
        assert picture.depth is not None
        try:
            depth, values = upright_depth(picture.depth, picture.image), stored_depth(picture.depth)
        except DataError as error:
            self._problems.add("depth", f"{where}: {error}")
            return
        self._problems.looked(1, "view")
        if doubt := other_view(depth.size, image.size):
            self._problems.add("view", f"{name}: {doubt}")
        kind = {"u": "16 bits", "i": "16 bits", "f": "floats"}[values.dtype.kind]
        kind = "8-bit grey" if values.dtype == np.uint8 else kind
        self._look_at_depth(found, name, kind, image, np.asarray(depth), values)

    def _look_at_depth(
        self, found: Found, name: str, kind: str, image: Image.Image, grey: np.ndarray, values: np.ndarray
    ) -> None:
        """image: what it is the depth of; grey: uint8[H, W], as the model gets it; values: as the file holds them."""
        facts = self.depth.setdefault((found.name, kind), DepthFacts())
        facts.pictures += 1
        deep = kind in ("16 bits", "floats")
        measured = values[(values > 0) & (values < (65535 if kind == "16 bits" else np.inf))] if deep else values
        if measured.size:
            facts.nearest = min(facts.nearest, float(measured.min()))
            facts.farthest = max(facts.farthest, float(measured.max()))
        holes = float(np.mean(~(values > 0)))
        facts.holes += holes
        if holes > MANY_HOLES:
            self._problems.add("holes", f"{name}: {holes:.0%} is 0")
        self._problems.looked(1, "constant", "inverted")
        span = int(grey.max()) - int(grey.min())
        if span == 0 or span < NARROW and not deep:
            held = "the same everywhere" if span == 0 else f"only {span + 1} of 256 levels of grey"
            self._problems.add("constant", f"{name}: {held}")
        third = max(1, len(grey) // 3)
        tilt = float(grey[-third:].mean()) - float(grey[:third].mean())
        facts.up += tilt < -TILTED
        facts.down += tilt > TILTED
        edges, before = _edges(Image.fromarray(grey)), facts.edges
        facts.edges = edges
        if before is not None and edges @ before < ALIKE:
            seen = _edges(image)
            facts.compared += 1
            facts.own += bool(seen @ edges > seen @ before)
            self._problems.looked(1, "other_depth")

    def end(self) -> None:
        """Judges what only many pictures together tell."""
        for (file, kind), facts in self.depth.items():
            if kind == "16 bits" and facts.farthest <= 255:
                self._problems.add("narrow", f"{file}, depth in {kind}: no value above {facts.farthest:g}")
            others = facts.compared - facts.own
            if facts.compared >= FEWEST_COMPARED and facts.own <= OWN * facts.compared:
                less = (
                    f"{others} of {facts.compared} pictures have the edges of the depth before rather than of their own"
                )
                self._problems.add("other_depth", f"{file}, depth in {kind}: {less}", others)
            told = facts.up + facts.down
            if told >= FEWEST and facts.down >= INVERTED * told:
                brighter = f"the lower third is brighter than the upper one in {facts.down} of {told} pictures"
                self._problems.add("inverted", f"{file}, depth in {kind}: {brighter}", facts.down)

    def _look_at_masks(
        self, found: Found, picture: Picture, stored: Mapping[Any, np.ndarray], known: dict[Region, np.ndarray]
    ) -> None:
        """stored: masks of a prepared picture by their numbers, float32[g, g]; known: all masks that were looked at."""
        for question in picture.questions:
            about = f"{found.file}: record {question.id!r}"
            for number, region in enumerate(question.regions):
                if region not in known:
                    raw = isinstance(region, RLE)
                    known[region] = resample_rle(region, self._grid) if raw else stored[region.number]
                    self._look_at_mask(f"{about}: mask {number}", region, known[region])
            self._problems.looked(1, "same_mask")
            for first, second in _pairs(question):
                one, other = known[question.regions[first]], known[question.regions[second]]
                if one.any() and np.minimum(one, other).sum() >= SAME * np.maximum(one, other).sum():
                    self._problems.add("same_mask", f"{about}: masks {first} and {second} are the same region")
                    break
            if question.category == "left_right" and question.normalized_answer and len(question.regions) == 2:
                self._compare_sides(about, question.normalized_answer, *(_across(known[r]) for r in question.regions))

    def _compare_sides(self, about: str, answer: object, first: float, second: float) -> None:
        """first, second: where the two regions are across the picture, see `_across`."""
        if abs(first - second) > MARGIN:
            self._problems.looked(1, "sides")
            if answer != ("left" if first < second else "right"):
                middles = f"mask 0 has its middle at {first:.0%} of the picture's width, mask 1 at {second:.0%}"
                self._problems.add("sides", f"{about}: the answer is {answer}, and {middles}")

    def _look_at_mask(self, name: str, region: Region, grid: np.ndarray) -> None:
        self.regions += 1
        self._problems.looked(1, "empty", "vanished", "whole")
        area = float(grid.mean())
        size = ""
        if isinstance(region, RLE):
            pixels = int(region.runs()[1::2].sum())
            area, size = pixels / (region.height * region.width), f" of {pixels} pixels"
            if not pixels:
                self._problems.add("empty", f"{name} has no pixel")
                return
        self.smallest = area if self.smallest is None else min(area, self.smallest)
        if not grid.any():
            self._problems.add("vanished", f"{name}{size} holds no point of the {self._grid}x{self._grid} grid")
        elif area >= WHOLE:
            self._problems.add("whole", f"{name} covers {area:.1%} of the picture")


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


def _edges(picture: Image.Image) -> np.ndarray:
    """Where brightness changes, float32[EDGES * EDGES] of mean 0 and length 1; 0 for a picture of one colour."""
    grey = np.asarray(picture.convert("L").resize((EDGES, EDGES), Image.Resampling.BOX), np.float32)
    change = np.hypot(*np.gradient(grey)).ravel()
    change -= change.mean()
    return change / max(float(np.linalg.norm(change)), 1e-9)


def _across(grid: np.ndarray) -> float:
    """Centroid of a mask float32[g, g] across the picture, as a share of its width; NaN for an empty one."""
    columns = grid.sum(axis=0)
    return float(columns @ (np.arange(columns.size) + 0.5) / columns.size / (columns.sum() or np.nan))


def _pairs(question: Question) -> Iterator[tuple[int, int]]:
    """The numbers of every two regions of one turn of the user; a later turn may speak of an earlier one's again."""
    begin = 0
    for text in question.turns[::2]:
        end = begin + text.count(MASK)
        yield from itertools.combinations(range(begin, end), 2)
        begin = end
