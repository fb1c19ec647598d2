"""What the page's tools do in a real browser: the brush, the depth, what is copied and downloaded, keys alone, a second model."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from eval.page.copied import as_curl, as_python, chat_body
from eval.report.marks import draw_marks
from smolrgpt_jax import load
from smolrgpt_jax.data.masks import RLE, box_mask, decode, encode
from smolrgpt_jax.data.sources.formats import read_warehouse
from tests.eval.page.conftest import NEW_TOKENS, Connection, Page, served_page

pytestmark = pytest.mark.slow


@pytest.fixture
def empty(page):
    """The page with the first example, in which nothing is marked, ready for boxes."""
    page.button("Clear").click()
    page.button("Draw boxes").click()
    page.shown_regions(0)
    return page


def draw_box(page, x, y, x2, y2, number):
    page.at(x, y).click_and_hold().perform()
    page.at(x2, y2).release().perform()
    page.shown_regions(number)


DROP = """
const [files, done] = arguments;
const read = ([name, content]) => fetch(`data:image/png;base64,${content}`).then(found => found.blob()).then(
  blob => new File([blob], name, {type: "image/png"}));
Promise.all(files.map(read)).then(found => {
  const dataTransfer = new DataTransfer();
  found.forEach(file => dataTransfer.items.add(file));
  done(document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true})));
});
"""
DROP_TEXT = """
const dataTransfer = new DataTransfer();
dataTransfer.setData("text/plain", "pallet");
const event = new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true});
return document.querySelector(".question textarea").dispatchEvent(event);
"""


@pytest.fixture
def own(tmp_path):
    """A picture and its depth, as (name, content in base64)."""
    for name, mode in (("mine.png", "RGB"), ("mine_depth.png", "L")):
        Image.new(mode, (120, 90), (90, 30, 30) if mode == "RGB" else 90).save(tmp_path / name)
    names = "mine.png", "mine_depth.png"
    return [(name, base64.b64encode((tmp_path / name).read_bytes()).decode()) for name in names]


def test_a_picture_and_its_depth_are_dropped_on_the_page(page, own):
    size = page.drawn().shape
    for file in own:
        assert page.browser.execute_async_script(DROP, [file]) is False, "the browser would open it itself"
        page.wait(lambda: page.drawn().shape != size)
    page.wait(lambda: page.one("figure").is_displayed())


def test_a_picture_and_its_depth_are_dropped_at_once_in_any_order(page, own):
    size = page.drawn().shape
    page.browser.execute_async_script(DROP, own[::-1])
    page.wait(lambda: page.drawn().shape != size and page.one("figure").is_displayed())
    assert page.texts(".notice") == [""] * 2


def test_a_text_is_dropped_into_the_question_as_everywhere(page):
    assert page.browser.execute_script(DROP_TEXT), "the browser is kept from it"


def test_a_corner_waits_on_no_other_picture(empty, tmp_path):
    empty.at(0.1, 0.2).click().perform()
    empty.wait(lambda: empty.browser.find_elements(By.CSS_SELECTOR, ".drawn.corners"))
    size = empty.drawn().shape
    for name in ("first", "second"):  # of the same mode, which is changed by the first one
        Image.new("RGB", (120, 90 if name == "first" else 60)).save(tmp_path / f"{name}.png")
        empty.upload("picture", tmp_path / f"{name}.png")
        empty.wait(lambda: empty.drawn().shape != size)
        size = empty.drawn().shape
        empty.wait(lambda: not empty.browser.find_elements(By.CSS_SELECTOR, ".drawn"))
        empty.at(0.1, 0.2).click().perform()
        empty.wait(lambda: empty.browser.find_elements(By.CSS_SELECTOR, ".drawn.corners"))


def test_what_was_said_of_a_file_is_gone_while_the_next_is_sent(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    page.upload("picture", tmp_path / "notes.txt")
    assert page.warning() == "picture notes.txt is not a picture file"
    size = page.drawn().shape
    pixels = np.random.default_rng(5).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 50_000}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    try:
        page.upload("picture", tmp_path / "large.png")
        page.wait(lambda: page.texts(".notice") == [""] * 2)
        assert page.drawn().shape == size, "it is not there yet"
    finally:
        page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    page.wait(lambda: page.drawn().shape != size)


def test_what_is_copied_asks_a_server_the_same(empty, page_data):
    known = read_warehouse(page_data, "val")[0]
    draw_box(empty, 0.1, 0.2, 0.3, 0.7, 1)
    empty.write("How wide is [0]?")
    empty.button("Ask").click()
    empty.answer()
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    empty.browser.execute_cdp_cmd("Browser.grantPermissions", grant)

    def copied(form, begins):
        empty.button(form).click()
        read = "navigator.clipboard.readText().then(arguments[0], arguments[0])"
        return empty.wait(lambda: str(text := empty.browser.execute_async_script(read)).startswith(begins) and text)

    body = json.loads(copied("JSON", "{"))
    (region,) = body["regions"]
    (mask,) = marked = [RLE(*region["size"], region["counts"].encode())]
    drawn = box_mask(np.array((0.1, 0.2, 0.3, 0.7)) * (320, 180, 320, 180), 180, 320)
    assert (decode(mask) != drawn).mean() < 0.01
    assert body == chat_body("small", known.image, known.depth, "How wide is <mask>?", marked, NEW_TOKENS)
    assert copied("Python", "import") == as_python(body)
    assert copied("curl", "curl") == as_curl(body)


def test_the_marked_picture_is_downloaded_as_large_as_it_is(empty, page_data, tmp_path):
    known = read_warehouse(page_data, "val")[0]
    draw_box(empty, 0.25, 0.2, 0.5, 0.7, 1)
    how = {"behavior": "allow", "downloadPath": str(tmp_path)}
    empty.browser.execute_cdp_cmd("Browser.setDownloadBehavior", how)
    empty.button("Download").click()
    empty.wait(lambda: (tmp_path / "marked.png").exists())
    found = np.asarray(Image.open(tmp_path / "marked.png"), int)
    assert found.shape == (180, 320, 3)
    masks = [encode(box_mask(np.array((0.25, 0.2, 0.5, 0.7)) * (320, 180, 320, 180), 180, 320))]
    expected = np.asarray(draw_marks(known.image, masks), int)
    plain = np.asarray(Image.open(known.image).convert("RGB"), int)
    changed = (expected != plain).any(axis=-1).mean()
    assert changed > 0.01 and (found != expected).any(axis=-1).mean() < changed


def test_strokes_of_the_brush_are_one_region_until_a_click_beside_it(empty, tmp_path):
    plain = empty.drawn()
    empty.button("Paint").click()
    empty.wait(lambda: empty.texts(".hint")[0].startswith("Paint over"))
    empty.at(0.1, 0.3).click_and_hold().perform()
    empty.at(0.3, 0.3).release().perform()
    empty.shown_regions(1)
    empty.wait(lambda: np.abs(empty.drawn() - plain).max() > 30)
    first = (np.abs(empty.drawn() - plain).max(axis=-1) > 30).sum()
    empty.at(0.1, 0.5).click_and_hold().perform()
    empty.at(0.3, 0.5).release().perform()
    empty.wait(lambda: (np.abs(empty.drawn() - plain).max(axis=-1) > 30).sum() > 1.7 * first)
    empty.shown_regions(1)
    empty.browser.save_screenshot(str(tmp_path / "painted.png"))
    empty.at(0.7, 0.9).click().perform()
    empty.wait(lambda: not empty.one(".selected").is_displayed())
    empty.at(0.6, 0.3).click_and_hold().perform()
    empty.at(0.8, 0.3).release().perform()
    empty.shown_regions(2)
    empty.at(0.2, 0.3).click().perform()
    empty.wait(lambda: empty.one(".region-name input").get_attribute("aria-label") == "Name of region 0")
    empty.click(".selected .q-btn")
    empty.shown_regions(1)
    empty.button("Undo").click()
    empty.shown_regions(2)


def test_a_click_selects_a_box_and_is_no_corner(empty):
    draw_box(empty, 0.1, 0.2, 0.4, 0.7, 1)
    draw_box(empty, 0.6, 0.2, 0.9, 0.7, 2)
    empty.at(0.25, 0.5).click().perform()
    empty.wait(lambda: empty.one(".region-name input").get_attribute("aria-label") == "Name of region 0")
    empty.wait(lambda: not empty.browser.find_elements(By.CSS_SELECTOR, ".drawn"))


def test_the_depth_is_shown_over_the_picture(empty, page_data):
    known = read_warehouse(page_data, "val")[0]
    with Image.open(known.depth) as file:
        depth = file.convert("RGB")

    def is_depth():
        shown = empty.drawn()
        return np.abs(shown - np.asarray(depth.resize(shown.shape[1::-1]), int)).mean() < 4

    assert not is_depth()
    empty.click("figcaption .q-toggle")
    empty.wait(is_depth)
    empty.click("figcaption .q-toggle")
    empty.wait(lambda: not is_depth())


def test_everything_is_reached_and_done_by_keys(empty):
    browser = empty.browser

    def focused(script="return document.activeElement"):
        return browser.execute_script(script)

    empty.one(".shown").send_keys(*[Keys.LEFT] * 9, *[Keys.UP] * 9, Keys.ENTER)
    empty.wait(lambda: empty.browser.find_elements(By.CSS_SELECTOR, ".drawn.corners"))
    empty.one(".shown").send_keys(Keys.ESCAPE)
    empty.wait(lambda: not empty.browser.find_elements(By.CSS_SELECTOR, ".drawn.corners"))
    empty.one(".shown").send_keys(Keys.ENTER, *[Keys.RIGHT] * 12, *[Keys.DOWN] * 12, Keys.ENTER)
    empty.shown_regions(1)
    border = """[[null, 'outline'], ['::after', 'borderTop']].some(([part, line]) => {
        const style = getComputedStyle(e, part);
        return style[`${line}Style`] === 'solid' && parseFloat(style[`${line}Width`]) >= 2;
    })"""
    is_seen = f"const e = document.activeElement; return e.matches('input, textarea') || {border}"
    assert focused(is_seen)
    seen = set()
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        name = focused(
            "const e = document.activeElement; "
            "return e.getAttribute('aria-label') || e.textContent.trim() || e.getAttribute('role') || e.tagName"
        )
        seen.add(name)
        assert focused(is_seen), name
        if "Ask" in name:
            break
    reached = " | ".join(seen)
    for name in (
        "Region 0",
        "Name of region 0",
        "Delete",
        "Paint",
        "Undo",
        "Clear",
        "Tighten",
        "Download",
        "Depth over",
        "Ask",
    ):
        assert name in reached, (name, reached)
    empty.write("How wide is [0]?" + Keys.ENTER)
    assert empty.answer()
    assert empty.one(".question textarea").get_property("value") == "How wide is [0]?"
    empty.one(".shown").send_keys(Keys.DELETE)
    empty.shown_regions(0)
    empty.one(".shown").send_keys(Keys.CONTROL, "z", Keys.NULL)
    empty.shown_regions(1)


def test_a_page_whose_connection_was_cut_for_a_while_goes_on(browser, address):
    way = Connection(urlsplit(address).port)
    try:
        browser.get(way.url)
        page = Page(browser)
        page.wait(lambda: page.one(".shown img").get_property("naturalWidth"))
        page.button("Draw boxes").click()
        page.button("Clear").click()
        page.shown_regions(0)
        for number in range(3):  # more than the page has when it is opened
            draw_box(page, 0.1 + 0.2 * number, 0.2, 0.2 + 0.2 * number, 0.7, number + 1)
        way.cut()
        time.sleep(6)  # as long as someone looks for a photo, and longer than NiceGUI waits by itself
        way.mend()
        page.wait(lambda: not browser.execute_script("return document.querySelector('#popup')?.ariaHidden === 'false'"))
        draw_box(page, 0.7, 0.2, 0.9, 0.7, 4)
    finally:
        way.close()


def test_nothing_is_left_on_disk_when_a_person_has_gone(page, page_folder, tmp_path):
    pixels = np.random.default_rng(5).integers(0, 256, (900, 1600, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > 2**21
    page.upload("picture", tmp_path / "large.png")
    page.wait(lambda: page.one(".shown img").get_property("naturalWidth") == 1280)
    page.browser.get("about:blank")
    time.sleep(1)
    assert not [file for file in page_folder.rglob("*") if file.is_file() and file.name != "stderr"]


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory, small_checkpoint):
    """The small model with other weights."""
    import jax

    from smolrgpt_jax.checkpoint import orbax as checkpoints
    from smolrgpt_jax.checkpoint.load import tokenizer_files

    model = load(small_checkpoint)
    keys = iter(jax.random.split(jax.random.key(7), len(model.params)))
    params = {name: jax.random.permutation(next(keys), array) for name, array in model.params.items()}
    path = tmp_path_factory.mktemp("checkpoints") / "other"
    checkpoints.save(path, params, checkpoints.Meta(model.config, tokenizer_files(model.tokenizer)))
    return path


def test_two_models_answer_side_by_side_and_boxes_are_tightened_and_depth_estimated(
    browser, small_checkpoint, other_checkpoint, tiny_depth_model, tmp_path
):
    pytest.importorskip("cv2")
    rows, columns = np.mgrid[:180, :320]
    disc = (rows - 90) ** 2 + (columns - 160) ** 2 < 40**2
    Image.fromarray(np.where(disc[..., None], (200, 60, 50), (110, 115, 120)).astype(np.uint8)).save(
        tmp_path / "disc.png"
    )
    options = ["--checkpoint", small_checkpoint, "--second", other_checkpoint, "--depth_model", tiny_depth_model]
    with served_page(tmp_path, *options) as address:
        browser.get(address)
        page = Page(browser)
        page.wait(lambda: page.one(".empty").is_displayed())
        page.upload("picture", tmp_path / "disc.png")
        page.wait(lambda: page.one(".shown img").get_property("naturalWidth"))
        page.button("Estimate depth").click()
        page.wait(lambda: page.one("figure").is_displayed())
        draw_box(page, 0.37, 0.26, 0.63, 0.74, 1)
        page.click(".chips .q-chip")
        page.button("Tighten").click()
        page.wait(lambda: not page.button("Tighten").is_displayed())
        page.write("How wide is [0]?")
        page.button("Ask").click()
        page.wait(lambda: len(page.texts(".values dt")) > 1)
        page.answer()
        browser.save_screenshot(str(tmp_path / "two.png"))
        assert page.texts(".model") == [str(small_checkpoint), str(other_checkpoint)]
        shown = page.texts(".answers .text")
        left, right = (element.rect for element in browser.find_elements(By.CSS_SELECTOR, ".answers > div"))
        assert left["y"] == right["y"] and left["x"] < right["x"]
        assert len(shown) == 2 and shown[0] != shown[1]
