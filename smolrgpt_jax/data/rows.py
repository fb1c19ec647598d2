"""Packing pictures and their questions into rows of fixed shape.

A row holds up to P pictures, each with its prefix once and then its questions:

    tokens        U I I I q q q a a  q q a | U I I I q q a a | pad
    picture_ids   1 1 1 1 1 1 1 1 1  1 1 1 | 2 2 2 2 2 2 2 2 | 0
    question_ids  0 0 0 0 1 1 1 1 1  2 2 2 | 0 0 0 0 3 3 3 3 | 0
    positions     0 1 2 3 4 5 6 7 8  4 5 6 | 0 1 2 3 4 5 6 7 | 0

A token attends to the earlier ones of its picture that are in the prefix or in its own question, so every question sees what it
would see alone. Which questions share a row says `plan`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from smolrgpt_jax.data import images, masks
from smolrgpt_jax.data.chat import IGNORE, ChatTokenizer
from smolrgpt_jax.data.inputs import feature_index
from smolrgpt_jax.data.kept import kept
from smolrgpt_jax.data.prepared.reader import check_prepared, check_regions, load_stored
from smolrgpt_jax.data.records import Picture, PreparedPicture, Region, StoredRegion, records_of
from smolrgpt_jax.errors import DataError

# Of tokens that attend to nothing and have no loss.
PADDING = {"targets": IGNORE, "positions": 0, "picture_ids": 0, "question_ids": 0, "feature_index": -1}


@dataclasses.dataclass(frozen=True)
class RowShape:
    """The static sizes of a row."""

    tokens: int  # S, length of the row in tokens
    pictures: int  # P, most pictures in it
    # R, most distinct regions of one picture in it. 0 makes the run RGB only: no depth, no masks, and "<mask>" tokens keep their own
    # embedding.
    regions: int
    image_tokens: int  # T, tokens a picture takes in the sequence
    image_size: int  # height and width of the encoder's input in pixels
    mask_grid: int  # g, height and width of the map on which regions are pooled


class TokenisedQuestions:
    """The ids of all questions of a list of pictures, kept as one flat array.

    Indexed by (picture, question), both positions in the lists given.
    """

    def __init__(
        self, pictures: Sequence[Picture], tokenizer: ChatTokenizer, with_answers: bool = True, place: Any = None
    ):
        """Tokenises, or reads what was kept at a `place_of` them; `with_answers` False leaves generation prompts."""

        def make() -> dict[str, np.ndarray]:
            turns = [tokenizer.format.turns(question, with_answers) for p in pictures for question in p.questions]
            encoded = [(np.zeros(0, np.int32), np.zeros(0, bool)), *tokenizer.conversations(turns)]
            ids, counted = map(np.concatenate, zip(*encoded))
            return {"ids": ids, "counted": counted, "ends": np.cumsum([ids.size for ids, _ in encoded])}

        self.tokenizer, self.place = tokenizer, place
        self._ids, self._counted, self._ends = kept(place, f"tokens {with_answers}", make).values()
        self._first = np.cumsum([0] + [len(picture.questions) for picture in pictures])

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids after the picture's prefix, int32[N], and which of them are answers, bool[N]."""
        index = self._first[key[0]] + key[1]
        span = slice(self._ends[index], self._ends[index + 1])
        return self._ids[span], self._counted[span]

    def size(self, picture: int, question: int) -> int:
        """Tokens of one question, without its picture's prefix."""
        index = self._first[picture] + question
        return int(self._ends[index + 1] - self._ends[index])

    def answer_size(self, picture: int, question: int) -> int:
        """How many of them are answers."""
        return int(self[picture, question][1].sum())

    def digest(self, digest: Any) -> None:
        """Adds all tokens, which of them are answers, and where questions and pictures end to a digest of hashlib."""
        for array in (self._ids, self._counted, self._ends, self._first):
            digest.update(array)

    def longest(self) -> int:
        """Tokens of the longest question, without its picture's prefix."""
        return int(np.diff(self._ends).max(initial=0))


@dataclasses.dataclass(frozen=True)
class PackedPicture:
    """A picture's place in a row: its index and the indices of those of its questions that are in."""

    picture: int
    questions: tuple[int, ...]


Row = tuple[PackedPicture, ...]


def empty_batch(rows: int, shape: RowShape, pad_id: int, weights: bool = False) -> dict[str, np.ndarray]:
    """Returns a batch of padding rows; they attend to nothing and contribute no loss.

    Keys and arrays, with B = rows and the letters of `RowShape`:
      tokens int32[B, S]: input ids.
      targets int32[B, S]: id of the next token where that one is an answer's, else -100.
      weights float32[B, S]: what the target weighs in the loss; only if `weights`, else all weigh the same.
      positions int32[B, S]: restart after the picture prefix for every question.
      picture_ids int32[B, S]: 1..P, 0 for padding.
      question_ids int32[B, S]: 0 for prefixes and padding, 1.. counting the row's questions.
      feature_index int32[B, S]: -1 text; p*T + t image token; P*T + p*R + r RGB feature of region r; P*T + P*R + p*R + r its depth
        feature.
      images float32[B, P, H, W, 3]: in [-1, 1].
      depths float32[B, P, H, W, 3]; region_masks float32[B, P, R, g, g]: absent if R is 0.
    """
    values = {"tokens": pad_id, **PADDING}
    batch = {name: np.full((rows, shape.tokens), value, np.int32) for name, value in values.items()}
    if weights:
        batch["weights"] = np.zeros((rows, shape.tokens), np.float32)
    places, size, grid = (rows, shape.pictures), shape.image_size, shape.mask_grid
    batch["images"] = np.zeros((*places, size, size, 3), np.float32)
    if shape.regions:
        batch["depths"] = np.zeros((*places, size, size, 3), np.float32)
        batch["region_masks"] = np.zeros((*places, shape.regions, grid, grid), np.float32)
    return batch


