"""The published pipeline's router: which category a question or an answer belongs to, by a Longformer classifier."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eval.command_line import command_line
from eval.reading.rules import question_category
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import DataError, told
from smolrgpt_jax.files import write_text
from smolrgpt_jax.router.classify import RouterText, load_router, read_router_texts


def agreement(texts: Sequence[RouterText], routed: Sequence[str]) -> dict[str, Any]:
    """Compares the router's categories of questions with the rules'.

    Returns `categories`: {the rules' category, "none" where they find none: {"questions", "agree"}}, `all`: the same
    over all, `published`: {"questions", "rules", "router"}: how many of the questions that name a category either gets
    right, and `disagreements`: [{"id", "rules", "router", "question"}] in the order of the texts.
    """
    rules = [question_category(text.text) or "none" for text in texts]
    cases = list(zip(texts, rules, routed, strict=True))

    def count(names: Sequence[str]) -> dict[str, int]:
        agree = [rule == category for _, rule, category in cases if rule in names]
        return {"questions": len(agree), "agree": sum(agree)}

    differing = [case for case in cases if case[1] != case[2]]
    disagreements = [{"id": t.id, "rules": rule, "router": found, "question": t.text} for t, rule, found in differing]
    known = [(text.category == rule, text.category == category) for text, rule, category in cases if text.category]
    return {
        "all": count(rules),
        "categories": {name: count([name]) for name in (*WAREHOUSE_CATEGORIES, "none") if name in rules},
        "published": {"questions": len(known), "rules": sum(a for a, _ in known), "router": sum(b for _, b in known)},
        "disagreements": disagreements,
    }


def describe_agreement(found: Mapping[str, Any], examples: int) -> str:
    """A table for people, with at most so many examples of disagreement per category of the rules."""
    lines = [f"{'rules':12} {'questions':>9} {'agree':>9} {'share':>8}"]
    for name, count in [*found["categories"].items(), ("all", found["all"])]:
        share = 100 * count["agree"] / count["questions"]
        lines.append(f"{name:12} {count['questions']:9} {count['agree']:9} {share:6.2f} %")
    published = found["published"]
    if published["questions"]:
        shares = {who: f"{100 * published[who] / published['questions']:.2f} %" for who in ("rules", "router")}
        both = f"the rules find {shares['rules']}, the router {shares['router']}"
        lines.append(f"of {published['questions']} questions with a category {both}")
    for name in found["categories"]:
        for case in [case for case in found["disagreements"] if case["rules"] == name][:examples]:
            lines.append(f"  {case['id']}: rules {name}, router {case['router']}: {case['question']}")
    return "\n".join(lines)


@told()
def main() -> None:
    arguments = command_line("eval.router", __doc__).parse_args()
    router = load_router(arguments.router)
    if router.kind == "answer":
        raise DataError(f"{arguments.router} was trained on answers; the rules classify questions")
    texts = read_router_texts(arguments.data, "question", need_category=False)
    print(f"comparing {arguments.router} with the rules on {len(texts)} questions of {arguments.data}", flush=True)
    found = agreement(texts, router.categories([text.text for text in texts], progress=True))
    if arguments.out is not None:
        write_text(arguments.out, json.dumps({**found, "truncated": router.truncated}, indent=2) + "\n")
    print(describe_agreement(found, arguments.examples))
    if router.truncated:
        print(f"{router.truncated} questions were longer than {router.config.longest} tokens and were cut")


if __name__ == "__main__":
    main()
