"""One question about one picture, from Python.

from eval.answering import answer
from smolrgpt_jax import load
model = load("runs/demo/stage3")
found = answer(model, "a.png", "How far is the pallet <mask> from the shelf <mask>?",
               depth="a_depth.png", boxes=[(10, 20, 200, 220), (300, 40, 420, 200)])
found.text, found.category, found.normalized_answer
draw_regions(Image.open("a.png"), found.regions)     # of eval.report.overlay
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from eval.reading.rules import normalized_answer, question_category
from smolrgpt_jax.data.images import load_depth, load_rgb, open_picture, picture_size
from smolrgpt_jax.data.masks import RLE, box_mask, encode, read_rles, resample_rle
from smolrgpt_jax.data.records import MASK, Question, check_question
from smolrgpt_jax.errors import DataError

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

# A file, an opened picture, or uint8[H, W, 3] (of depth uint8[H, W]).
PictureLike = str | Path | Image.Image | np.ndarray
# Decoded already, {size, counts} as records have it, a PNG file, or an array [H, W].
MaskLike = RLE | Mapping[str, Any] | str | Path | np.ndarray

# Prompts and numbers of regions are padded to multiples of these, so that few shapes are compiled.
_TOKENS, _REGIONS = 64, 4
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Answer:
    """An answer and what was read from it.

    Attributes:
      text: as the model wrote it.
      category: the benchmark category of the question by its wording, None if it is of none.
      normalized_answer: "left" or "right", a number, or None: the text is unreadable or there is no category.
      regions: what the question's "<mask>" stand for, in their order.
      cut_off: whether the text did not end within the longest length.
    """

    text: str
    category: str | None
    normalized_answer: str | int | float | None
    regions: tuple[RLE, ...]
    cut_off: bool = False


def answer(
    model: "Model",
    image: PictureLike,
    question: str,
    *,
    depth: PictureLike | None = None,
    masks: Sequence[MaskLike] | None = None,
    boxes: Sequence[Sequence[float]] | None = None,
    max_new_tokens: int | None = None,
) -> Answer:
    """Asks a model one question about one picture; greedy.

    Args:
      model: from `smolrgpt_jax.load`.
      image: the RGB picture, of any size.
      question: with one "<mask>" per region, in the order of the regions.
      depth: the 8-bit depth picture; needed with regions, not used without.
      masks: the regions; RLEs, {size, counts}, PNG files or arrays, nonzero inside, of the picture's size.
      boxes: the regions as (x1, y1, x2, y2) in pixels, instead of masks.
      max_new_tokens: longest answer, in tokens; None for `Model.answer_tokens`.

    Raises:
      DataError: a file or region cannot be used, or question and regions do not fit together.
      ValueError: the model has no tokenizer, or an array has the wrong shape or dtype.
    """
    regions = read_regions(masks, boxes, picture_size(_picture(image, "image")))
    longest = model.answer_tokens if max_new_tokens is None else max_new_tokens
    ids = model.generate(**_prompt(model, image, question, depth, regions), max_new_tokens=longest)[0]
    return read_answer(question, model.tokenizer.decode(ids), regions, cut_off=bool(model.eos_id not in ids))


def stream_answer(
    model: "Model",
    image: PictureLike,
    question: str,
    *,
    depth: PictureLike | None = None,
    masks: Sequence[MaskLike] | None = None,
    boxes: Sequence[Sequence[float]] | None = None,
    max_new_tokens: int | None = None,
) -> Generator[str, None, Answer]:
    """As `answer`, yielding the text so far after each token; the last is the answer's text."""
    regions = read_regions(masks, boxes, picture_size(_picture(image, "image")))
    longest = model.answer_tokens if max_new_tokens is None else max_new_tokens
    ids, text = [], ""
    for tokens in model.stream(**_prompt(model, image, question, depth, regions), max_new_tokens=longest):
        ids.append(int(tokens[0]))
        text = model.tokenizer.decode(ids)
        # A character of several tokens is not there before its last one.
        yield text.rstrip(_UNFINISHED)
    if text.endswith(_UNFINISHED):
        yield text
    return read_answer(question, text, regions, cut_off=model.eos_id not in ids)


def read_answer(question: str, text: str, regions: Sequence[RLE] = (), *, cut_off: bool = False) -> Answer:
    """Reads the value of a text that answers a question, by the question's wording."""
    category = question_category(question)
    return Answer(text, category, normalized_answer(category, question, text), tuple(regions), cut_off)


def read_regions(
    masks: Sequence[MaskLike] | None, boxes: Sequence[Sequence[float]] | None, size: tuple[int, int]
) -> tuple[RLE, ...]:
    """Turns masks or boxes into regions of a picture of (height, width) pixels.

    Raises DataError where both are given, or one cannot be read, is empty, or does not fit the picture.
    """
    masks, boxes = ([] if given is None else given for given in (masks, boxes))
    if len(masks) and len(boxes):
        raise DataError("regions are given both as masks and as boxes, expected one of them")
    regions = tuple(_mask_region(mask, index) for index, mask in enumerate(masks))
    for index, region in enumerate(regions):
        if (region.height, region.width) != tuple(size):
            found = f"mask {index} is {region.width}x{region.height} pixels (width x height)"
            raise DataError(f"{found} but the picture is {size[1]}x{size[0]}")
    return regions + tuple(_box_region(box, *size) for box in boxes)


