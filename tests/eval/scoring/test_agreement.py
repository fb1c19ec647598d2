from __future__ import annotations

import pytest

from eval.scoring.agreement import EXAMPLES, agreement, cohens_kappa, describe_agreement


def item(name: str, category: str, values: tuple, truth=None, question: str = "Which?") -> dict:
    return {
        "id": name,
        "category": category,
        "question": question,
        "answer": "It is so.",
        "truth": truth,
        "values": dict(zip(("rules", "router", "server"), values)),
    }


def test_shares_of_a_small_example_counted_by_hand():
    items = [
        item("a", "count", (1, 1), 1),
        item("b", "count", (2, 3), 3),
        item("c", "count", (None, None), 3),
        item("d", "distance", (2.0, 2.0004), 2.0),
        item("e", "distance", (2.0, 2.002), 2.0),
    ]
    found = agreement(items)
    assert found["methods"] == ["rules", "router"]
    assert found["all"] == {"questions": 5, "agree": 3, "percent": 60.0}
    (pair,) = found["pairs"]
    assert {name: (row["agree"], row["questions"]) for name, row in pair["categories"].items()} == {
        "count": (2, 3),
        "distance": (1, 2),
    }
    assert [(case["id"], case["rules"], case["router"], case["truth"]) for case in pair["examples"]] == [
        ("b", 2, 3, 3),
        ("e", 2.0, 2.002, 2.0),
    ]
    assert found["scores"]["rules"]["count"] == pytest.approx(100 / 3)
    assert found["scores"]["router"]["count"] == pytest.approx(200 / 3)
    assert found["scores"]["router"]["unreadable"] == 1


def test_kappa_of_the_textbook_example():
    # Of 50 proposals two readers accept 20 and refuse 15 together: kappa 0.4.
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    assert cohens_kappa(pairs) == pytest.approx(0.4)
    assert cohens_kappa([("yes", "yes")] * 3) is None
    assert cohens_kappa([("yes", "no"), ("no", "yes")]) == pytest.approx(-1)


def test_three_methods_have_three_pairs_and_a_share_of_all():
    items = [item("a", "mcq", (1, 1, 2), 1), item("b", "mcq", (1, 1, 1), 1)]
    found = agreement(items)
    assert [pair["methods"] for pair in found["pairs"]] == [
        ["rules", "router"],
        ["rules", "server"],
        ["router", "server"],
    ]
    assert found["all"]["agree"] == 1
    text = " ".join(describe_agreement(found).split())
    assert "rules and router 2 100.00" in text and "all methods 2 50.00" in text
    assert "router 100.00 - - 100.00 - 0 server 50.00 - - 50.00 - 0" in text


def test_without_published_answers_there_are_no_scores_and_categories_are_those_of_the_wording():
    found = agreement([item("a", "", ("left", "right"), question="Is it left or right?")])
    assert "scores" not in found
    assert list(found["pairs"][0]["categories"]) == ["left_right"]
    assert found["pairs"][0]["examples"][0]["category"] == "left_right"
    assert "read by" not in describe_agreement(found)


def test_examples_are_limited_for_each_category():
    items = [item(f"{category}{n}", category, (1, 2)) for category in ("mcq", "count") for n in range(9)]
    examples = agreement(items)["pairs"][0]["examples"]
    assert [case["category"] for case in examples] == ["count"] * EXAMPLES + ["mcq"] * EXAMPLES
