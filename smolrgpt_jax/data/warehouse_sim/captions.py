"""Captions that teach a model from scratch to see: what is in the picture, and what, where and which the marked regions are.

Places in the picture are percent of its width and height, 0 to 99; places on the floor are metres from the point below the
camera, ahead along its heading and to the left or right of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smolrgpt_jax.data.warehouse_sim.questions import MASK, NUMBER_WORDS, SIDE_MARGIN
from smolrgpt_jax.data.warehouse_sim.view import Region, floor_distance, is_inside


@dataclass(frozen=True)
class Caption:
    prompt: str
    text: str
    regions: tuple[Region, ...] = ()


def place(region: Region) -> str:
    return f"({min(int(region.u * 100), 99)}, {min(int(region.v * 100), 99)})"


def name(region: Region) -> str:
    """A pallet, buffer region or shelf; a transporter with its state."""
    if region.kind == "transporter":
        return "loaded transporter" if region.thing.carrying else "empty transporter"
    return "buffer region" if region.kind == "buffer" else region.kind


def on_floor(region: Region) -> str:
    side = "right" if region.right >= 0 else "left"
    return f"{region.ahead:.1f} meters ahead and {abs(region.right):.1f} meters {side}"


def scene_caption(regions: list[Region], rng: np.random.Generator) -> Caption:
    """What stands in the picture, from left to right or by kind, without marked regions."""
    prompt = ("Describe the warehouse.", "What does the picture show?", "Describe the picture.")[rng.integers(3)]
    counts = []
    for kind, singular, plural in (
        ("buffer", "buffer region", "buffer regions"),
        ("pallet", "pallet", "pallets"),
        ("transporter", "transporter", "transporters"),
        ("shelf", "shelf", "shelves"),
    ):
        count = sum(r.kind == kind for r in regions)
        if count:
            counts.append(f"{NUMBER_WORDS[count] if count < len(NUMBER_WORDS) else count} {singular if count == 1 else plural}")
    text = "A warehouse with " + (", ".join(counts) or "an empty floor") + "."
    order = sorted(regions, key=lambda r: r.u)
    shown = order if len(order) <= 6 else [order[i] for i in sorted(rng.choice(len(order), 6, replace=False))]
    return Caption(prompt, text + "".join(f" {name(r).capitalize()} at {place(r)}." for r in shown))


class Captioner:
    """Captions with marked regions for one scene; all choices come from the generator passed."""

    KINDS = ("single", "several", "which", "order", "pair", "extreme", "inside", "empty")

    def __init__(self, regions: list[Region], rng: np.random.Generator):
        self.regions, self.rng = regions, rng

    def some(self, least: int, most: int, kind: str | None = None) -> list[Region] | None:
        pool = [r for r in self.regions if kind is None or r.kind == kind]
        most = min(most, len(pool))
        if most < least:
            return None
        count = int(self.rng.integers(least, most + 1))
        return [pool[i] for i in self.rng.permutation(len(pool))[:count]]

    def make(self, kind: str) -> Caption | None:
        return getattr(self, f"_{kind}")()

    def _single(self) -> Caption | None:
        chosen = self.some(1, 1)
        return chosen and Caption(f"What is {MASK}?", f"[Region 0] is a {name(chosen[0])} at {place(chosen[0])}, {on_floor(chosen[0])}.", tuple(chosen))

    def _several(self) -> Caption | None:
        chosen = self.some(2, 5)
        if chosen is None:
            return None
        text = " ".join(f"[Region {i}] is a {name(r)} at {place(r)}." for i, r in enumerate(chosen))
        return Caption(f"What are {_masks(chosen)}?", text, tuple(chosen))

    def _which(self) -> Caption | None:
        chosen = self.some(2, 8)
        if chosen is None:
            return None
        answer = int(self.rng.integers(len(chosen)))
        return Caption(f"Which of {_masks(chosen)} is at {place(chosen[answer])}?", f"[Region {answer}] is at {place(chosen[answer])}.", tuple(chosen))

    def _order(self) -> Caption | None:
        chosen = self.some(2, 4)
        if chosen is None:
            return None
        order = sorted(range(len(chosen)), key=lambda i: chosen[i].u)
        if any(chosen[b].u - chosen[a].u < SIDE_MARGIN for a, b in zip(order, order[1:])):
            return None
        text = " ".join(f"[Region {i}]" for i in order)
        return Caption(f"Order {_masks(chosen)} from left to right.", f"From left to right: {text}.", tuple(chosen))

    def _extreme(self) -> Caption | None:
        chosen = self.some(2, 8, kind=("pallet", None)[self.rng.integers(2)])
        if chosen is None:
            return None
        word, key = (("leftmost", lambda r: r.u), ("rightmost", lambda r: -r.u), ("nearest", lambda r: r.ahead / 20), ("farthest", lambda r: -r.ahead / 20))[
            self.rng.integers(4)
        ]
        order = sorted(range(len(chosen)), key=lambda i: key(chosen[i]))
        if key(chosen[order[1]]) - key(chosen[order[0]]) < SIDE_MARGIN:
            return None
        best = order[0]
        return Caption(f"Which of {_masks(chosen)} is the {word}?", f"[Region {best}] at {place(chosen[best])} is the {word}.", tuple(chosen))

    def _pair(self) -> Caption | None:
        chosen = self.some(2, 2)
        if chosen is None:
            return None
        a, b = chosen
        right, ahead = b.right - a.right, b.ahead - a.ahead
        across = f"{abs(right):.1f} meters {'right' if right >= 0 else 'left'}"
        along = f"{abs(ahead):.1f} meters {'behind' if ahead >= 0 else 'in front'}"
        text = f"[Region 1] is {across} and {along} of [Region 0]. The distance is {floor_distance(a.thing, b.thing):.2f} meters."
        return Caption(f"Seen from {MASK}, where is {MASK}?", text, tuple(chosen))

    def _inside(self) -> Caption | None:
        buffers, pallets = self.some(1, 1, "buffer"), self.some(2, 6, "pallet")
        if buffers is None or pallets is None:
            return None
        inside = [i + 1 for i, r in enumerate(pallets) if is_inside(r.thing.position, buffers[0].thing)]
        listed = " ".join(f"[Region {i}]" for i in inside)
        text = f"{listed} {'is' if len(inside) == 1 else 'are'} inside." if inside else "No pallet is inside."
        return Caption(f"Inside the buffer region {MASK}, which of the pallets {_masks(pallets)} stand?", text, (*buffers, *pallets))

    def _empty(self) -> Caption | None:
        chosen = self.some(2, 3, "transporter")
        if chosen is None:
            return None
        empty = [i for i, r in enumerate(chosen) if not r.thing.carrying]
        text = f"The transporter [Region {empty[0]}] is empty." if empty else "No transporter is empty."
        return Caption(f"Which transporter of {_masks(chosen)} is empty?", text, tuple(chosen))


def _masks(regions: list[Region]) -> str:
    return " ".join([MASK] * len(regions))
