"""Wordings of questions in the manner of SpatialRGPT-Bench: the same categories and the same kind of
sentences, so that what answers one can be asked the other.

{a} and {b} are the regions asked about; {x} is the one that is chosen, or a length with its unit.
"""

from __future__ import annotations

# Predicate -> wordings of the question.
_ASKED = {
    "left": ("Is {a} to the left of {b} from the viewer's perspective?", "Can {a} be found left of {b}?"),
    "right": ("Is {a} to the right of {b} from the viewer's perspective?", "Can {a} be found right of {b}?"),
    "above": ("Is {a} higher up than {b}?", "Does {a} have a higher position than {b}?"),
    "below": ("Is {a} lower down than {b}?", "Does {a} have a lower position than {b}?"),
    "big": ("Is {a} bigger than {b}?", "Would you say that {a} is larger in size than {b}?"),
    "small": ("Is {a} smaller than {b}?", "Would you say that {a} is smaller in size than {b}?"),
    "tall": ("Is {a} taller than {b}?", "Does {a} reach a greater height than {b}?"),
    "short": ("Is {a} shorter than {b}?", "Does {a} have less height than {b}?"),
    "wide": ("Is {a} wider than {b}?", "Does {a} have a greater width than {b}?"),
    "thin": ("Is {a} thinner than {b}?", "Does {a} have a smaller width than {b}?"),
    "behind": ("Is {a} behind {b}?", "Does {a} stand farther back than {b}?"),
    "front": ("Is {a} in front of {b}?", "Does {a} stand nearer to the viewer than {b}?"),
}
# Predicate -> what follows "Yes, " and "Indeed, " where it holds, and "No, " and "In fact, " where it does not.
_ANSWERED = {
    "left": ("{a} is to the left of", "{a} is positioned left of", "{a} is to the right of", "{a} is to the right of"),
    "right": ("{a} is to the right of", "{a} is positioned right of", "{a} is to the left of", "{a} is to the left of"),
    "above": ("{a} is above", "{a} is higher than", "{a} is below", "{a} is lower than"),
    "below": ("{a} is below", "{a} is lower than", "{a} is above", "{a} is higher than"),
    "big": ("{a} is bigger than", "{a} has a larger size than", "{a} is not bigger than", "{a} is smaller than"),
    "small": ("{a} is smaller than", "{a} has a smaller size than", "{a} is not smaller than", "{a} is bigger than"),
    "tall": ("{a} is taller than", "{a} has more height than", "{a} is not taller than", "{a} is shorter than"),
    "short": ("{a} is shorter than", "{a} is not as tall as", "{a} is not shorter than", "{a} is taller than"),
    "wide": ("{a} is wider than", "{a} has a greater width than", "{a} is not wider than", "{a} is thinner than"),
    "thin": ("{a} is thinner than", "{a} is not as wide as", "{a} is not thinner than", "{a} is wider than"),
    "behind": ("{a} is behind", "it is behind", "{a} is in front of", "it is in front of"),
    "front": ("{a} is in front of", "it is in front of", "{a} is behind", "it is behind"),
}
# Predicate -> (wordings of the question, answers that agree, answers that disagree).
PREDICATES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    name: (
        _ASKED[name],
        (f"Yes, {yes} {{b}}.", f"Indeed, {indeed} {{b}}."),
        (f"No, {no} {{b}}.", f"In fact, {in_fact} {{b}}."),
    )
    for name, (yes, indeed, no, in_fact) in _ANSWERED.items()
}
# Choice -> (wordings of the question, answers).
CHOICES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    name: (
        (f"Which one is {more}, {{a}} or {{b}}?", f"Of {{a}} and {{b}}, which {has_more}?"),
        (f"{{x}} is {is_more}.", f"{start} is {{x}}."),
    )
    for name, more, has_more, is_more, start in (
        ("left", "farther to the left", "appears more to the left", "more to the left", "Farther to the left"),
        ("right", "farther to the right", "appears more to the right", "more to the right", "Farther to the right"),
        ("above", "higher up", "is above the other", "above", "Higher up"),
        ("below", "lower down", "is below the other", "below", "Lower down"),
        ("tall", "taller", "has more height", "taller", "The taller one"),
        ("short", "shorter", "has less height", "shorter", "The shorter one"),
    )
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
