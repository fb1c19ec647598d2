from __future__ import annotations

import asyncio
import io
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from eval.page import picture_panel
from eval.page.marking import MarkedPicture, Region
from eval.report.overlay import colour_of
from smolrgpt_jax.data.masks import decode, encode


def picture(width, height, **known):
    return MarkedPicture(Image.new("RGB", (width, height), (90, 90, 90)), **known)


def box(x1, y1, x2, y2, width=200, height=100):
    mask = np.zeros((height, width), np.uint8)
    mask[y1:y2, x1:x2] = 1
    return encode(mask)


@pytest.mark.parametrize(
    "size, shown", [((1920, 1080), (1280, 720)), ((200, 100), (720, 360)), ((1, 1), (720, 720)), ((1, 5000), (1, 1280))]
)
def test_the_shown_size_keeps_the_shape_within_its_bounds(size, shown):
    marked = picture(*size)
    assert marked.shown_size == shown == marked.shown(candidates=False).size


@pytest.mark.parametrize("corners", [((72, 36), (180, 180)), ((180, 180), (72, 36)), ((72, 180), (180, 36))])
def test_a_box_between_any_two_corners_is_in_pixels_of_the_picture(corners):
    marked = picture(200, 100)  # shown 3.6 times as large
    assert marked.add_box(*corners)
    assert np.array_equal(decode(marked.masks[0]), decode(box(20, 10, 50, 50)))


def test_a_box_over_the_edge_is_cut_and_one_without_area_refused():
    marked = picture(200, 100)
    assert marked.add_box((-40, -40), (72, 36)) and decode(marked.masks[0]).sum() == 20 * 10
    assert not marked.add_box((72, 36), (72, 90)) and not marked.add_box((800, 36), (900, 90))
    assert len(marked.regions) == 1


def test_a_point_picks_the_smallest_mask_under_it_and_drops_it_again():
    large, small = box(10, 10, 150, 90), box(40, 40, 60, 60)
    marked = picture(200, 100, candidates=[large, small])
    assert marked.pick((180, 180)) and marked.masks == (small,)
    assert marked.pick((60, 60)) and marked.masks == (small, large)
    assert marked.pick((180, 180)) and marked.masks == (large,)
    assert not marked.pick((5, 5)) and marked.masks == (large,)


def test_regions_keep_what_they_are_through_changes():
    marked = picture(200, 100)
    for left in (0, 20, 40):
        marked.set_regions((*marked.regions, Region(box(left, 10, left + 10, 20))))
    assert marked.selected == 2, "the newest is selected"
    marked.rename(1, "  left\npallet ")
    assert marked.labels() == ["Region 0", "1 left pallet", "Region 2"]
    marked.selected = 1
    marked.remove(0)
    assert marked.selected == 0 and marked.labels() == ["0 left pallet", "Region 1"]
    marked.remove(0)
    assert marked.selected is None and len(marked.regions) == 1
    assert marked.undo() and marked.labels() == ["0 left pallet", "Region 1"]
    assert [marked.undo() for _ in range(5)] == [True] * 4 + [False] and marked.regions == ()


def test_candidates_are_outlined_and_regions_tinted():
    marked = picture(720, 360, candidates=[box(100, 100, 200, 200, 720, 360)])
    plain = np.asarray(marked.shown(candidates=False))
    assert (plain == 90).all()
    outlined = (np.asarray(marked.shown(candidates=True)) == 255).all(axis=-1)
    expected = np.zeros_like(outlined)
    expected[100:200, 100:200] = True
    expected[101:199, 101:199] = False
    assert np.array_equal(outlined, expected)
    marked.set_regions([Region(box(300, 50, 400, 150, 720, 360))])
    assert tuple(np.asarray(marked.shown(candidates=False))[50, 350]) == colour_of(0)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "picture notes.png is an empty file"), (b"text", "picture notes.png is not a picture file")],
)
def test_an_upload_that_is_no_picture_is_said_in_plain_words(content, said):
    assert upload(content) == [said]


def test_an_upload_is_decoded_off_the_event_loop(monkeypatch):
    threads = []
    decode = picture_panel.upright_rgb
    monkeypatch.setattr(
        picture_panel, "upright_rgb", lambda file: threads.append(threading.get_ident()) or decode(file)
    )
    stream = io.BytesIO()
    Image.new("RGB", (200, 100)).save(stream, "PNG")
    (marked,) = upload(stream.getvalue())
    assert marked.image.size == (200, 100) and threads != [threading.get_ident()]


def upload(content):
    """What the page shows or says of an uploaded picture."""
    shown = []
    panel = SimpleNamespace(
        marked=None, example=None, show=shown.append, _notice=SimpleNamespace(set_text=shown.append)
    )

    async def read():
        return content

    event = SimpleNamespace(
        file=SimpleNamespace(name="notes.png", read=read), sender=SimpleNamespace(reset=lambda: None)
    )
    asyncio.run(picture_panel.PicturePanel.upload(panel, event, "picture"))
    return shown
