"""A question that was asked on the page, with its answer, which grows while it is written."""

import asyncio
import re
from collections.abc import Generator, Sequence

from markupsafe import Markup, escape
from nicegui import run, ui

from eval.answering.one_picture import Answer
from eval.report.html import CATEGORY_TITLES, chip
from smolrgpt_jax.data.records import MASK
from smolrgpt_jax.data.workings import split_workings

_WAITING = '<span class="wait">{}…</span>'


def notice_label() -> ui.label:
    """A place for one sentence about something that cannot be done; empty, and not there, once its cause is gone."""
    return ui.label().classes("notice").props("role=alert")


class Exchange:
    """The question, the regions it names on their colours, and what was answered; `element` holds all of it."""

    def __init__(self, question: str, regions: Sequence[tuple[int, str]]):
        """Builds it inside the present element.

        question: with a `<mask>` for each of its regions; regions: their numbers, which tell their colours, and what they are called.
        """
        self._regions = regions
        with ui.element("article").classes("exchange") as self.element:
            ui.html(_asked(question, regions), sanitize=False).classes("asked")
            self._text = ui.html(sanitize=False).classes("text")
            self._doubt = notice_label()
            self._values = ui.html(sanitize=False).classes("values")

    async def follow(self, texts: Generator[str, None, Answer], turn: asyncio.Lock) -> Answer | None:
        """Shows the texts as they come and returns the answer that they end with; None if the exchange was removed meanwhile.

        turn: held while the model answers. Raises what the texts raise.
        """
        self._text.set_content(_WAITING.format("getting ready, or busy" if turn.locked() else "reading the picture"))
        async with turn:
            while isinstance(found := await run.io_bound(_next, texts), str):
                if self.element.is_deleted:
                    return None
                self._text.set_content(_shown(found, self._regions, ended=False))
        return None if self.element.is_deleted else found

    def end(self, found: Answer, truth: str | float | None) -> None:
        """Shows the whole answer and the value read from it; truth: of the data set, if it is known."""
        self._text.set_content(_shown(found.text, self._regions))
        self._doubt.set_text(found.notice or "")
        self._values.set_content(_values(found, truth))


def _next(texts: Generator[str, None, Answer]) -> str | Answer:
    """The next text, or the answer that they end with."""
    try:
        return next(texts)
    except StopIteration as end:
        return end.value


def _values(found: Answer, truth: str | float | None) -> Markup:
    """The value read from an answer, the truth unless it is None, and whether the answer ended."""
    pairs = {}
    if found.category is not None:
        unit = " m" if found.category == "distance" else ""
        value = found.normalized_answer
        pairs["read as"] = "unreadable" if value is None else f"{value}{unit}"
        if truth is not None:
            pairs["truth"] = f"{truth}{unit}"
        pairs["kind of question"] = CATEGORY_TITLES[found.category].lower()
    if found.cut_off:
        pairs["longest answer reached"] = "cut off"
    return Markup("").join(Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*pair) for pair in pairs.items())


def _asked(question: str, regions: Sequence[tuple[int, str]]) -> Markup:
    """A question as HTML, its regions on their colours."""
    first, *rest = map(escape, question.split(MASK))
    return first + Markup("").join(chip(*region) + part for part, region in zip(rest, regions))


def _shown(text: str, regions: Sequence[tuple[int, str]], ended: bool = True) -> str:
    """An answer as HTML: its conclusion, the regions it names on their colours, and its workings, folded once it has ended.

    The model counts the regions as the question does: its [Region 0] is the first of `regions`.
    """
    conclusion, workings = split_workings(text, ended)

    def named(match: re.Match[str]) -> str:
        place = int(match[1])
        return chip(*regions[place]) if place < len(regions) else match[0]

    told = re.sub(r"\[Region (\d{1,3})\]", named, str(escape(conclusion)))
    if not ended:
        told = f'{told}<span class="cursor"></span>' if told else _WAITING.format("thinking")
    below = f"<details{'' if ended else ' open'}><summary>workings</summary>{escape(workings)}</details>"
    return (told or "(no answer)") + (below if workings else "")
