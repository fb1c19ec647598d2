"""The published pipeline's reading: Longformer classifiers say which kind of value an answer holds, rules read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from eval.reading.rules import Answer, normalized_answer, parse_normalized
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.router.classify import load_router


def routed_answer(question_type: str, answer_type: str, question: str, answer: str) -> Answer:
    """The normalised answer where both routers agree; else, as in the published pipeline, "left" or 1 by the question's type.

    Where they agree the rules read the value, in place of the published pipeline's language model.
    """
    if question_type != answer_type:
        return "left" if question_type == "left_right" else 1
    return normalized_answer(question_type, question, answer)


def router_method(folders: Sequence[Path]) -> Callable[[Sequence[Mapping]], list[Answer]]:
    """A method of `eval.reading.methods`, by one or two folders of `launch.train_router` or Hugging Face.

    The first classifies questions, the second, where there is one, answers, to check their kind against the question's. Published
    categories are taken no notice of, but a value that is none of its question's category is None. Raises ValueError for a folder
    that holds no router, or not the one wanted.
    """
    routers = [load_router(folder) for folder in folders]
    for folder, router, kind in zip(folders, routers, ("question", "answer")):
        if router.kind not in ("", kind):
            raise DataError(f"{folder} is a router of {router.kind}s, expected one of {kind}s")

    def read(items: Sequence[Mapping]) -> list[Answer]:
        texts = [[item[field] for item in items] for field in ("question", "answer")]
        routed = [router.categories(column, progress=True) for router, column in zip(routers, texts, strict=False)]
        values = []
        for item, asked, answered in zip(items, routed[0], routed[-1]):
            value = routed_answer(asked, answered, item["question"], item["answer"])
            values.append(parse_normalized(item["category"], value) if item["category"] else value)
        return values

    return read
