from __future__ import annotations

import asyncio
import io
import tempfile
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from nicegui.elements.upload_files import create_file_upload
from PIL import Image
from starlette.datastructures import UploadFile

from eval.page import app, picture_panel
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
        marked.add(Region(box(left, 10, left + 10, 20)))
    assert marked.selected == 2, "the newest is selected"
    marked.rename(1, "  left\npallet ")
    assert marked.labels() == ["Region 0", "1 left pallet", "Region 2"]
    marked.selected = 1
    marked.remove(0)
    assert marked.selected == 0 and marked.labels() == ["0 left pallet", "Region 1"]
    marked.remove(0)
    assert marked.selected is None and len(marked.regions) == 1
    marked.undo()
    assert marked.labels() == ["0 left pallet", "Region 1"] and marked.changed
    for _ in range(5):
        marked.undo()
    assert marked.regions == () and not marked.changed


def test_strokes_go_to_the_selected_region_and_a_point_selects_the_smallest():
    marked = picture(200, 100)  # shown 3.6 times as large
    assert marked.paint([(72, 72), (360, 72)], 36)
    painted = decode(marked.masks[0])
    rows, columns = np.nonzero(painted)
    assert abs(rows.min() - 15) <= 1 and abs(rows.max() - 25) <= 1 and abs(columns.min() - 15) <= 1
    assert abs(columns.max() - 105) <= 1 and painted[20, 20:100].all()
    assert marked.paint([(72, 288)], 36) and len(marked.regions) == 1 and decode(marked.masks[0])[80, 20]
    assert marked.add_box((0, 0), (500, 300)) and marked.selected == 1
    assert marked.select((80, 72)) and marked.selected == 0
    assert marked.select((10, 10)) and marked.selected == 1
    assert not marked.select((719, 359)) and marked.selected is None
    assert not marked.paint([(-300, -300)], 10) and len(marked.regions) == 2


def test_boxes_are_tightened_and_other_regions_stay():
    pytest.importorskip("cv2")
    pixels = np.full((100, 200, 3), 115, np.uint8)
    pixels[20:60, 40:100] = 200, 60, 50
    marked = MarkedPicture(Image.fromarray(pixels))
    painted = box(30, 10, 110, 70)
    marked.add(Region(painted))
    marked.add_box((30 * 3.6, 10 * 3.6), (110 * 3.6, 70 * 3.6))
    marked.rename(1, "crate")
    assert marked.tighten() == 1 and marked.masks[0] == painted and marked.labels()[1] == "1 crate"
    assert np.array_equal(decode(marked.masks[1]), decode(box(40, 20, 100, 60)))
    assert marked.tighten() == 0, "it is a box no more"
    marked.undo()
    assert marked.masks == (painted, painted)


def test_the_depth_lies_over_the_picture():
    marked = picture(720, 360, depth=Image.new("L", (36, 18), 200))
    assert [int(np.asarray(marked.shown(False, share)).mean()) for share in (0, 0.5, 1)] == [90, 145, 200]


def test_what_is_selected_has_a_white_outline():
    marked = picture(720, 360)
    marked.add(Region(box(100, 100, 200, 200, 720, 360)))
    assert (np.asarray(marked.shown(False))[150, 98] == 255).all()
    marked.selected = None
    assert (np.asarray(marked.shown(False))[150, 98] == 90).all()


def test_uploads_are_never_written_to_disk(monkeypatch, tmp_path):
    assert app.MOST_UPLOADED >= 2
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    file = asyncio.run(create_file_upload(UploadFile(io.BytesIO(bytes(2**21)), filename="large.png")))
    assert file.size() == 2**21 and not list(tmp_path.iterdir())


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
