"""Wordings of questions and answers, from wordings.json.

WORDINGS are a selection from the grammar of the published data set (nvidia/PhysicalAI-Spatial-Intelligence-Warehouse, NVIDIA,
CC-BY-4.0), so that what learns here can read it: name -> sentences whose braces are filled with masks, region names and words like
"leftmost". SPATIAL are in the manner of SpatialRGPT-Bench, so that what answers one can be asked the other: category -> "questions"
and "answers" ("yes" and "no" for a predicate) about the regions {a} and {b}; {x} is the one that is chosen, or a length with its unit.
FORMS are the ways to ask of each category of the warehouse, and how often each is drawn.
"""

import json
from pathlib import Path

_FILE = json.loads(Path(__file__).with_name("wordings.json").read_text(encoding="utf-8"))
WORDINGS: dict[str, list[str]] = _FILE["warehouse"]
FORMS: dict[str, dict[str, float]] = _FILE["forms"]
SPATIAL: dict[str, dict[str, list[str]]] = _FILE["spatial"]
