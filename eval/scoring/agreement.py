"""How far methods of reading answers agree on the same questions."""

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from eval.reading.rules import Answer, question_category
from eval.scoring.intervals import cell
from eval.scoring.official import score
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Question

EXAMPLES = 3  # of differences, per pair of methods and category


def agreement(items: Sequence[Mapping]) -> dict:
    """Compares the values of several methods: {method: value} of each item of predictions.json; distances to the millimetre.

    Returns:
      methods: their names; scores: {method: S1, the four categories and unreadable}, absent without truths; all: the
      share of answers on which all methods agree; pairs: [{methods: two names, all: share, categories: {category:
      share}, examples: at most EXAMPLES differences per category}]. A share is {questions, agree, percent, kappa:
      Cohen's, None where chance alone agrees always}; that of all methods has no kappa.
    """
    methods = list(items[0]["values"])
    agreeing = sum(len({_label(item["values"][name]) for name in methods}) == 1 for item in items)
    found = {
        "methods": methods,
        "all": {"questions": len(items), "agree": agreeing, "percent": 100 * agreeing / len(items)},
        "pairs": [_pair(items, *pair) for pair in itertools.combinations(methods, 2)],
    }
    if all(item["truth"] is not None for item in items):
        questions = [Question(i["id"], i["category"], i["question"], None, i["truth"]) for i in items]
        found["scores"] = {}
        for method in methods:
            scored = score(questions, {item["id"]: item["values"][method] for item in items})
            found["scores"][method] = {name: scored[name] for name in ("S1", *WAREHOUSE_CATEGORIES, "unreadable")}
    return found


def _pair(items: Sequence[Mapping], first: str, second: str) -> dict:
    shares, examples = {}, []
    for category in WAREHOUSE_CATEGORIES:
        members = [item for item in items if _category(item) == category]
        if members:
            shares[category] = _share(members, first, second)
        differing = [i for i in members if _label(i["values"][first]) != _label(i["values"][second])]
        fields = ("id", "question", "answer", "truth")
        for item in differing[:EXAMPLES]:
            said = {name: item["values"][name] for name in (first, second)}
            examples.append({**{field: item[field] for field in fields}, "category": category, **said})
    pair = {"methods": [first, second], "all": _share(items, first, second)}
    return pair | {"categories": shares, "examples": examples}


def _category(item: Mapping) -> str | None:
    return item["category"] or question_category(item["question"])


def _share(items: Sequence[Mapping], first: str, second: str) -> dict:
    pairs = [tuple((_category(i), _label(i["values"][name])) for name in (first, second)) for i in items]
    agree = sum(a == b for a, b in pairs)
    return {"questions": len(pairs), "agree": agree, "percent": 100 * agree / len(pairs), "kappa": cohens_kappa(pairs)}


def cohens_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Agreement beyond chance of two raters' labels (Cohen, Educational and Psychological Measurement 20, 1960).

    (observed - expected) / (1 - expected), where "expected" is how often two raters with these two distributions of
    labels agree by chance; None where that is always.
    """
    total = len(pairs)
    first, second = (Counter(labels) for labels in zip(*pairs))
    expected = sum(first[label] * second[label] for label in first) / total**2
    observed = sum(a == b for a, b in pairs) / total
    return None if expected == 1 else (observed - expected) / (1 - expected)


def _label(value: Answer) -> Hashable:
    return round(value, 3) if isinstance(value, float) else value


def describe_agreement(found: Mapping) -> str:
    """A table for people: scores of the methods, and agreement of each pair by category."""
    rows: list[tuple] = []
    if "scores" in found:
        names = ("S1", *WAREHOUSE_CATEGORIES)
        rows.append(("read by", *names, "unreadable"))
        rows += [(method, *(cell(s[name]) for name in names), s["unreadable"]) for method, s in found["scores"].items()]
    rows.append(("agreement", "questions", "equal, %", "kappa"))
    for pair in found["pairs"]:
        shares = {" and ".join(pair["methods"]): pair["all"]}
        shares |= {f"  {category}": share for category, share in pair["categories"].items()}
        rows += [(n, s["questions"], f"{s['percent']:.2f}", cell(s["kappa"], ".3f")) for n, s in shares.items()]
    if len(found["methods"]) > 2:
        rows.append(("all methods", found["all"]["questions"], f"{found['all']['percent']:.2f}"))
    return "\n".join(f"{label:<20}" + "".join(f"{value:>12}" for value in cells) for label, *cells in rows)
