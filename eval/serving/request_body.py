"""The body of a chat request, read and checked: the protocol's fields, and a picture with its regions as `data` reads them."""

import base64
import binascii
import functools
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from eval.assist.estimated_depth import ESTIMATE
from eval.assist.segmented import Segmenter, read_clicks
from eval.assist.tightened import tighten
from eval.serving.worker import PictureKey
from smolrgpt_jax.data.images import open_picture, picture_size
from smolrgpt_jax.data.masks import MASK, RLE
from smolrgpt_jax.data.records import Question, check_question
from smolrgpt_jax.data.regions import read_boxes, read_masks
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.generation.constraint import Kind

MOST_CHOICES = 8
HOTTEST = 2.0
_TAKEN = (
    "model messages n max_tokens max_completion_tokens temperature top_p seed stream stream_options response_format depth regions"
).split()
_SHAPES = (
    'one value, {"enum": ["left", "right"]}, {"type": "integer", "minimum": 0, "maximum": N} or {"type": "number"}, and, if '
    'wanted, "answer": {"type": "string"}'
)
# What a schema may say besides, which changes nothing of what is written.
_SAYS_NOTHING = {"title", "description", "$schema"}


_Open = Callable[[str, bytes], Image.Image]  # of a picture that was sent, its name and content


class TooLargeError(Exception):
    """The pictures of a request have more pixels than are decoded now."""


class Refused(Exception):
    """A request that is not answered; `message` is one sentence for whoever sent it."""

    def __init__(self, status: int, code: str, message: str, **headers: str):
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


@dataclass(frozen=True)
class ValueShape:
    """The JSON object that is wanted in place of the text: the value under a name, and the text where "answer" is one."""

    name: str
    kind: Kind
    text: bool

    def fits(self, value: str | float | None) -> bool:
        """Whether a value that was read off the text is of the kind."""
        category, count = self.kind
        if category == "left_right":
            return value in ("left", "right")
        return isinstance(value, int if category == "count" else int | float) and (not count or 0 <= value < count)

    def write(self, text: str, value: str | float | None) -> str:
        return json.dumps(({"answer": text} if self.text else {}) | {self.name: value})


@dataclass(frozen=True)
class ChatRequest:
    """What is asked, and how; sources of picture and depth as `data.images` takes them, or ESTIMATE for a depth to be estimated."""

    model: str
    question: Question
    image: Image.Image
    depth: Image.Image | str | None
    picture: PictureKey
    choices: int
    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int | None
    stream: bool
    include_usage: bool
    shape: ValueShape | None


