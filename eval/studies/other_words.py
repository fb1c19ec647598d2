"""The procedural warehouse's questions in words that none of its trainings has, from other_words.json: the same masks, the same answers."""

import json
import re
import string
from pathlib import Path
from typing import Any

import numpy as np

from smolrgpt_jax.data.records import IMAGE, MASK
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.warehouse.words.wordings import GROUPS, WORDINGS, alike

OTHER_WORDS: dict[str, list[str]] = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
MASKS = f"{MASK}(?: {MASK})*"


def pattern_of(wording: str) -> re.Pattern[str]:
    """What a wording looks like once its braces are filled; their names are the groups."""
    parts, known = [], set()
    for text, name, *_ in string.Formatter().parse(wording):
        parts.append(re.escape(text))
        if name:
            what = MASKS if name in GROUPS else "[a-z ]+"
            parts.append(f"(?P={name})" if name in known else f"(?P<{name}>{what})")
            known.add(name)
    return re.compile("".join(parts))


PATTERNS = [(pattern_of(w), w, others) for form, others in OTHER_WORDS.items() for w in WORDINGS[form]]


def in_other_words(question: str, rng: np.random.Generator) -> str:
    """A question of the warehouse, worded anew with its masks in the same order; raises DataError for a question of another kind."""
    begin = f"{IMAGE}\n" * question.startswith(IMAGE)
    text = question.removeprefix(begin)
    for pattern, wording, others in PATTERNS:
        if found := pattern.fullmatch(text):
            fitting = alike(wording, others)
            return begin + fitting[rng.integers(len(fitting))].format(**found.groupdict())
    raise DataError(f"{question!r} is not worded as the procedural warehouse asks")


def reworded(records: list[dict[str, Any]], rng: np.random.Generator, *_: Path) -> list[dict[str, Any]]:
    """Records in the published layout with their questions in other words."""
    changed = []
    for record in records:
        asked, *others = record["conversations"]
        changed.append({**record, "conversations": [{**asked, "value": in_other_words(asked["value"], rng)}, *others]})
    return changed
