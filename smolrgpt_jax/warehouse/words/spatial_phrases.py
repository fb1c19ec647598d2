"""Wordings of questions in the manner of SpatialRGPT-Bench: the same categories and the same kind of
sentences, so that what answers one can be asked the other.

{a} and {b} are the regions asked about; {x} is the one that is chosen, or a length with its unit.
"""

from __future__ import annotations

# Predicate -> (wordings of the question, answers that agree, answers that disagree).
PREDICATES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "left": (
        ("Is {a} to the left of {b} from the viewer's perspective?", "Can {a} be found left of {b}?"),
        ("Yes, {a} is to the left of {b}.", "Indeed, {a} is positioned left of {b}."),
        ("No, {a} is to the right of {b}.", "In fact, {a} is to the right of {b}."),
    ),
    "right": (
        ("Is {a} to the right of {b} from the viewer's perspective?", "Can {a} be found right of {b}?"),
        ("Yes, {a} is to the right of {b}.", "Indeed, {a} is positioned right of {b}."),
        ("No, {a} is to the left of {b}.", "In fact, {a} is to the left of {b}."),
    ),
    "above": (
        ("Is {a} higher up than {b}?", "Does {a} have a higher position than {b}?"),
        ("Yes, {a} is above {b}.", "Indeed, {a} is higher than {b}."),
        ("No, {a} is below {b}.", "In fact, {a} is lower than {b}."),
    ),
    "below": (
        ("Is {a} lower down than {b}?", "Does {a} have a lower position than {b}?"),
        ("Yes, {a} is below {b}.", "Indeed, {a} is lower than {b}."),
        ("No, {a} is above {b}.", "In fact, {a} is higher than {b}."),
    ),
    "big": (
        ("Is {a} bigger than {b}?", "Would you say that {a} is larger in size than {b}?"),
        ("Yes, {a} is bigger than {b}.", "Indeed, {a} has a larger size than {b}."),
        ("No, {a} is not bigger than {b}.", "In fact, {a} is smaller than {b}."),
    ),
    "small": (
        ("Is {a} smaller than {b}?", "Would you say that {a} is smaller in size than {b}?"),
        ("Yes, {a} is smaller than {b}.", "Indeed, {a} has a smaller size than {b}."),
        ("No, {a} is not smaller than {b}.", "In fact, {a} is bigger than {b}."),
    ),
    "tall": (
        ("Is {a} taller than {b}?", "Does {a} reach a greater height than {b}?"),
        ("Yes, {a} is taller than {b}.", "Indeed, {a} has more height than {b}."),
        ("No, {a} is not taller than {b}.", "In fact, {a} is shorter than {b}."),
    ),
    "short": (
        ("Is {a} shorter than {b}?", "Does {a} have less height than {b}?"),
        ("Yes, {a} is shorter than {b}.", "Indeed, {a} is not as tall as {b}."),
        ("No, {a} is not shorter than {b}.", "In fact, {a} is taller than {b}."),
    ),
    "wide": (
        ("Is {a} wider than {b}?", "Does {a} have a greater width than {b}?"),
        ("Yes, {a} is wider than {b}.", "Indeed, {a} has a greater width than {b}."),
        ("No, {a} is not wider than {b}.", "In fact, {a} is thinner than {b}."),
    ),
    "thin": (
        ("Is {a} thinner than {b}?", "Does {a} have a smaller width than {b}?"),
        ("Yes, {a} is thinner than {b}.", "Indeed, {a} is not as wide as {b}."),
        ("No, {a} is not thinner than {b}.", "In fact, {a} is wider than {b}."),
    ),
    "behind": (
        ("Is {a} behind {b}?", "Does {a} stand farther back than {b}?"),
        ("Yes, {a} is behind {b}.", "Indeed, it is behind {b}."),
        ("No, {a} is in front of {b}.", "In fact, it is in front of {b}."),
    ),
    "front": (
        ("Is {a} in front of {b}?", "Does {a} stand nearer to the viewer than {b}?"),
        ("Yes, {a} is in front of {b}.", "Indeed, it is in front of {b}."),
        ("No, {a} is behind {b}.", "In fact, it is behind {b}."),
    ),
}
# Choice -> (wordings of the question, answers).
CHOICES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "left": (
        ("Which one is farther to the left, {a} or {b}?", "Of {a} and {b}, which appears more to the left?"),
        ("{x} is more to the left.", "Farther to the left is {x}."),
    ),
    "right": (
        ("Which one is farther to the right, {a} or {b}?", "Of {a} and {b}, which appears more to the right?"),
        ("{x} is more to the right.", "Farther to the right is {x}."),
    ),
    "above": (
        ("Which one is higher up, {a} or {b}?", "Of {a} and {b}, which is above the other?"),
        ("{x} is above.", "Higher up is {x}."),
    ),
    "below": (
        ("Which one is lower down, {a} or {b}?", "Of {a} and {b}, which is below the other?"),
        ("{x} is below.", "Lower down is {x}."),
    ),
    "tall": (
        ("Which one is taller, {a} or {b}?", "Of {a} and {b}, which has more height?"),
        ("{x} is taller.", "The taller one is {x}."),
    ),
    "short": (
        ("Which one is shorter, {a} or {b}?", "Of {a} and {b}, which has less height?"),
        ("{x} is shorter.", "The shorter one is {x}."),
    ),
}
# Category -> (wordings of the question, answers).
LENGTHS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "width_data": (
        ("How wide is {a}?", "What is the width of {a}?", "Tell me the horizontal size of {a}."),
        ("{a} is {x} wide.", "The width of {a} is {x}.", "{a} is {x} in width."),
    ),
    "height_data": (
        ("How tall is {a}?", "What is the height of {a}?", "Tell me the vertical size of {a}."),
        ("{a} is {x} tall.", "The height of {a} is {x}.", "{a} is {x} in height."),
    ),
    "distance_data": (
        ("How far is {a} from {b}?", "What is the distance between {a} and {b}?"),
        ("{a} is {x} from {b}.", "{a} and {b} are {x} apart."),
    ),
    "horizontal_distance_data": (
        ("How far apart are {a} and {b} horizontally?", "What is the horizontal distance from {a} to {b}?"),
        ("Horizontally, {a} is {x} from {b}.", "{a} and {b} are {x} apart horizontally."),
    ),
    "vertical_distance_data": (
        ("How far apart are {a} and {b} vertically?", "What is the vertical distance from {a} to {b}?"),
        ("Vertically, {a} is {x} from {b}.", "{a} and {b} are {x} apart vertically."),
    ),
}
DIRECTION = (
    ("If you stand at {a}, in which direction is {b}?", "Standing at {a}, where do you find {b}?"),
    ("{b} is at about {x} o'clock from {a}.", "From {a}, {b} is found at the {x} o'clock direction."),
)
# Unit -> its length in metres.
UNITS = {"meters": 1.0, "centimeters": 0.01, "feet": 0.3048, "inches": 0.0254}