def check_marks(question: str, regions: Sequence[RLE]) -> None:
    """Raises DataError unless a question can be asked and has as many "<mask>" as there are regions."""
    marks = question.count(MASK)
    if marks != len(regions):
        raise DataError(
            f"the question has {marks} {MASK} mark{'s' * (marks != 1)} but there "
            f"{'is' if len(regions) == 1 else 'are'} {len(regions)} region{'s' * (len(regions) != 1)}"
        )
    asked = Question("question", "", question, None, None, tuple(regions))
    try:
        check_question(asked, size=None, categories=(), need_answer=False)
    except ValueError as error:
        raise DataError(str(error)) from error


def _box_region(box: Sequence[float], height: int, width: int) -> RLE:
    try:
        x1, y1, x2, y2 = box
        return encode(box_mask((x1, y1, x2, y2), height, width))
    except (TypeError, ValueError) as error:
        shown = repr(box)
        if np.iterable(box):
            shown = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in box)
        wanted = f"x1,y1,x2,y2 with x1 < x2 and y1 < y2 inside the picture of {width}x{height} pixels"
        raise DataError(f"box {shown} is not {wanted}") from error


def _mask_region(mask: MaskLike, index: int) -> RLE:
    if isinstance(mask, RLE):
        return mask
    if isinstance(mask, Mapping):
        counts = mask.get("counts")
        text = counts.decode("ascii", "replace") if isinstance(counts, bytes) else counts
        try:
            return read_rles([{**mask, "counts": text}])[0]
        except ValueError as error:
            raise DataError(str(error).replace("mask 0", f"mask {index}")) from error
    name = f"mask {index}" if isinstance(mask, np.ndarray) else f"mask {mask}"
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.size == 0:
            raise DataError(f"{name} has shape {mask.shape}, expected [height, width]")
    else:
        with open_picture(mask) as picture:
            try:
                mask = np.asarray(picture.convert("RGB")).any(axis=-1)
            except (OSError, SyntaxError, ValueError) as error:
                raise DataError(f"{name} is truncated or corrupt") from error
    if not mask.any():
        raise DataError(f"{name} marks no pixel")
    return encode(mask)


def _picture(picture: PictureLike, name: str) -> str | Path | Image.Image:
    if not isinstance(picture, np.ndarray):
        return picture
    channels = (3,) if name == "image" else ()
    if picture.dtype != np.uint8 or picture.shape[2:] != channels or picture.ndim < 2 or picture.size == 0:
        wanted = "uint8[H, W, 3]" if channels else "uint8[H, W]"
        raise ValueError(f"{name} is {picture.dtype}{list(picture.shape)}, expected {wanted}")
    return Image.fromarray(picture)


def _prompt(
    model: "Model", image: PictureLike, question: str, depth: PictureLike | None, regions: tuple[RLE, ...]
) -> dict[str, Any]:
    """What `Model.generate` takes, a batch of one row."""
    image = _picture(image, "image")
    check_marks(question, regions)
    if regions and depth is None:
        raise DataError("a question about regions needs the depth picture")
    ids = _prompt_ids(model, question)
    padding = -ids.size % _TOKENS
    prompt = {
        "input_ids": np.pad(ids, (padding, 0), constant_values=model.tokenizer.pad_id)[None],
        "attention_mask": np.pad(np.ones_like(ids), (padding, 0))[None],
        "images": load_rgb(image, model.config.vision.image_size)[None],
    }
    if regions:
        # Sampled from the run lengths here, since sampling again on the same grid changes nothing: a dense mask
        # would take as much memory as the picture.
        grid = model.config.mask_grid
        sampled = [resample_rle(region, grid) for region in regions]
        sampled += [np.zeros((grid, grid), np.float32)] * (-len(sampled) % _REGIONS)
        prompt["depths"] = load_depth(_picture(depth, "depth"), model.config.vision.image_size)[None]
        prompt["masks"] = [np.stack(sampled, axis=-1)]
    return prompt


def _prompt_ids(model: "Model", question: str) -> np.ndarray:
    """The conversation up to the answer, int32[N]."""
    # Imported late: the command line should not wait for it before it has checked its files.
    from smolrgpt_jax.data.chat import END, IMAGE_TOKEN, MASK_DEPTH_TOKEN, MASK_RGB_TOKEN, START

    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("the checkpoint brings no tokenizer, answers cannot be read")
    for token in (START, END, IMAGE_TOKEN, MASK_RGB_TOKEN, MASK_DEPTH_TOKEN):
        if token in question:
            raise DataError(f"the question holds {token}, which only the chat format may write")
    ids = np.concatenate([tokenizer.prefix(model.config.image_tokens), tokenizer.question(question)[0]])
    longest = model.config.decoder.max_positions
    if ids.size > longest:
        raise DataError(f"the question takes {ids.size} tokens with its picture, the model knows {longest}")
    return ids
