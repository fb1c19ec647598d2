from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from eval.answering.warehouse import list_answers
from eval.reading.methods import read_by_rules, read_values
from eval.report.html import GALLERY_PER_CATEGORY, numbered, write_report
from eval.scoring.blind import BlindBaseline, read_training_questions
from eval.scoring.results import compute_metrics
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.data.sources.formats import read_warehouse


class Page(HTMLParser):
    """Collects tags with their attributes and checks that tags are closed in order."""

    VOID = {"meta", "img", "input", "br", "i", "line", "rect", "circle", "path", "polygon", "polyline"}

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def entries(self) -> list[dict]:
        return [attributes for tag, attributes in self.tags if attributes.get("class", "").startswith("entry")]


@pytest.fixture
def evaluated(warehouse):
    pictures = read_warehouse(warehouse, "val")
    answers = [
        (
            "!!!!"
            if index % 9 == 0
            else question.answer
            if index % 3
            else "The pallet [Region 1] is 99 meters to the left. <b>"
        )
        for index, question in enumerate(question for picture in pictures for question in picture.questions)
    ]
    methods = {"rules": read_by_rules, "shy": lambda items: read_by_rules(items)[:-1] + [None]}
    predictions = read_values(list_answers(pictures, answers), methods)
    blind = BlindBaseline(read_training_questions(warehouse / "train.json"))
    return compute_metrics(predictions, blind), predictions, pictures


@pytest.fixture
def html(evaluated, tmp_path):
    curve = tmp_path / "metrics.csv"
    curve.write_text(
        "step,loss,validation_loss,lr_connector\n10,3.5,,0.0001\n20,2.5,2.6,0.00005\n30,nan,,\n", encoding="utf-8"
    )
    odd = tmp_path / "odd.csv"
    odd.write_text("step,other\n1,2\n", encoding="utf-8")
    write_report(
        tmp_path / "report.html",
        *evaluated,
        {"connector alignment": curve, "refiner alignment": tmp_path / "none.csv", "odd": odd},
        {
            "command": "python -m eval.warehouse --split val",
            "checkpoint": "runs/my",
            "seed": 17,
            "config": {"width": 4321},
        },
    )
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_file_needs_nothing_beside_itself(html):
    assert "http:" not in html and "https:" not in html and "url(" not in html and "@import" not in html
    for tag, attributes in Page(html).tags:
        assert tag not in ("link", "iframe", "object")
        for name in ("src", "href", "xlink:href", "data"):
            assert attributes.get(name, "data:").startswith("data:")


def test_scores_stand_beside_the_blind_baseline(html, evaluated):
    metrics = evaluated[0]
    text = re.sub(r"<[^>]*>", " ", html)
    for value in (
        metrics["S1"],
        metrics["blind_S1"],
        *(metrics[c] for c in WAREHOUSE_CATEGORIES),
        *metrics["blind"].values(),
    ):
        assert f"{value:.1f}" in text
    rows = [
        attributes["data-category"]
        for tag, attributes in Page(html).tags
        if tag == "tr" and "data-category" in attributes
    ]
    assert rows == list(WAREHOUSE_CATEGORIES)


def test_the_gallery_shows_every_category_right_and_wrong(html):
    entries = Page(html).entries()
    for category in WAREHOUSE_CATEGORIES:
        shown = [entry for entry in entries if entry["data-category"] == category]
        assert 6 <= len(shown) <= GALLERY_PER_CATEGORY
        assert {entry["data-verdict"] for entry in shown} == {"right", "wrong"}
    pictures = [attributes["src"] for tag, attributes in Page(html).tags if tag == "img" and "src" in attributes]
    assert len(pictures) == len(entries) and all(source.startswith("data:image/jpeg;base64,") for source in pictures)


