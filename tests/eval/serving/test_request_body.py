"""Requests are read with the readers of files, or refused with one sentence."""

from __future__ import annotations

import base64
import io
import json
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.answering.served import data_url
from eval.serving.request_body import Refused, read_request
from smolrgpt_jax.data import regions
from smolrgpt_jax.data.masks import box_mask, decode, encode
from tests.eval.serving.conftest import BOXES, QUESTION, body

SIDE = {"type": "object", "properties": {"side": {"enum": ["left", "right"]}}}


def png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def read(request: dict):
    return read_request(json.dumps(request).encode(), most_regions=8)


def asking(folder: Path, *urls: str, text: str = QUESTION, **changes) -> dict:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    return body(folder, messages=messages, **changes)


@pytest.fixture
def rgb(warehouse) -> str:
    return data_url(warehouse / "val/images/000100.png")


@pytest.fixture
def depth(warehouse) -> str:
    return data_url(warehouse / "val/depths/000100_depth.png")


BOXED = [box_mask(box, 60, 96) for box in BOXES]


def test_regions_are_boxes_masks_of_coco_and_pictures_in_any_mixture(warehouse):
    runs = {"size": [60, 96], "counts": encode(BOXED[1]).runs().tolist()}
    short = {"size": [60, 96], "counts": encode(BOXED[1]).counts.decode()}
    for second in (BOXES[1], runs, short, png(255 * BOXED[1])):
        found = read(body(warehouse, regions=[BOXES[0], second])).question.regions
        assert [decode(region).tolist() for region in found] == [mask.tolist() for mask in BOXED]


def test_depth_is_the_second_picture_or_a_field_and_further_pictures_are_masks(warehouse, rgb, depth):
    masks = [png(255 * mask) for mask in BOXED]
    both = [asking(warehouse, rgb, depth, *masks, regions=None)]
    both.append(asking(warehouse, rgb, *masks, depth=depth, regions=None))
    for request in both:
        found = read(request)
        assert np.asarray(found.depth).shape == (60, 96)
        assert [decode(region).tolist() for region in found.question.regions] == [mask.tolist() for mask in BOXED]
    assert read(both[0]).picture == read(both[1]).picture


def test_masks_are_decoded_one_after_another(warehouse, rgb, depth, monkeypatch):
    decoded, alive = [], []

    def read_mask(picture):
        decoded.append(weakref.ref(picture))
        pixels = whole(picture)
        alive.append(sum(picture() is not None for picture in decoded))
        return pixels

    whole = regions.read_mask
    monkeypatch.setattr(regions, "read_mask", read_mask)
    masks, text = [png(255 * BOXED[0])] * 4, "Which of <mask> <mask> <mask> <mask> is it?"
    read(asking(warehouse, rgb, depth, *masks, regions=None, text=text))
    read(asking(warehouse, rgb, depth, regions=masks, text=text))
    assert len(alive) == 8 and max(alive) == 1


def test_an_estimated_depth_is_no_picture_and_asked_for_where_there_are_regions(warehouse, rgb, depth):
    masks = [png(255 * mask) for mask in BOXED]
    found = read(asking(warehouse, rgb, *masks, depth="estimate", regions=None))
    assert found.depth == "estimate" and len(found.question.regions) == 2
    boxes = read(asking(warehouse, rgb, depth="estimate"))
    assert boxes.picture == found.picture != read(asking(warehouse, rgb, depth=depth)).picture
    plain = read(asking(warehouse, rgb, depth="estimate", regions=None, text="Is it dark?"))
    assert plain.depth is None and plain.picture == read(asking(warehouse, rgb, regions=None, text="?")).picture


def test_boxes_are_tightened_where_that_is_asked_for(warehouse, depth):
    pytest.importorskip("cv2")
    pixels = np.full((60, 96, 3), 90, np.uint8)
    pixels[12:20, 8:15] = pixels[25:38, 42:58] = 220, 60, 50
    for flags, tight in (((True, True), (True, True)), ((False, True), (False, True)), ((None, True), (False, True))):
        regions = [{"box": box} if flag is None else {"box": box, "tighten": flag} for box, flag in zip(BOXES, flags)]
        found = read(asking(warehouse, png(pixels), depth, regions=regions)).question.regions
        red = pixels[..., 0] == 220
        for region, mask, tightened in zip(found, BOXED, tight, strict=True):
            assert np.array_equal(decode(region), red & mask if tightened else mask)


