"""The report in a real browser: filters, sizes, and that it needs nothing but itself."""

from __future__ import annotations

import json

import pytest
from selenium.webdriver.common.by import By

from eval.answering.samples import write_samples
from eval.answering.warehouse import list_answers
from eval.reading.methods import RULES, read_values
from eval.report.html import render_leaderboard, write_report
from eval.scoring.results import compute_metrics
from eval.scoring.standings import make_table, question_sets, read_finished
from smolrgpt_jax.data.records import BadRecords
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.files import write_json

pytestmark = pytest.mark.slow


@pytest.fixture
def predictions(warehouse):
    """Every third answer is right."""
    pictures = read_warehouse(warehouse, "val")
    questions = [question for picture in pictures for question in picture.questions]
    answers = ["?" if index % 3 else q.answer for index, q in enumerate(questions)]
    return read_values(list_answers(pictures, answers), RULES)


@pytest.fixture
def report(browser, warehouse, predictions, tmp_path):
    pictures = read_warehouse(warehouse, "val")
    write_report(tmp_path / "report.html", compute_metrics(predictions), predictions, pictures)
    browser.get("about:blank")  # another test's page may still ask its server for news
    for kind in ("performance", "browser"):
        browser.get_log(kind)  # of the tests before
    browser.get((tmp_path / "report.html").as_uri())
    return browser


def shown(report):
    """The file name and category of every entry of the gallery that can be seen."""
    entries = [entry for entry in report.find_elements(By.CLASS_NAME, "entry") if entry.is_displayed()]
    return [
        (entry.find_element(By.CSS_SELECTOR, ".top span").text.split(" · ")[1], entry.get_attribute("data-category"))
        for entry in entries
    ]


def press(report, label):
    report.find_element(By.XPATH, f"//button[text()='{label}']").click()


def test_the_gallery_is_filtered_by_category_verdict_and_words(report, predictions, tmp_path):
    right = {(item["image"], item["category"]) for item in predictions if item["answer"] != "?"}
    everything = {(item["image"], item["category"]) for item in predictions}
    assert set(shown(report)) == everything and len(shown(report)) == len(everything)

    press(report, "Count")
    assert set(shown(report)) == {entry for entry in everything if entry[1] == "count"}
    press(report, "Wrong")
    assert set(shown(report)) == {entry for entry in everything - right if entry[1] == "count"}
    press(report, "All")
    press(report, "Right")
    assert set(shown(report)) == right

    search = report.find_element(By.CSS_SELECTOR, ".filters input")
    search.send_keys("FAR from")
    assert set(shown(report)) == {entry for entry in right if entry[1] == "distance"}
    count = report.find_element(By.CSS_SELECTOR, ".filters output")
    assert count.text == f"{len(shown(report))} of {len(everything)}"
    report.save_screenshot(str(tmp_path / "filtered.png"))
    search.send_keys(" nowhere")
    assert shown(report) == [] and report.find_element(By.ID, "nothing").is_displayed()


def test_samples_are_filtered_without_a_field_for_words(browser, tmp_path):
    shown = {"picture": "data:,", "size": (4, 3), "earlier": [], "prompt": "?"}
    about = {
        "image": "a",
        "regions": 1,
        "answer": "yes",
        "cut_off": False,
        "truth": "yes",
        "right": True,
        "shown": shown,
    }
    samples = [{**about, "category": category} for category in ("count", "mcq")]
    write_samples(tmp_path / "samples", samples, BadRecords(), 0, {"checkpoint": "model", "data": "data"})
    browser.get((tmp_path / "samples/report.html").as_uri())
    press(browser, "Count")
    entries = browser.find_elements(By.CLASS_NAME, "entry")
    assert [entry.is_displayed() for entry in entries] == [True, False]


def test_a_picture_is_enlarged_by_a_click(report):
    dialog = report.find_element(By.TAG_NAME, "dialog")
    picture = report.find_element(By.CSS_SELECTOR, ".entry img")
    assert not dialog.is_displayed()
    report.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    picture.click()
    assert dialog.is_displayed()
    assert dialog.find_element(By.TAG_NAME, "img").get_attribute("src") == picture.get_attribute("src")
    dialog.click()
    assert not dialog.is_displayed()


def check_width(report, width):
    report.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        # Tables behind folded titles are the widest.
        report.execute_script("document.querySelectorAll('details').forEach(found => { found.open = true })")
        assert report.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        report.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_is_wider_than_the_window(report, width):
    check_width(report, width)


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_no_leaderboard_is_wider_than_the_window(browser, predictions, tmp_path, width):
    names = ["a", "a_model_with_a_very_long_name_and_no_space_in_it", *"bcdefg"]
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        known = [
            item if index % (number + 2) else {**item, "normalized_answer": item["truth"]}
            for index, item in enumerate(predictions)
        ]
        write_json(tmp_path / name / "predictions.json", known)
    tables = [make_table(runs) for runs in question_sets(read_finished([tmp_path / name for name in names]))]
    render_leaderboard(tmp_path / "board.html", tables, {"command": f"python -m eval.leaderboard {tmp_path}"})
    browser.get((tmp_path / "board.html").as_uri())
    check_width(browser, width)
    assert len(browser.find_elements(By.CLASS_NAME, "standing")) == len(names)


def test_it_needs_no_other_file_and_says_no_error(report, tmp_path):
    events = [json.loads(entry["message"])["message"] for entry in report.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    own = (tmp_path / "report.html").as_uri()
    assert own in asked and all(url == own or url.startswith("data:") for url in asked)
    assert report.get_log("browser") == []
