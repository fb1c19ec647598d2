"""A question that was asked on the page, with its answers, which grow while they are written."""

import asyncio
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from nicegui import run, ui
from PIL import Image

from eval.answering.one_picture import Answer
from eval.page.copied import FORMS, File, chat_body
from eval.page.marking import MarkedPicture, Region
from eval.report.html import CATEGORY_TITLES, chip
from eval.scoring.confidence import described
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import MASK
from smolrgpt_jax.data.workings import split_workings

_WAITING = '<span class="wait">{}…</span>'


def notice_label() -> ui.label:
    """A place for one sentence about something that cannot be done; empty, and not there, once its cause is gone."""
    return ui.label().classes("notice").props("role=alert")


@dataclass(frozen=True)
class Asked:
    """A question as it is asked: its `<mask>` stand for `numbers` of the picture's regions, which are called `labels`."""

    text: str  # as it was written
    prompt: str  # as the model gets it
    marked: MarkedPicture
    depth: Image.Image | None  # as it was then
    depth_file: File | None
    regions: tuple[Region, ...]  # all that were marked then
    numbers: tuple[int, ...]
    labels: tuple[str, ...]

    @property
    def masks(self) -> tuple[RLE, ...]:
        return tuple(self.regions[number].mask for number in self.numbers)

    def named(self) -> list[tuple[int, str]]:
        """The number, which tells the colour, and the label of each `<mask>`."""
        return [(number, self.labels[number]) for number in self.numbers]

    def body(self, model: str, max_new_tokens: int) -> dict[str, Any]:
        """The request to a server that calls the model so."""
        return chat_body(model, self.marked.file, self.depth_file, self.prompt, self.masks, max_new_tokens)


class Exchange:
    """The question, the regions it mentions on their colours, and what was answered; `element` holds all of it."""

    def __init__(self, asked: Asked, titles: Sequence[str], copy: Callable[[str], Any], mark_again: Callable[[], None]):
        """Builds it inside the present element, with a place for each model's answer.

        copy: takes a name of `copied.FORMS`; mark_again: called when its regions and its question are wanted back.
        """
        with ui.element("article").classes("exchange") as self.element:
            ui.html(_asked(asked), sanitize=False).classes("asked")
            with ui.element("div").classes("answers"):
                self.answers = [ShownAnswer(asked, title if len(titles) > 1 else "") for title in titles]
            with ui.element("div").classes("row copies"):
                ui.label("Copy as").classes("hint")
                for form in FORMS:
                    ui.button(form, on_click=lambda form=form: copy(form)).props("flat no-caps dense")
                again = ui.button("Mark again", on_click=mark_again).props("flat no-caps dense")
                again.tooltip("Brings this question and its regions back")


class ShownAnswer:
    """The answer of one model, which grows while it is written."""

    def __init__(self, asked: Asked, title: str):
        """Builds it inside the present element; title: of the model, empty where there is one alone."""
        self._regions = asked.named()
        with ui.element("div") as self._element:
            if title:
                ui.label(title).classes("model")
            self._text = ui.html(sanitize=False).classes("text")
            self._doubt = notice_label()
            self._values = ui.html(sanitize=False).classes("values")
        self._text.set_content(_WAITING.format("waiting"))

    async def follow(self, texts: Generator[str, None, Answer], turn: asyncio.Lock) -> Answer | None:
        """Shows the texts as they come and returns the answer that they end with; None if the exchange was removed meanwhile.

        turn: held while the model answers. Raises what the texts raise.
        """
        self._text.set_content(_WAITING.format("getting ready, or busy" if turn.locked() else "reading the picture"))
        async with turn:
            while isinstance(found := await run.io_bound(_next, texts), str):
                if self._element.is_deleted:
                    return None
                self._text.set_content(_shown(found, self._regions, ended=False))
        return None if self._element.is_deleted else found

    def end(self, found: Answer, truth: str | float | None) -> None:
        """Shows the whole answer and the value read from it; truth: of the data set, if it is known."""
        self._text.set_content(_shown(found.text, self._regions))
        self._doubt.set_text(found.notice or "")
        self._values.set_content(values_of(found, truth))


def _next(texts: Generator[str, None, Answer]) -> str | Answer:
    """The next text, or the answer that they end with."""
    try:
        return next(texts)
    except StopIteration as end:
        return end.value


def values_of(found: Answer, truth: str | float | None) -> Markup:
    """The value read from an answer, the truth unless it is None, how sure the answer is, and whether it ended."""
    pairs = {}
    if found.category is not None:
        unit = " m" if found.category == "distance" else ""
        value = found.normalized_answer
        pairs["read as"] = "unreadable" if value is None else f"{value}{unit}"
        if truth is not None:
            pairs["truth"] = f"{truth}{unit}"
        if found.confidence is not None:
            pairs["confidence"] = described(found.confidence)
        pairs["kind of question"] = CATEGORY_TITLES[found.category].lower()
    if found.cut_off:
        pairs["longest answer reached"] = "cut off"
    return Markup("").join(Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*pair) for pair in pairs.items())


def _asked(asked: Asked) -> Markup:
    """A question as HTML, its regions on their colours."""
    first, *rest = map(escape, asked.prompt.split(MASK))
    return first + Markup("").join(chip(*region) + part for part, region in zip(rest, asked.named()))


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
