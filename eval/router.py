"""The published pipeline's router: which category a question or an answer belongs to, by a Longformer classifier.

    python -m eval.router --router DIR --data FILE.json [--examples 5] [--out FILE.json]

The command compares the router with the rules of eval.reading.rules on the file's questions. The published pipeline routes with two of
these, one for questions and one for answers; `launch.train_router` trains both kinds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from eval.reading.rules import Answer, normalized_answer, question_category
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import write_text
from smolrgpt_jax.router.hf_folder import read_longformer
from smolrgpt_jax.router.longformer import LongformerConfig, bind
from smolrgpt_jax.router.texts import (
    KIND_FIELD,
    TOKENIZER_FILE,
    RouterText,
    RouterTokenizer,
    pad_rows,
    padded_length,
    read_router_texts,
    read_tokenizer_files,
)

BATCH = 32  # texts


class Router:
    """Texts to categories.

    kind: "question" or "answer", the texts it was trained on, "" if nobody said; truncated: number of texts so far that were
    longer than the model's positions and were cut.
    """

    def __init__(
        self,
        config: LongformerConfig,
        params: Mapping[str, Any],
        tokenizer: RouterTokenizer,
        kind: str = "",
        batch: int = BATCH,
    ):
        self.config, self.kind, self.truncated = config, kind, 0
        self._params, self._tokenizer, self._batch = jax.device_put(dict(params)), tokenizer, batch
        self._forward = jax.jit(lambda p, tokens, mask: bind(config, p)(tokens, mask)["logits"])

    def logits(self, texts: Sequence[str], *, progress: bool = False) -> np.ndarray:
        """float32[len(texts), labels]. Texts are taken in the order of their lengths, so that little is padded."""
        rows, truncated = self._tokenizer.encode(texts)
        self.truncated += truncated
        lengths = [padded_length(len(row), self.config.longest) for row in rows]
        result = np.empty((len(rows), len(self.config.labels)), np.float32)
        bar = tqdm(total=len(rows), desc="router", unit=" texts", disable=not progress)
        for length in sorted(set(lengths)):
            members = [i for i, own in enumerate(lengths) if own == length]
            for begin in range(0, len(members), self._batch):
                chosen = members[begin : begin + self._batch]
                # Rows of padding fill the last batch, so that every batch of a length has one shape.
                filled = [rows[i] for i in chosen] + [[]] * (self._batch - len(chosen))
                logits = self._forward(self._params, *pad_rows(filled, length, self.config.pad_id))
                result[chosen] = np.asarray(logits)[: len(chosen)]
                bar.update(len(chosen))
        bar.close()
        return result

    def categories(self, texts: Sequence[str], *, progress: bool = False) -> list[str]:
        """The category of each text."""
        return [self.config.labels[i] for i in np.argmax(self.logits(texts, progress=progress), axis=-1)]


def load_router(folder: str | Path) -> Router:
    """Loads a router from a Hugging Face folder of LongformerForSequenceClassification with its tokenizer.json.

    Raises CheckpointError for a folder that holds no such model, DataError for its tokenizer, and for labels that are not the
    benchmark's categories.
    """
    folder = Path(folder)
    found = read_longformer(folder)
    if not set(found.config.labels) <= set(WAREHOUSE_CATEGORIES):
        raise DataError(
            f"{folder}: the labels are {', '.join(found.config.labels)}, expected some of {', '.join(WAREHOUSE_CATEGORIES)}"
        )
    text = read_tokenizer_files(folder)[TOKENIZER_FILE]
    try:
        tokenizer = RouterTokenizer.for_model(text, found.config)
        return Router(found.config, found.params, tokenizer, str(found.values.get(KIND_FIELD, "")))
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error


def routed_answer(question_type: str, answer_type: str, question: str, answer: str) -> Answer:
    """The normalised answer where both routers agree; else, as in the published pipeline, "left" or 1 by the question's type.

    Where they agree the rules read the value, in place of the published pipeline's language model.
    """
    if question_type != answer_type:
        return "left" if question_type == "left_right" else 1
    return normalized_answer(question_type, question, answer)


def agreement(texts: Sequence[RouterText], routed: Sequence[str]) -> dict[str, Any]:
    """Compares the router's categories of questions with the rules'.

    Returns `categories`: {the rules' category, "none" where they find none: {"questions", "agree"}}, `all`: the same over all,
    `published`: {"questions", "rules", "router"}: how many of the questions that name a category either gets right, and
    `disagreements`: [{"id", "rules", "router", "question"}] in the order of the texts.
    """
    counts = {name: {"questions": 0, "agree": 0} for name in (*WAREHOUSE_CATEGORIES, "none")}
    published = {"questions": 0, "rules": 0, "router": 0}
    disagreements = []
    for text, category in zip(texts, routed, strict=True):
        rules = question_category(text.text) or "none"
        counts[rules]["questions"] += 1
        counts[rules]["agree"] += category == rules
        if category != rules:
            disagreements.append({"id": text.id, "rules": rules, "router": category, "question": text.text})
        if text.category:
            published["questions"] += 1
            published["rules"] += rules == text.category
            published["router"] += category == text.category
    total = {key: sum(count[key] for count in counts.values()) for key in ("questions", "agree")}
    return {
        "all": total,
        "categories": {name: count for name, count in counts.items() if count["questions"]},
        "published": published,
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
        lines.append(
            f"of {published['questions']} questions with a category the rules find {shares['rules']}, "
            f"the router {shares['router']}"
        )
    for name in found["categories"]:
        for case in [case for case in found["disagreements"] if case["rules"] == name][:examples]:
            lines.append(f"  {case['id']}: rules {name}, router {case['router']}: {case['question']}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.router", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--router", type=Path, required=True, help="folder that launch.train_router wrote")
    parser.add_argument("--data", type=Path, required=True, help="annotation file in the warehouse's format")
    parser.add_argument(
        "--examples", type=int, default=5, help="disagreements shown per category (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="also write the numbers and all disagreements as JSON here")
    arguments = parser.parse_args()
    try:
        router = load_router(arguments.router)
        if router.kind == "answer":
            raise DataError(f"{arguments.router} was trained on answers; the rules classify questions")
        texts = read_router_texts(arguments.data, "question", need_category=False)
        print(f"comparing {arguments.router} with the rules on {len(texts)} questions of {arguments.data}", flush=True)
        found = agreement(texts, router.categories([text.text for text in texts], progress=True))
        if arguments.out is not None:
            write_text(arguments.out, json.dumps({**found, "truncated": router.truncated}, indent=2) + "\n")
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    print(describe_agreement(found, arguments.examples))
    if router.truncated:
        print(f"{router.truncated} questions were longer than {router.config.longest} tokens and were cut")


if __name__ == "__main__":
    main()