def test_a_question_shows_its_regions_and_texts_are_escaped(html):
    assert re.search(r'Is the pallet <span class="chip" style="--c:rgb\(\d+,\d+,\d+\)">0</span> to the left', html)
    assert "&lt;b&gt;" in html and "<mask>" not in html and "&lt;mask&gt;" not in html


def test_plots_hold_the_data(html, evaluated):
    readable = [
        item for item in evaluated[1] if item["category"] == "distance" and item["normalized_answer"] is not None
    ]
    page = Page(html)
    assert sum("dot" in attributes.get("class", "").split() for _, attributes in page.tags) == len(readable)
    assert sum(attributes.get("class") == "confusion" for _, attributes in page.tags) == 2
    lines = [
        (tag, attributes["class"]) for tag, attributes in page.tags if attributes.get("class", "").startswith("line")
    ]
    # A line of one point would not be seen.
    assert lines == [("polyline", "line training"), ("circle", "line validation"), ("polyline", "line rate r0")]
    assert "connector alignment" in html and "refiner alignment" not in html


def test_intervals_errors_and_calibration_are_shown(html, evaluated):
    metrics = evaluated[0]
    text = re.sub(r"<[^>]*>", " ", html)
    for low, high in metrics["intervals"].values():
        assert f"{low:.1f} to {high:.1f}" in text
    page = Page(html)
    groups = [group for found in metrics["calibration"].values() for group in found["groups"]]
    circles = [attributes for tag, attributes in page.tags if tag == "circle" and attributes["class"] == "mean"]
    assert len(circles) == len(groups) > 5
    medians = [attributes for _, attributes in page.tags if attributes.get("class") == "median"]
    assert len(medians) == sum(row["readable"] > 0 for row in metrics["distance_errors"])
    # Every mark lies inside its drawing.
    assert all(12 <= float(circle["cy"]) <= 332 and 48 <= float(circle["cx"]) <= 368 for circle in circles)
    assert all(20 <= float(mark["y"]) <= 150 for mark in medians)


def test_how_sure_answers_are_is_drawn_and_listed(evaluated, html, tmp_path):
    _, predictions, pictures = evaluated
    sure = [
        {**item, "confidence": None if item["normalized_answer"] is None else 0.3 + index / 50}
        for index, item in enumerate(predictions)
    ]
    metrics = compute_metrics(sure)
    write_report(tmp_path / "sure.html", metrics, sure, pictures)
    text = (tmp_path / "sure.html").read_text(encoding="utf-8")
    tags = Page(text).tags
    drawing = next(index for index, (_, given) in enumerate(tags) if given.get("class") == "chart reliability")
    circles = [given for tag, given in tags[drawing:] if tag == "circle" and given["class"] == "mean"][:10]
    for circle, part in zip(circles, metrics["confidence"]["all questions"]["bins"], strict=True):
        place = 48 + 3.2 * part["confidence"], 332 - 3.2 * part["accuracy"]
        assert (float(circle["cx"]), float(circle["cy"])) == pytest.approx(place, abs=0.06)
    rows = [given["data-confidence"] for tag, given in tags if "data-confidence" in given]
    assert rows == [*WAREHOUSE_CATEGORIES, "all questions"]
    for found in metrics["confidence"].values():
        assert f'<td class="main">{found["error"]:.1f}</td>' in text
    assert "<dt>confidence</dt><dd>0.32, guessing</dd>" in text
    assert "How sure" not in html and "<dt>confidence</dt>" not in html


def test_templates_are_listed(html, evaluated):
    rows = evaluated[0]["templates"]
    assert len(rows) == 4 and sum(row["questions"] for row in rows) == 28
    for row in rows:
        shown = row["template"].replace("<mask>", "[regions]")
        assert f"<td>{shown}</td><td>{row['questions']}</td><td>{row['correct']}</td>" in html