def read_request(
    body: bytes, most_regions: int, segmenter: Segmenter | None = None, most_pixels: float = math.inf
) -> ChatRequest:
    """Reads a request; its picture and depth are decoded on first use, its masks one after another.

    segmenter: of clicks and boxes. Raises Refused for a body that is no request, or asks for what there is not, and TooLargeError
    before anything is decoded where one of the pictures has more than `most_pixels`.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "invalid_json", f"the body is not JSON ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(request, dict):
        raise _wrong("the body is not a JSON object")
    request = {name: value for name, value in request.items() if value is not None}
    for name in request:
        if name not in _TAKEN:
            raise Refused(400, "unsupported_parameter", f"{_shown(name)} is not supported, only {', '.join(_TAKEN)}")
    if not isinstance(request.get("model"), str):
        raise _wrong("model is missing: the name of a model of GET /v1/models")
    texts, urls = _messages(request.get("messages"))
    opened = functools.partial(_opened, most_pixels)
    if "max_tokens" in request and "max_completion_tokens" in request:
        raise _wrong("max_tokens and max_completion_tokens are both given, expected one of them")
    longest = "max_tokens" if "max_tokens" in request else "max_completion_tokens"
    stream, options = _boolean(request, "stream"), request.get("stream_options", {})
    if not isinstance(options, dict) or options.keys() - {"include_usage"} or (options and not stream):
        raise _wrong('stream_options may be {"include_usage": true} or false, with "stream": true')
    shape = _value_shape(request.get("response_format"), most_regions)
    try:
        question, picture, depth, key = _question(
            texts, urls, request.get("depth"), request.get("regions"), most_regions, segmenter, opened
        )
    except DataError as error:
        raise _wrong(str(error), "invalid_input") from None
    except ImportError as error:
        raise _wrong(str(error), "unsupported_parameter") from None
    return ChatRequest(
        request["model"],
        question,
        picture,
        depth,
        key,
        choices=_whole(request, "n", 1, MOST_CHOICES) or 1,
        max_tokens=_whole(request, longest, 1, 2**31 - 1),
        temperature=_number(request, "temperature", 0.0, HOTTEST, 0.0),
        top_p=_number(request, "top_p", 0.0, 1.0, 1.0),
        seed=_whole(request, "seed", -(2**63), 2**63 - 1),
        stream=stream,
        include_usage=_boolean(options, "include_usage"),
        shape=shape,
    )


def _question(
    texts: Sequence[str],
    urls: Mapping[str, object],
    depth: object,
    regions: object,
    most_regions: int,
    segmenter: Segmenter | None,
    open_sent: _Open,
) -> tuple[Question, Image.Image, Image.Image | str | None, PictureKey]:
    """Reads what is sent beside the text; raises DataError as the readers of `data` do, ImportError without what tightening needs."""
    sent = {name: _sent(url, name) for name, url in urls.items()}
    if not sent:
        raise DataError("there is no picture: send it as a data URL in a content part of type image_url")
    (name, image), *others = sent.items()
    estimated = depth == ESTIMATE
    if depth is not None and not estimated:
        others.insert(0, ("depth", _sent(depth, "depth")))
    picture, opened = open_sent(name, image), [open_sent(*other) for other in others]
    masks, size = others if estimated else others[1:], picture_size(picture)
    if masks and regions is not None:
        raise DataError("regions are given both as pictures and in the field regions, expected one of them")
    regions = [regions] if isinstance(regions, Mapping) else regions
    given: object = masks if regions is None else regions
    if isinstance(given, list) and len(given) > most_regions:
        raise DataError(f"there are {len(given)} regions, at most {most_regions} are read")
    if regions is not None:
        found = _regions(regions, picture, segmenter, open_sent)
    elif masks:
        found = read_masks((open_sent(*mask) for mask in masks), size, pictures=True)
    else:
        found = read_masks(picture, size, pictures=True) if MASK in "".join(texts[::2]) and _marked(picture) else ()
    question = Question("question", "", texts[-1], None, None, found, tuple(zip(texts[:-1:2], texts[1:-1:2])))
    check_question(question, categories=(), need_answer=False)
    if estimated:  # of which only regions have a use
        return question, picture, ESTIMATE if found else None, (_digest(image), ESTIMATE.encode() if found else None)
    if found and not opened:
        raise DataError("a question about regions needs the depth picture: send it as the second picture or as depth")
    key = _digest(image), _digest(others[0][1]) if others else None
    return question, picture, opened[0] if opened else None, key


def _messages(messages: object) -> tuple[list[str], dict[str, object]]:
    """The texts of user and assistant in turn, and the URLs of all pictures by what messages call them."""
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages is missing: a list of messages, the last of them a user's")
    texts, urls = [], {}
    for place, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        expected = ("user", "assistant")[place % 2]
        if role != expected or (expected == "assistant" and place == len(messages) - 1):
            known = "the model knows the user and the assistant in turn, the last of them the user"
            wanted = "none" if role == expected else expected
            raise _wrong(f"messages[{place}] is of role {_shown(role)}, expected {wanted}: {known}")
        if unknown := message.keys() - {"role", "content"}:
            raise _wrong(
                f"messages[{place}] has {_shown(min(unknown))}, which is not supported", "unsupported_parameter"
            )
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list):
            raise _wrong(f"messages[{place}].content is neither text nor a list of parts")
        said = []
        for number, part in enumerate(content):
            name, kind = f"messages[{place}].content[{number}]", part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                said.append(part["text"])
            elif kind == "image_url" and role == "user":
                given = part.get("image_url")
                if not isinstance(given, dict) or given.keys() - {"url", "detail"}:
                    raise _wrong(f'{name}.image_url is not {{"url": "data:image/png;base64,..."}}')
                if given.get("detail") not in (None, "auto"):
                    raise _wrong(f"{name}: detail is not supported, pictures have one size", "unsupported_parameter")
                urls[name] = given.get("url")
            else:
                raise _wrong(f"{name} is neither a text part nor, of a user, an image_url part")
        texts.append("\n".join(said).strip())
    return texts, urls


def _regions(regions: object, picture: Image.Image, segmenter: Segmenter | None, open_sent: _Open) -> tuple[RLE, ...]:
    """Boxes, also as {box, tighten}, clicks as {click}, masks of every form of COCO, and data URLs of mask pictures."""
    if not isinstance(regions, list):
        raise DataError("regions is not a list")
    size, read = picture_size(picture), []
    clicks, coloured, segmented = {}, [], []  # their places, of which masks are made at last
    for place, region in enumerate(regions):
        name = f"regions[{place}]"
        if isinstance(region, list) and not any(isinstance(part, list) for part in region):
            read += read_boxes([region], size)
        elif isinstance(region, str):
            read.append((name, _sent(region, name)))
            open_sent(*read[-1])
        elif isinstance(region, dict) and region.keys() == {"click"}:
            (clicks[place],) = read_clicks([region["click"]], size)
            read.append(None)
        elif isinstance(region, dict) and "box" in region:
            how, unknown = region.get("tighten", False), region.keys() - {"box", "tighten"}
            if unknown:
                raise DataError(f"{name} has {_shown(min(unknown))}, expected box and tighten alone")
            if type(how) is not bool and how != "sam":
                raise DataError(f'{name}: tighten is {_shown(how)}, expected true, false or "sam"')
            read += read_boxes([region["box"]], size)
            if how:
                (segmented if how == "sam" else coloured).append(place)
        else:
            read.append(region)
    made = {}
    if coloured:
        made.update(zip(coloured, tighten(picture, [read[place] for place in coloured])))
    if clicks or segmented:
        if segmenter is None:
            raise _wrong("this server segments nothing, it runs without --segmenter", "unsupported_parameter")
        found = segmenter.segment(picture, list(clicks.values()), [read[place] for place in segmented])
        made.update(zip((*clicks, *segmented), found))
    whole = (made.get(place, region) for place, region in enumerate(read))
    masks = (open_sent(*region) if isinstance(region, tuple) else region for region in whole)
    return read_masks(masks, size, pictures=True)


def _sent(url: object, name: str) -> bytes:
    """The bytes of a data URL; others are not fetched."""
    head, mark, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (mark and head.startswith("data:") and head.endswith(";base64")):
        raise DataError(f"{name} is no data URL (data:image/png;base64,...), and this server fetches nothing")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{name} is no data URL: what follows the comma is not base64") from None


def _opened(most_pixels: float, name: str, content: bytes) -> Image.Image:
    """A picture that was sent, by its header alone; raises DataError, or TooLargeError."""
    picture = open_picture(io.BytesIO(content), name)
    if picture.width * picture.height > most_pixels:
        raise TooLargeError
    return picture


def _marked(picture: Image.Image) -> bool:
    """Whether the picture's own transparency marks a region."""
    if not picture.has_transparency_data:
        return False
    try:
        least, most = picture.convert("RGBA").getchannel("A").getextrema()
    except (OSError, SyntaxError, ValueError):  # the reader of the picture says why
        return False
    return least < most


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=32).digest()