def test_clicks_and_boxes_are_segmented_in_one_go_beside_other_regions(warehouse, box_rle):
    made = [box_rle(1, 1, 9, 9), box_rle(2, 2, 9, 9), box_rle(3, 3, 9, 9)]

    class Segmenter:
        def segment(self, picture, clicks, boxes):
            assert picture.size == (96, 60) and clicks == [(8, 12), (50.5, 30)]
            assert [decode(box).tolist() for box in boxes] == [BOXED[1].tolist()]
            return tuple(made)

    text = "Which pallet in <mask> <mask> <mask> <mask> is it?"
    regions = [{"click": [8, 12]}, BOXES[0], {"box": BOXES[1], "tighten": "sam"}, {"click": [50.5, 30]}]
    request = body(warehouse, regions=regions)
    request["messages"][0]["content"][2]["text"] = text
    found = read_request(json.dumps(request).encode(), 8, Segmenter()).question.regions
    assert (found[0], found[2], found[3]) == (made[0], made[2], made[1])
    assert decode(found[1]).tolist() == BOXED[0].tolist()


def test_without_opencv_a_box_to_be_tightened_is_refused_with_what_to_install(warehouse, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(Refused, match="tightening boxes needs the package cv2: pip install") as refused:
        read(body(warehouse, regions=[{"box": BOXES[0], "tighten": True}, BOXES[1]]))
    assert refused.value.status == 400
    assert len(read(body(warehouse, regions=[{"box": BOXES[0]}, BOXES[1]])).question.regions) == 2


def test_the_transparency_of_the_picture_marks_the_only_region(warehouse, depth):
    pixels = np.concatenate([np.full((60, 96, 3), 90, np.uint8), 255 * BOXED[0][..., None]], axis=-1)
    text = "How tall is the pallet <mask>?"
    (found,) = read(asking(warehouse, png(pixels), depth, text=text, regions=None)).question.regions
    assert decode(found).tolist() == BOXED[0].tolist()
    assert read(asking(warehouse, png(pixels), depth, text="Is it dark?", regions=None)).question.regions == ()


def test_earlier_turns_are_part_of_the_question(warehouse, rgb, depth):
    request = asking(warehouse, rgb, depth)
    request["messages"] += [{"role": "assistant", "content": "left"}, {"role": "user", "content": "How far apart?"}]
    question = read(request).question
    assert question.prompt == "How far apart?" and question.earlier == ((QUESTION, "left"),)
    assert len(question.regions) == 2


@pytest.mark.parametrize(
    "value, kind",
    [
        ({"enum": ["left", "right"], "type": "string", "title": "Side"}, ("left_right", 0)),
        ({"type": "integer", "minimum": 0, "maximum": 5}, ("count", 6)),
        ({"type": "number", "description": "metres"}, ("distance", 0)),
    ],
)
def test_the_schema_of_a_value_names_its_kind(warehouse, value, kind):
    for text in ({}, {"answer": {"type": "string"}}):
        schema = {"type": "object", "properties": {**text, "value": value}, "additionalProperties": False}
        given = {"type": "json_schema", "json_schema": {"name": "v", "schema": schema}}
        shape = read(body(warehouse, response_format=given)).shape
        assert (shape.name, shape.kind, shape.text) == ("value", kind, bool(text))


def test_what_is_read_off_the_text_has_to_fit_the_schema(warehouse):
    given = {"type": "json_schema", "json_schema": {"schema": SIDE}}
    shape = read(body(warehouse, response_format=given)).shape
    assert shape.fits("left") and not shape.fits(2) and not shape.fits(None)
    assert json.loads(shape.write("", "left")) == {"side": "left"}
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 2}}}
    shape = read(body(warehouse, response_format={"type": "json_schema", "json_schema": {"schema": schema}})).shape
    assert [shape.fits(value) for value in (0, 2, 3, 1.0, "left")] == [True, True, False, False, False]