def test_unreadable_and_ambiguous_answers_are_listed_with_their_reasons(html, evaluated):
    found = evaluated[0]["readability"]
    unreadable = sum(item["normalized_answer"] is None for item in evaluated[1])
    assert sum(row["unreadable"] for row in found.values()) == unreadable > 0
    text = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    assert f"Unreadable and ambiguous answers: {unreadable} and 0 of 28" in text
    for category in WAREHOUSE_CATEGORIES:
        (reason,) = found[category]["reasons"]
        assert f"unreadable: holds no letter or digit {reason['answers']}" in text
    groups = [a["data-readability"] for tag, a in Page(html).tags if "data-readability" in a]
    assert groups == list(WAREHOUSE_CATEGORIES)


def test_the_agreement_of_methods_is_shown(html, evaluated):
    found = evaluated[0]["agreement"]
    (pair,) = found["pairs"]
    differing = sum(item["values"]["rules"] != item["values"]["shy"] for item in evaluated[1])
    assert pair["all"]["agree"] == 28 - differing
    text = " ".join(re.sub(r"<[^>]*>", " ", html).split())
    assert f"rules and shy 28 {pair['all']['percent']:.1f} {pair['all']['kappa']:.2f}" in text
    assert f"shy {found['scores']['shy']['S1']:.1f}" in text
    assert ("Where rules and shy differ" in text) == bool(differing)


def test_the_run_is_described_model_and_command_first(html):
    assert "python -m eval.warehouse --split val" in html and ">17<" in html and "4321" in html
    assert html.index("runs/my") < html.index("eval.warehouse --split val") < html.index("S1, mean of")


def test_every_card_has_a_title_of_its_own_and_the_gallery_says_that_it_is_a_sample(html):
    titles = re.findall("<h3>(.*?)</h3>", html)
    assert len(set(titles)) == len(titles) > 5
    assert f"A sample of {len(Page(html).entries())} of 28 answers" in html


def test_workings_are_folded_and_a_vote_against_the_text_is_told(evaluated, tmp_path):
    metrics, predictions, pictures = evaluated
    item = next(item for item in predictions if item["category"] == "count")
    first = "0 in 1 out. Therefore, there are nine pallets in the buffer area."
    further = [{"answer": "There are two pallets.", "order": [0, 1, 2, 3, 4]}] * 2
    voted = item | {"answer": first, "further": further, "normalized_answer": 2}
    write_report(tmp_path / "report.html", metrics, [voted], pictures)
    text = " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())
    assert '<p class="said ">Therefore, there are nine pallets in the buffer area.</p>' in text
    assert '<details class="workings"><summary>workings</summary>0 in 1 out.</details>' in text
    assert "this text, the first of them, states 9." in text and "<dt>elected</dt><dd>2</dd>" in text


def test_a_report_without_baseline_curves_and_run_is_written(evaluated, tmp_path):
    metrics, predictions, pictures = evaluated
    scores = ("S1", *WAREHOUSE_CATEGORIES, "questions")
    lean = {name: metrics[name] for name in scores}
    write_report(tmp_path / "lean.html", lean, predictions, pictures)
    Page((tmp_path / "lean.html").read_text(encoding="utf-8"))


def test_a_picture_that_cannot_be_drawn_is_left_out(evaluated, tmp_path):
    metrics, predictions, pictures = evaluated
    pictures[0].image.write_bytes(b"no picture")
    write_report(tmp_path / "report.html", metrics, predictions, pictures)
    assert pictures[0].image.name + " with" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_questions_of_no_known_picture_have_no_chart_by_their_regions(evaluated, tmp_path):
    metrics, predictions, _ = evaluated
    write_report(tmp_path / "report.html", metrics, predictions, [])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "right region\u2019s number" in text and "number of regions in the question" not in text


def test_masks_are_named_as_in_the_answers():
    assert numbered("Is <mask> left of <mask>?", "Region ") == "Is [Region 0] left of [Region 1]?"
    assert numbered("<mask> and <mask>") == "[0] and [1]"
