"""Wordings of questions and answers, from wordings.json.

WORDINGS are a selection from the grammar of the published data set (nvidia/PhysicalAI-Spatial-Intelligence-Warehouse, NVIDIA,
CC-BY-4.0), so that what learns here can read it: name -> sentences whose braces are filled with masks, region names and words like
"leftmost". SPATIAL are in the manner of SpatialRGPT-Bench, so that what answers one can be asked the other: category -> "questions"
and "answers" ("yes" and "no" for a predicate) about the regions {a} and {b}; {x} is the one that is chosen, or a length with its unit.
FURTHER are the project's own: name -> more ways to ask what WORDINGS ask under that name, so that a model learns what is asked and
not one set of sentences. FORMS are the ways to ask of each category of the warehouse, and how often each is drawn.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from smolrgpt_jax.data.records import MASK

GROUPS = ("pallets", "buffers", "shelves", "transporters")  # of masks, by the name of their braces
_FILE = json.loads(Path(__file__).with_name("wordings.json").read_text(encoding="utf-8"))
WORDINGS: dict[str, list[str]] = _FILE["warehouse"]
FURTHER: dict[str, list[str]] = _FILE["further"]
FORMS: dict[str, dict[str, float]] = _FILE["forms"]
SPATIAL: dict[str, dict[str, list[str]]] = _FILE["spatial"]


def mask_order(wording: str) -> list[str]:
    """The masks of a wording in their order: names of groups, and "<mask>" for one alone."""
    return re.findall("|".join([MASK, *(f"(?<={{){group}(?=}})" for group in GROUPS)]), wording)


def alike(wording: str, others: Sequence[str]) -> list[str]:
    """Those of the other wordings that name the same masks in the same order."""
    return [other for other in others if mask_order(other) == mask_order(wording)]
