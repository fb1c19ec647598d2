"""The right half of the page: the question is written, and answered while one looks on."""

import asyncio
import itertools
import re
from collections.abc import Generator

from markupsafe import Markup, escape
from nicegui import run, ui

from eval.answering.one_picture import Answer, stream_answer
from eval.page.picture_panel import NEEDS_DEPTH, PicturePanel, notice_label
from eval.report.html import CATEGORY_TITLES, chip, numbered, with_chips
from smolrgpt_jax.data.records import MASK, Question
from smolrgpt_jax.data.regions import check_marks
from smolrgpt_jax.data.workings import split_workings
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.model import Model

SUGGESTIONS = {
    "How far?": f"How far is the pallet {MASK} from the pallet {MASK}?",
    "Left or right?": f"Is the pallet {MASK} to the left or right of the pallet {MASK}?",
    "How many?": f"How many pallets are in the buffer region {MASK}, given the pallets {MASK} {MASK}?",
    "Which one?": f"Which of the pallets {MASK} {MASK} {MASK} is the closest to the shelf {MASK}?",
}
_WAITING = '<span class="wait">{}…</span>'


class QuestionPanel:
    """Asks about the picture of a `PicturePanel`."""

    def __init__(self, model: Model, max_new_tokens: int, turn: asyncio.Lock, picture: PicturePanel):
        """Builds the panel inside the present element; turn: held while the model answers, two at once would be no faster."""
        self._model, self._max_new_tokens, self._turn, self._picture = model, max_new_tokens, turn, picture
        self._known: Question | None = None  # the example's question that was chosen
        with ui.element("section").classes("card"):
            self._build_question()
        with ui.element("section").classes("card answer") as self._answer:
            ui.label("Answer").classes("title")
            self._asked = ui.html(sanitize=False).classes("asked")
            self._text = ui.html(sanitize=False).classes("text")
            self._doubt = notice_label()
            self._values = ui.html(sanitize=False).classes("values")
        picture.on_picture, picture.on_regions = self.picture_changed, self.refresh_marks
        self.picture_changed()

    def _build_question(self) -> None:
        ui.label("Question").classes("title")
        self._known_select = ui.select({}, label="Questions about this picture")
        self._known_select.on_value_change(lambda event: self.choose_question(event.value))
        self._known_select.props("dense outlined options-dense popup-content-class=questions")
        hint = f"Write {MASK} where the question means a region"
        self._question = ui.textarea(placeholder=hint, on_change=self.refresh_marks)
        self._question.props("outlined autogrow").classes("question")
        with ui.element("div").classes("row"):
            insert = ui.button(f"Insert {MASK}", icon="add").props("outline no-caps dense").classes("tool")
            insert.on("click", js_handler=f"() => insertMark('{MASK}')")
            self._marks = ui.label().classes("hint marks")
        with ui.element("div").classes("row suggestions"):
            for label, text in SUGGESTIONS.items():
                suggestion = ui.button(label, on_click=lambda text=text: self._question.set_value(text))
                suggestion.props("flat no-caps dense")
        self._notice = notice_label()
        self._ask = ui.button("Ask", on_click=self.ask).props("unelevated no-caps").classes("ask")

    def picture_changed(self) -> None:
        """Offers the questions of another picture and forgets the answer about the one before."""
        if self._known is not None and self._question.value == self._known.prompt:
            self._question.set_value("")
        self._known = None
        self._answer.set_visibility(False)
        example = self._picture.example
        self._known_select.set_visibility(example is not None)
        if example is not None:
            self._known_select.set_options(dict(enumerate(numbered(q.prompt) for q in example.questions)))
            self._known_select.set_value(0)
            self.choose_question(0)
        self.refresh_marks()

    def choose_question(self, number: int | None) -> None:
        """Takes over the text and the regions of one of the example's questions."""
        if number is None or self._picture.example is None:
            return
        self._known = self._picture.example.questions[number]
        self._question.set_value(self._known.prompt)
        self._picture.set_regions(self._known.regions)

    def refresh_marks(self) -> None:
        """Compares the question's marks with the regions; what was said about them is over."""
        self._notice.set_text("")
        marks = (self._question.value or "").count(MASK)
        marked = self._picture.marked
        regions = len(marked.regions) if marked else 0
        self._marks.set_text(f"{marks} {MASK}, {regions} region{'s' * (regions != 1)}")
        self._marks.classes(**{"remove" if marks == regions else "add": "off"})

    async def ask(self) -> None:
        """Asks the model; the answer grows while it is written."""
        question, marked, known = self._question.value or "", self._picture.marked, self._known
        if marked is None:
            return self._notice.set_text("Open a picture first.")
        regions = tuple(marked.regions)
        try:
            check_marks(question, regions)
        except DataError as error:
            return self._notice.set_text(str(error))
        if regions and marked.depth is None:
            return self._notice.set_text(f"{NEEDS_DEPTH}: open one with Depth.")
        self._answer.set_visibility(True)
        self._asked.set_content(with_chips(question, itertools.count()))
        doing = "getting ready, or busy" if self._turn.locked() else "reading the picture"
        self._text.set_content(_WAITING.format(doing))
        self._doubt.set_text("")
        self._values.set_content("")
        self._ask.props("loading")
        ui.run_javascript("showAnswer()")
        texts = stream_answer(
            self._model, marked.image, question, depth=marked.depth, masks=regions, max_new_tokens=self._max_new_tokens
        )
        try:
            async with self._turn:
                while isinstance(found := await run.io_bound(_next, texts), str):
                    if self._picture.marked is not marked:
                        return None
                    self._text.set_content(_shown(found, ended=False))
        except (ValueError, OSError, RuntimeError) as error:
            self._answer.set_visibility(False)
            return self._notice.set_text(str(error))
        finally:
            self._ask.props(remove="loading")
        self._text.set_content(_shown(found.text))
        ui.run_javascript("showAnswer()")
        self._doubt.set_text(found.notice or "")
        same = known is not None and (known.prompt, known.regions) == (question, regions)
        self._values.set_content(_values(found, known.normalized_answer if same else None))


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


def _shown(text: str, ended: bool = True) -> str:
    """An answer as HTML: its conclusion, the regions it names on their colours, and its workings, folded once it has ended."""
    conclusion, workings = split_workings(text, ended)
    told = re.sub(r"\[(Region (\d{1,3}))\]", lambda match: chip(int(match[2]), match[1]), str(escape(conclusion)))
    if not ended:
        told = f'{told}<span class="cursor"></span>' if told else _WAITING.format("thinking")
    below = f"<details{'' if ended else ' open'}><summary>workings</summary>{escape(workings)}</details>"
    return (told or "(no answer)") + (below if workings else "")
