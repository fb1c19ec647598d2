"""The model's parts, as the commands list them."""

from __future__ import annotations

from collections.abc import Iterable

# Part -> start of its parameters' names, first match wins.
PARTS = {
    "vision encoder": "vision_encoder/",
    "RGB connector": "rgb_connector/",
    "depth connector": "depth_connector/",
    "RGB refiner": "rgb_refiner/",
    "depth refiner": "depth_refiner/",
    "decoder embedding": "decoder/token_embedding",
    "decoder blocks": "decoder/blocks/",
    "decoder norm": "decoder/norm/",
    "decoder head": "decoder/head",
}


def part_of(name: str) -> str:
    """The part a parameter belongs to."""
    found = (part for part, start in PARTS.items() if name.startswith(start))
    return next(found, name.split("/")[0].replace("_", " "))


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """Rows as aligned text: the first column to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths))).rstrip()
        for line in lines
    )
