"""The demo page in a real browser: a picture is opened, regions are marked, a question is answered."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import distance_transform_edt
from selenium.webdriver.common.keys import Keys

from eval.answering.one_picture import answer
from smolrgpt_jax import load
from smolrgpt_jax.data.masks import decode
from smolrgpt_jax.data.sources.formats import read_warehouse
from tests.eval.page.conftest import NEW_TOKENS, printable

pytestmark = pytest.mark.slow


def test_a_question_of_the_data_is_answered_as_from_python(page, small_checkpoint, page_data, tmp_path):
    picture = read_warehouse(page_data, "val")[0]
    question = picture.questions[0]
    page.shown_regions(len(question.regions))
    assert page.one(".question textarea").get_property("value") == question.prompt
    page.button("Ask").click()
    shown = page.answer()
    page.browser.save_screenshot(str(tmp_path / "answered.png"))
    expected = answer(
        load(small_checkpoint),
        picture.image,
        question.prompt,
        depth=picture.depth,
        masks=question.regions,
        max_new_tokens=NEW_TOKENS,
    )
    assert expected.text and printable(shown) == printable(expected.text)
    assert page.texts(".values dt") == ["read as", "truth", "kind of question"]
    assert page.texts(".values dd")[1].startswith(str(question.normalized_answer))


def test_an_answer_that_the_longest_length_cut_says_so(page, page_data):
    first = read_warehouse(page_data, "val")[0].questions[0]
    page.shown_regions(len(first.regions))
    page.button("Clear").click()
    page.shown_regions(0)
    page.write("What is in the picture?")
    page.button("Ask").click()
    assert page.answer()
    assert page.texts(".values dt") == ["longest answer reached"]
    assert page.texts(".values dd") == ["cut off"]


def test_masks_are_picked_and_dropped_by_a_click(page, page_data):
    picture = read_warehouse(page_data, "val")[0]
    region = picture.questions[0].regions[0]
    y, x = np.unravel_index(distance_transform_edt(decode(region)).argmax(), (region.height, region.width))
    page.button("Clear").click()
    page.shown_regions(0)
    plain = page.drawn()
    place = (x + 0.5) / region.width, (y + 0.5) / region.height
    page.at(*place).click().perform()
    page.shown_regions(1)
    pixel = int(place[1] * plain.shape[0]), int(place[0] * plain.shape[1])
    page.wait(lambda: np.abs(page.drawn() - plain).max() > 40)
    changed = np.abs(page.drawn() - plain).max(axis=-1) > 25
    assert changed[pixel[0] - 12 : pixel[0] + 12, pixel[1] - 12 : pixel[1] + 12].any()
    page.at(*place).click().perform()
    page.shown_regions(0)
    covered = np.any([decode(mask) for question in picture.questions for mask in question.regions], axis=0)
    row, column = np.unravel_index(distance_transform_edt(~covered).argmax(), covered.shape)
    page.at((column + 0.5) / region.width, (row + 0.5) / region.height).click().perform()
    assert page.warning() == "There is no mask under this point."


def test_boxes_are_drawn_by_two_clicks_or_by_dragging(page, tmp_path):
    page.button("Clear").click()
    page.button("Draw boxes").click()
    page.shown_regions(0)
    page.wait(lambda: page.texts(".hint")[0].startswith("Drag a box, or click two corners"))
    plain = page.drawn()
    page.at(0.1, 0.2).click().perform()
    page.wait(lambda: page.texts(".hint.corner") == ["Now the opposite corner."])
    page.at(0.3, 0.7).click().perform()
    page.shown_regions(1)
    page.at(0.9, 0.9).click_and_hold().perform()
    page.at(0.6, 0.4).release().perform()
    page.shown_regions(2)
    page.wait(lambda: len(boxes_of(page.drawn(), plain)) == 2)
    page.browser.save_screenshot(str(tmp_path / "boxes.png"))
    expected = [(0.1, 0.2, 0.3, 0.7), (0.6, 0.4, 0.9, 0.9)]
    assert np.abs(np.array(boxes_of(page.drawn(), plain)) - expected).max() < 0.015

    page.write("Is the pallet ")
    page.button("Insert <mask>").click()
    page.wait(lambda: page.texts(".marks") == ["the question holds 1 <mask> but there are 2 regions"])
    page.button("Ask").click()
    assert page.warning() == page.texts(".marks")[0]
    page.one(".question textarea").send_keys(" left of")
    page.button("Insert <mask>").click()
    page.wait(lambda: page.texts(".marks") == ["asks about 2 of 2 regions"])
    assert page.one(".question textarea").get_property("value") == "Is the pallet <mask> left of <mask>"
    page.button("Ask").click()
    assert page.answer()
    page.button("Undo").click()
    page.shown_regions(1)


def test_a_region_has_a_name_and_its_chip_mentions_it_at_the_cursor(page, small_checkpoint, page_data):
    known = read_warehouse(page_data, "val")[0]
    page.button("Clear").click()
    page.button("Draw boxes").click()
    page.shown_regions(0)
    for number in range(3):
        page.at(0.1 + 0.3 * number, 0.2).click_and_hold().perform()
        page.at(0.25 + 0.3 * number, 0.7).release().perform()
        page.shown_regions(number + 1)
    page.write("Is the pallet left of ?")
    field = page.one(".question textarea")
    field.send_keys(Keys.LEFT)
    page.click(".chips .q-chip", 0)
    page.wait(lambda: field.get_property("value") == "Is the pallet left of [0]?")
    field.send_keys(Keys.HOME, *[Keys.RIGHT] * len("Is the pallet"))
    page.click(".chips .q-chip", 2)
    page.wait(lambda: page.texts(".marks") == ["asks about 2 of 3 regions"])
    assert field.get_property("value") == "Is the pallet [2] left of [0]?"
    page.wait(lambda: page.one(".region-name input").get_attribute("aria-label") == "Name of region 2")
    page.one(".region-name input").send_keys("left pallet", Keys.ENTER)
    page.wait(lambda: page.texts(".chips .q-chip__content") == ["Region 0", "Region 1", "2 left pallet"])
    page.button("Ask").click()
    shown = page.answer()
    assert page.texts(".asked") == ["Is the pallet 2 left pallet left of Region 0?"]
    boxes = [(0.7, 0.2, 0.85, 0.7), (0.1, 0.2, 0.25, 0.7)]
    scaled = [tuple(np.array(box) * (320, 180, 320, 180)) for box in boxes]
    how = {"depth": known.depth, "boxes": scaled, "max_new_tokens": NEW_TOKENS}
    expected, turned = (
        printable(answer(load(small_checkpoint), known.image, "Is the pallet <mask> left of <mask>?", **given).text)
        for given in (how, how | {"boxes": scaled[::-1]})
    )
    assert expected != turned and printable(shown) == expected, "the model gets the regions as the question has them"
    page.click(".chips .q-chip__icon--remove", 1)
    page.wait(lambda: field.get_property("value") == "Is the pallet [1] left of [0]?")
    assert page.texts(".chips .q-chip__content") == ["Region 0", "1 left pallet"]


def boxes_of(drawn, plain):
    """(left, top, right, bottom) of what changed in the left and in the right half, in shares of the picture."""
    changed = np.abs(drawn - plain).max(axis=-1) > 30
    height, width = changed.shape
    found = []
    for start in (0, width // 2):
        rows, columns = np.nonzero(changed[:, start : start + width // 2])
        if rows.size:
            edges = columns.min() + start, rows.min(), columns.max() + start + 1, rows.max() + 1
            found.append(tuple(edges / np.array([width, height, width, height])))
    return found


def test_an_uploaded_picture_is_asked_about(page, small_checkpoint, tmp_path):
    pixels = np.random.default_rng(5).integers(0, 256, (90, 160, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "own.png")
    Image.fromarray(pixels[..., 3]).save(tmp_path / "own_depth.png")
    (tmp_path / "text.png").write_text("no picture")
    page.upload("picture", tmp_path / "text.png")
    assert page.warning().startswith("picture text.png is not a picture file")
    page.upload("picture", tmp_path / "own.png")
    page.shown_regions(0)
    assert "Regions need a depth picture" in page.texts(".hint")[0] and page.texts(".notice") == [""] * 2
    fields = (page.one(".example input"), page.one(".question textarea"))
    assert [field.get_property("value") for field in fields] == ["", ""], "the example's name and question are gone"
    page.at(0.25, 0.5).click().perform()
    page.at(0.75, 0.9).click().perform()
    page.shown_regions(1)
    page.write("What is <mask>?")
    page.button("Ask").click()
    page.wait(lambda: page.warning().startswith("Regions need a depth picture"))
    page.upload("depth", tmp_path / "own.png")
    page.wait(lambda: page.warning().startswith("depth picture own.png is coloured"))
    page.upload("depth", tmp_path / "own_depth.png")
    page.wait(lambda: page.one("figure").is_displayed() and page.texts(".notice") == [""] * 2)
    page.button("Ask").click()
    assert page.answer()
    page.browser.save_screenshot(str(tmp_path / "uploaded.png"))


def test_questions_in_a_row_stay_until_another_picture_is_opened(page, tmp_path):
    page.write("Is the pallet <mask> wide?")
    page.button("Clear").click()
    page.button("Draw boxes").click()
    page.shown_regions(0)
    page.at(0.1, 0.2).click().perform()
    page.at(0.3, 0.7).click().perform()
    page.shown_regions(1)
    page.button("Ask").click()
    first = page.answer()
    page.button("Clear").click()
    page.shown_regions(0)
    page.write("What is in the picture?")
    page.button("Ask").click()
    page.wait(lambda: len(page.texts(".exchange")) == 2)
    page.answer()
    assert page.texts(".asked") == ["What is in the picture?", "Is the pallet Region 0 wide?"], "the newest comes first"
    assert page.texts(".asked .chip") == ["Region 0"] and page.texts(".exchange .text")[1] == first
    Image.new("RGB", (160, 90)).save(tmp_path / "own.png")
    page.upload("picture", tmp_path / "own.png")
    page.wait(lambda: not page.texts(".exchange") and not page.one(".answer").is_displayed())


def test_on_a_phone_boxes_are_drawn_by_a_finger_and_the_answer_comes_into_view(page, tmp_path):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.button("Draw boxes").click()
        page.button("Clear").click()
        page.shown_regions(0)
        page.drag_finger(0.1, 0.2, 0.4, 0.8)
        page.shown_regions(1)
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= 390
        page.write("What is <mask>?")
        page.button("Ask").click()
        assert page.answer()
        inside = "const box = arguments[0].getBoundingClientRect(); return box.top >= 0 && box.bottom <= innerHeight"
        page.wait(lambda: page.browser.execute_script(inside, page.one(".answer .text")))
        page.browser.save_screenshot(str(tmp_path / "phone.png"))
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_fingers_that_scroll_or_zoom_mark_nothing(page):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.button("Clear").click()
        page.shown_regions(0)
        image = page.one(".shown img")
        page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        page.move_fingers([(0.5, 0.9, 0.5, -0.5)])
        page.wait(lambda: page.browser.execute_script("return scrollY"))
        page.button("Draw boxes").click()
        page.wait(lambda: "box" in page.one(".shown").get_attribute("class"))
        page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        page.move_fingers([(0.4, 0.4, 0.2, 0.2), (0.6, 0.7, 0.8, 0.9)])
        page.wait(lambda: page.browser.execute_script("return visualViewport.scale") > 1.1)
        page.browser.execute_cdp_cmd("Emulation.setPageScaleFactor", {"pageScaleFactor": 1})
        page.wait(lambda: page.browser.execute_script("return visualViewport.scale") == 1)
        page.at(0.1, 0.1).click().perform()  # what came before has been answered once this is
        page.wait(lambda: page.texts(".hint.corner") == ["Now the opposite corner."])
        page.one(".hint.corner").click()
        assert page.texts(".hint.corner") == ["Now the opposite corner."], "a click beside the picture is no corner"
        page.move_fingers([(0.4, 0.4, 0.3, 0.3), (0.6, 0.6, 0.7, 0.7)])
        page.wait(lambda: page.texts(".hint.corner") == [""])
        page.shown_regions(0)
        assert page.texts(".notice") == [""] * 2
    finally:
        page.browser.execute_cdp_cmd("Emulation.setPageScaleFactor", {"pageScaleFactor": 1})
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_loads_nothing_from_outside(page):
    events = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    hosts = {urlsplit(url).hostname for url in asked if urlsplit(url).scheme.startswith(("http", "ws"))}
    assert hosts == {"127.0.0.1"}