def _value_shape(given: object, most: int) -> ValueShape | None:
    """most: the largest maximum of an integer."""
    if given is None or given == {"type": "text"}:
        return None
    inner = given.get("json_schema") if isinstance(given, dict) and given.get("type") == "json_schema" else None
    schema = inner.get("schema") if isinstance(inner, dict) else None
    properties = schema.get("properties") if isinstance(schema, dict) and schema.get("type") == "object" else None
    if isinstance(properties, dict) and not schema.keys() - _SAYS_NOTHING - {
        "type",
        "properties",
        "required",
        "additionalProperties",
    }:
        bare = {name: _bare(value) for name, value in properties.items()}
        text = bare.pop("answer", None)
        if len(bare) == 1 and text in (None, {"type": "string"}):
            ((name, value),) = bare.items()
            if (kind := _kind(value)) and kind[1] <= most + 1:
                return ValueShape(name, kind, text is not None)
    shapes = f"{_SHAPES}; N is at most {most}"
    raise _wrong(f"response_format is not supported, only text, and json_schema of an object with {shapes}")


def _bare(schema: object) -> object:
    return {name: v for name, v in schema.items() if name not in _SAYS_NOTHING} if isinstance(schema, dict) else None


def _kind(schema: Any) -> Kind | None:
    """The kind of a value by its schema."""
    if not isinstance(schema, dict):
        return None
    rest = {name: value for name, value in schema.items() if name != "type"}
    if rest == {"enum": ["left", "right"]} and schema.get("type", "string") == "string":
        return "left_right", 0
    if schema.get("type") == "number" and rest in ({}, {"minimum": 0}):
        return "distance", 0
    most = rest.get("maximum")
    if schema.get("type") == "integer" and rest == {"minimum": 0, "maximum": most} and type(most) is int and most >= 0:
        return "count", most + 1
    return None


def _whole(request: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = request.get(name)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise _wrong(f"{name} is {_shown(value)}, expected a whole number from {least} to {most}")
    return value


def _number(request: Mapping[str, Any], name: str, least: float, most: float, default: float) -> float:
    value = request.get(name, default)
    if type(value) not in (int, float) or not least <= value <= most:
        raise _wrong(f"{name} is {_shown(value)}, expected a number from {least:g} to {most:g}")
    return float(value)


def _boolean(request: Mapping[str, Any], name: str) -> bool:
    value = request.get(name, False)
    if type(value) is not bool:
        raise _wrong(f"{name} is {_shown(value)}, expected true or false")
    return value


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _wrong(message: str, code: str = "invalid_request") -> Refused:
    return Refused(400, code, message)