FORMAT = "response_format is not supported, only text, and json_schema"
REFUSED = [
    ({"frequency_penalty": 0.5}, "'frequency_penalty' is not supported, only model, messages"),
    ({"tools": []}, "'tools' is not supported"),
    ({"model": None}, "model is missing"),
    ({"messages": None}, "messages is missing"),
    ({"messages": "hello"}, "messages is missing"),
    ({"messages": [{"role": "system", "content": "be kind"}]}, "is of role 'system', expected user"),
    ({"messages": [3]}, "is of role None, expected user"),
    ({"messages": [{"role": "user", "content": "a"}] * 2}, r"messages\[1\] is of role 'user', expected assistant"),
    (
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        r"messages\[1\] is of role 'assistant', expected none",
    ),
    ({"messages": [{"role": "user", "content": 3}]}, "content is neither text nor a list"),
    ({"messages": [{"role": "user", "content": "hi", "name": "x"}]}, "has 'name', which is not supported"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "is neither a text part nor"),
    ({"messages": [{"role": "user", "content": "Is it dark?"}]}, "there is no picture"),
    ({"n": 0}, "n is 0, expected a whole number from 1 to 8"),
    ({"n": True}, "n is True, expected a whole number"),
    ({"temperature": 3}, "temperature is 3, expected a number from 0 to 2"),
    ({"temperature": float("nan")}, "temperature is nan"),
    ({"top_p": "1"}, "top_p is '1', expected a number"),
    ({"max_tokens": -1}, "max_tokens is -1"),
    ({"max_tokens": 3, "max_completion_tokens": 3}, "are both given"),
    ({"stream": "yes"}, "stream is 'yes', expected true or false"),
    ({"stream_options": {"include_usage": True}}, "stream_options may be"),
    ({"response_format": {"type": "json_object"}}, FORMAT),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}}, FORMAT),
    ({"regions": "all"}, "regions is not a list"),
    ({"regions": [*BOXES, [0, 0, 5, 5]]}, "the question holds 2 <mask> but 3 masks"),
    ({"regions": BOXES * 20}, "there are 40 regions, at most 8 are read"),
    ({"regions": [BOXES[0], [9, 9, 5, 5]]}, "box 9,9,5,5 is not x1,y1,x2,y2"),
    ({"regions": [BOXES[0], {"box": [9, 9, 5, 5]}]}, "box 9,9,5,5 is not x1,y1,x2,y2"),
    ({"regions": [BOXES[0], {"box": BOXES[1], "tighten": "yes"}]}, "tighten is 'yes', expected true, false or \"sam\""),
    ({"regions": [BOXES[0], {"box": BOXES[1], "tighten": 1}]}, r"regions\[1\]: tighten is 1, expected"),
    (
        {"regions": [BOXES[0], {"box": BOXES[1], "tighten": "sam"}]},
        "this server segments nothing, it runs without --segm",
    ),
    ({"regions": [BOXES[0], {"click": [5, 5]}]}, "this server segments nothing, it runs without --segmenter"),
    ({"regions": [BOXES[0], {"click": [96, 5]}]}, "click 96,5 is not x,y inside the picture of 96x60 pixels"),
    ({"regions": [BOXES[0], {"click": [5, 5], "label": 1}]}, "mask 1 is unreadable"),
    ({"regions": [BOXES[0], {"box": BOXES[1], "tight": True}]}, r"regions\[1\] has 'tight', expected box and tighten"),
    ({"regions": [BOXES[0], 7]}, "mask 1 is unreadable"),
    ({"regions": [BOXES[0], {"size": [5, 5], "counts": [25]}]}, "mask 1 is 5x5 pixels"),
    ({"regions": [BOXES[0], "http://example.org/m.png"]}, r"regions\[1\] is no data URL"),
    ({"depth": "data:image/png;base64,!!"}, "depth is no data URL: what follows the comma is not base64"),
]


@pytest.mark.parametrize("changes, sentence", REFUSED)
def test_what_cannot_be_done_is_refused_with_one_sentence(warehouse, changes, sentence):
    request = body(warehouse, **{name: value for name, value in changes.items() if value is not None})
    for name in [name for name, value in changes.items() if value is None]:
        del request[name]
    with pytest.raises(Refused, match=sentence) as refused:
        read(request)
    assert refused.value.status == 400 and "\n" not in refused.value.message


@pytest.mark.parametrize("text", [b"{", b"[" * 100_000, b"\xff", b'"text"', b"[1]"])
def test_a_body_that_is_no_object_is_refused(text):
    with pytest.raises(Refused, match="the body is not") as refused:
        read_request(text, 8)
    assert refused.value.status == 400


def test_pictures_are_refused_as_files_are(warehouse, rgb, depth):
    for urls, sentence in (
        ([png(np.zeros((4, 4, 3), np.uint8))[:-40], depth], "picture messages.* is (truncated|not a picture)"),
        (["data:image/png;base64,", depth], r"picture messages\[0\].content\[0\] is an empty file"),
        (["https://example.org/a.png", depth], "is no data URL"),
        ([rgb], "a question about regions needs the depth picture"),
    ):
        with pytest.raises(Refused, match=sentence):
            request = read(asking(warehouse, *urls))
            np.asarray(request.image)
