"""The page of a data check in a real browser: that it fits a phone and needs nothing but itself."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from selenium.webdriver.common.by import By

from launch import check_data

pytestmark = pytest.mark.slow


@pytest.fixture
def page(browser, warehouse, tmp_path):
    """About pictures of one colour with depth that is the same everywhere, and one that is cut short."""
    picture = next((warehouse / "train/images").iterdir())
    Image.effect_noise((96, 60), 60).convert("RGB").save(picture)
    picture.write_bytes(picture.read_bytes()[:3000])
    file = tmp_path / "check.html"
    with pytest.raises(SystemExit):
        check_data.main([str(warehouse), "--out", str(file)])
    browser.get("about:blank")  # another test's page may still ask its server for news
    for kind in ("performance", "browser"):
        browser.get_log(kind)  # of the tests before
    browser.get(file.as_uri())
    return browser


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.execute_script("document.querySelectorAll('details').forEach(found => { found.open = true })")
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_shows_problems_before_notes_and_needs_no_other_file(page, tmp_path):
    cards = page.find_elements(By.CSS_SELECTOR, ".problem")
    marks = ["wrong" in card.get_attribute("class").split() for card in cards]
    assert marks == sorted(marks, reverse=True) and marks.count(True) >= 3
    value = page.find_element(By.CSS_SELECTOR, ".hero .value")
    assert value.text == str(marks.count(True))
    page.find_element(By.CSS_SELECTOR, ".entry img").click()
    assert page.find_element(By.TAG_NAME, "dialog").is_displayed()
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    own = (tmp_path / "check.html").as_uri()
    assert own in asked and all(url == own or url.startswith("data:") for url in asked)
    assert page.get_log("browser") == []