def fill_text(
    out: dict[str, np.ndarray],
    row: Row,
    pictures: Sequence[Picture],
    questions: TokenisedQuestions,
    shape: RowShape,
    question_balance: float = 0.0,
) -> list[tuple[Region, ...]]:
    """Writes the token arrays of one row.

    Args:
      out: one row of `empty_batch` (each array without its first dimension), written in place.
      question_balance: with "weights" in `out` each of an answer's n tokens weighs n ** -question_balance, so that long answers do
        not drown short ones: 0 weighs every token alike, 1 every question.

    Returns:
      For each picture of the row its distinct regions, in the order of their slots.
    """
    tokenizer = questions.tokenizer
    prefix = tokenizer.prefix(shape.image_tokens)
    kinds = (tokenizer.image_id, tokenizer.mask_rgb_id, tokenizer.mask_depth_id)
    slots: list[tuple[Region, ...]] = []
    at = number = 0

    def write(ids: np.ndarray, position: int, place: int, question: int, features: Sequence[np.ndarray | None]) -> None:
        span = slice(at, at + ids.size)
        out["tokens"][span] = ids
        out["positions"][span] = position + np.arange(ids.size)
        out["picture_ids"][span] = place + 1
        out["question_ids"][span] = question
        out["feature_index"][span] = feature_index(ids, kinds, features)

    for place, packed in enumerate(row):
        image = place * shape.image_tokens + np.arange(shape.image_tokens)
        write(prefix, 0, place, 0, (image, None, None))
        at += prefix.size
        regions: dict[Region, int] = {}
        for question in packed.questions:
            number += 1
            ids, counted = questions[packed.picture, question]
            rgb = depth = None
            if shape.regions:
                asked = pictures[packed.picture].questions[question].regions
                used = np.array([regions.setdefault(region, len(regions)) for region in asked], np.int32)
                rgb = shape.pictures * shape.image_tokens + place * shape.regions + used
                depth = rgb + shape.pictures * shape.regions
            write(ids, prefix.size, place, number, (None, rgb, depth))
            before = at - 1 + np.flatnonzero(counted)
            out["targets"][before] = ids[counted]
            if "weights" in out:
                out["weights"][before] = max(before.size, 1) ** -question_balance
            at += ids.size
        slots.append(tuple(regions))
    return slots


class FileLoader:
    """Loads pictures from their files or from prepared data, keeping the most recently used ones decoded."""

    def __init__(self, shape: RowShape, depth_mode: str = "training", cached_pictures: int = 0):
        """depth_mode: see `images.read_depth`; cached_pictures: decoded ones kept in memory. Without regions no depth is read."""
        self._settings = shape, depth_mode, cached_pictures
        self._cached = functools.lru_cache(cached_pictures)(self._read)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process starts with an empty cache.
        return FileLoader, self._settings

    def fill(self, out: dict[str, np.ndarray], place: int, picture: Picture, regions: Sequence[Any]) -> None:
        """Writes a picture and the given ones of its regions into its place of one row of `empty_batch`.

        Raises DataError: a file cannot be read; names the file and a record that needs it. Nothing was written.
        """
        shape, depth_mode, _ = self._settings
        try:
            image, depth, known = self._cached(dataclasses.replace(picture, questions=()))
            if isinstance(picture, PreparedPicture):
                check_regions(picture, regions, len(known))
        except DataError as error:
            raise DataError(f"{records_of(picture)}: {error}") from error
        for region in regions:
            if region not in known:
                known[region] = masks.resample_rle(region, shape.mask_grid)
        out["images"][place] = images.scale_rgb(image)
        if "depths" in out and depth is not None:
            out["depths"][place] = images.scale_depth(depth, depth_mode)
        for slot, region in enumerate(regions):
            out["region_masks"][place, slot] = known[region]

    def _read(self, picture: Picture) -> tuple[np.ndarray, np.ndarray | None, dict[Region, np.ndarray]]:
        """A picture without its questions -> uint8[H, W, 3], depth uint8[H, W], and masks float32[g, g] that are known already."""
        shape, depth_mode, _ = self._settings
        if isinstance(picture, PreparedPicture):
            check_prepared(picture, shape.image_size, shape.mask_grid, depth_mode)
            image, depth, weights = load_stored(picture)
            return image, depth if shape.regions else None, {StoredRegion(n): mask for n, mask in enumerate(weights)}
        image = images.read_rgb(picture.image, shape.image_size)
        if picture.depth is None or not shape.regions:
            return image, None, {}
        return image, images.read_depth(picture.depth, shape.image_size, depth_mode, picture.image), {}
