"""One question about one picture, from Python; `eval.report.overlay.draw_regions` draws its regions."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.answering.confidences import Confidences
from eval.reading.rules import normalized_answer, question_category
from smolrgpt_jax.data.images import Source, load_depth, load_rgb, picture_size
from smolrgpt_jax.data.masks import RLE, resample_rle
from smolrgpt_jax.data.regions import MaskLike, check_marks, read_regions
from smolrgpt_jax.data.trained_on import TrainedOn
from smolrgpt_jax.data.workings import split_workings
from smolrgpt_jax.errors import DataError

if TYPE_CHECKING:
    from smolrgpt_jax.model import Model

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
      regions: what the question's `<mask>` stand for, in their order.
      cut_off: whether the text did not end within the longest length.
      notice: one sentence where the question is unlike all that the model is known to have been trained on.
      confidence: the probability that the normalised answer is right, None where that is not known.
    """

    text: str
    category: str | None
    normalized_answer: str | int | float | None
    regions: tuple[RLE, ...]
    cut_off: bool = False
    notice: str | None = None
    confidence: float | None = None

    @property
    def conclusion(self) -> str:
        """The text without its workings."""
        return split_workings(self.text)[0]


def answer(
    model: "Model",
    image: Source,
    question: str,
    *,
    depth: Source | None = None,
    masks: MaskLike | Sequence[MaskLike] | None = None,
    boxes: Sequence[Sequence[float]] | None = None,
    max_new_tokens: int | None = None,
    confidence: Confidences | None = None,
) -> Answer:
    """Asks a model one question about one picture; greedy.

    Args:
      model: from `smolrgpt_jax.load`.
      image: the RGB picture, of any size.
      question: with one `<mask>` per region, in the order of the regions.
      depth: the depth picture; needed with regions, not used without.
      masks: the regions, of the upright picture's size; or a single one.
      boxes: the regions as (x1, y1, x2, y2) in pixels of the upright picture, instead of masks.
      max_new_tokens: longest answer, in tokens; None for `Model.answer_tokens`.
      confidence: `Confidences.read(file).of(model)`, to be told how sure the answer is.

    Raises:
      DataError: a file or region cannot be used, or question and regions do not fit together.
      ValueError: the model has no tokenizer, or an array has the wrong shape or dtype.
    """
    prompt, regions = _prompt(model, image, question, depth, masks, boxes, max_new_tokens)
    ids, tokenizer = model.generate(**prompt)[0], model.tokenizer
    cut_off = bool(model.eos_id not in ids)
    found = read_answer(question, tokenizer.decode(ids), regions, cut_off, tokenizer.format.trained_on)
    return _with_confidence(found, model, prompt, question, confidence)


def stream_answer(
    model: "Model", image: Source, question: str, confidence: Confidences | None = None, **how: Any
) -> Generator[str, None, Answer]:
    """As `answer`, whose arguments it takes, yielding the text so far after each token; the last is the answer's text."""
    prompt, regions = _prompt(model, image, question, **how)
    ids, text = [], ""
    for tokens in model.stream(**prompt):
        ids.append(int(tokens[0]))
        text = model.tokenizer.decode(ids)
        # A character of several tokens is not there before its last one.
        yield text.rstrip(_UNFINISHED)
    if text.endswith(_UNFINISHED):
        yield text
    found = read_answer(question, text, regions, model.eos_id not in ids, model.tokenizer.format.trained_on)
    return _with_confidence(found, model, prompt, question, confidence)


def read_answer(
    question: str, text: str, regions: Sequence[RLE] = (), cut_off: bool = False, trained_on: TrainedOn | None = None
) -> Answer:
    """Reads the value of a text that answers a question, by the question's wording."""
    category, notice = question_category(question), trained_on and trained_on.notice(question, len(regions))
    return Answer(text, category, normalized_answer(category, question, text), tuple(regions), cut_off, notice)


def _prompt(
    model: "Model", image: Source, question: str, depth=None, masks=None, boxes=None, max_new_tokens=None
) -> tuple[dict[str, Any], tuple[RLE, ...]]:
    """What `Model.generate` takes, a batch of one row, and the regions; arguments as in `answer`."""
    regions = read_regions(masks, boxes, picture_size(image))
    check_marks(question, regions)
    if regions and depth is None:
        raise DataError("a question about regions needs the depth picture")
    prompt = _left_padded(model, _prompt_ids(model, question)) | {
        "images": load_rgb(image, model.config.vision.image_size)[None],
        "max_new_tokens": model.answer_tokens if max_new_tokens is None else max_new_tokens,
    }
    if regions:
        # Sampled from the run lengths here, since sampling again on the same grid changes nothing: a dense mask
        # would take as much memory as the picture.
        grid = model.config.mask_grid
        sampled = [resample_rle(region, grid) for region in regions]
        sampled += [np.zeros((grid, grid), np.float32)] * (-len(sampled) % _REGIONS)
        prompt["depths"] = load_depth(depth, model.config.vision.image_size, beside=image)[None]
        prompt["masks"] = [np.stack(sampled, axis=-1)]
    return prompt, regions


def _left_padded(model: "Model", ids: np.ndarray) -> dict[str, Any]:
    padding = -ids.size % _TOKENS
    return {
        "input_ids": np.pad(ids, (padding, 0), constant_values=model.tokenizer.pad_id)[None],
        "attention_mask": np.pad(np.ones_like(ids), (padding, 0))[None],
    }


def _with_confidence(
    found: Answer, model: "Model", prompt: Mapping[str, Any], question: str, confidence: Confidences | None
) -> Answer:
    """The answer with its confidence; prompt: of `_prompt`."""
    if confidence is None or found.normalized_answer is None or found.category not in confidence.fits:
        return found
    # The whole conversation, as `likelihood.log_likelihoods` has it, whose numbers the confidences are fitted to.
    ids, begin = model.tokenizer.question(question, found.text)
    said = ids[begin:]
    whole = _left_padded(model, np.concatenate([model.tokenizer.prefix(model.config.image_tokens), ids]))
    pictures = {name: prompt[name] for name in ("images", "depths", "masks") if name in prompt}
    logits = model.forward(**whole, **pictures)["logits"][0, -1 - said.size : -1]
    most = logits.max(axis=-1, keepdims=True)
    likely = logits - most - np.log(np.exp(logits - most).sum(axis=-1, keepdims=True))
    likelihood = float(likely[np.arange(said.size), said].sum())
    return replace(found, confidence=confidence(found.category, likelihood))


def _prompt_ids(model: "Model", question: str) -> np.ndarray:
    """The conversation up to the answer, int32[N]."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("the checkpoint brings no tokenizer, answers cannot be read")
    ids = np.concatenate([tokenizer.prefix(model.config.image_tokens), tokenizer.question(question)[0]])
    longest = model.config.decoder.max_positions
    if ids.size > longest:
        raise DataError(f"the question takes {ids.size} tokens with its picture, the model knows {longest}")
    return ids
