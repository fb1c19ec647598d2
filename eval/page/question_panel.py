"""The right half of the page: the question is written, and answered while one looks on."""

import asyncio
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from nicegui import run, ui

from eval.answering.confidences import Confidences
from eval.answering.one_picture import Answer, stream_answer
from eval.page.copied import ADDRESS, FORMS
from eval.page.exchange import Asked, Exchange, notice_label
from eval.page.marking import MarkedPicture
from eval.page.mentions import renumbered, resolve
from eval.page.picture_panel import NEEDS_DEPTH, PicturePanel
from eval.report.html import numbered
from smolrgpt_jax.data.records import MASK, Question
from smolrgpt_jax.data.regions import check_marks
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.model import Model

# Enter asks; with Shift it begins a line.
_ASKS = "event => { if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); emit(); } }"
SUGGESTIONS = {
    "How far?": f"How far is the pallet {MASK} from the pallet {MASK}?",
    "Left or right?": f"Is the pallet {MASK} to the left or right of the pallet {MASK}?",
    "How many?": f"How many pallets are in the buffer region {MASK}, given the pallets {MASK} {MASK}?",
    "Which one?": f"Which of the pallets {MASK} {MASK} {MASK} is the closest to the shelf {MASK}?",
}


@dataclass(frozen=True)
class Answerer:
    """A model that the page asks; title: what people know it by; name: what a server calls it; confidence: to tell how sure it is."""

    title: str
    name: str
    model: Model
    max_new_tokens: int
    confidence: Confidences | None = None

    def stream(self, asked: Asked) -> Generator[str, None, Answer]:
        how = {"depth": asked.depth, "masks": asked.masks, "max_new_tokens": self.max_new_tokens}
        return stream_answer(self.model, asked.marked.image, asked.prompt, self.confidence, **how)


class QuestionPanel:
    """Asks about the picture of a `PicturePanel`."""

    def __init__(self, answerers: Sequence[Answerer], turn: asyncio.Lock, picture: PicturePanel):
        """Builds the panel inside the present element; turn: held while a model answers, two at once would be no faster."""
        self._answerers, self._turn, self._picture = answerers, turn, picture
        self._asking = False
        self._keys: list[int] = []  # of the regions that the question's numbers mean
        self._known: Question | None = None  # the example's question that was chosen
        with ui.element("section").classes("card"):
            self._build_question()
        with ui.element("section").classes("card answer") as self._answers:
            ui.label("Answers").classes("title")
            self._history = ui.element("div").classes("history")
        picture.on_picture, picture.on_regions = self.picture_changed, self.regions_changed
        self.picture_changed()

    def _build_question(self) -> None:
        ui.label("Question").classes("title")
        self._known_select = ui.select({}, label="Questions about this picture")
        self._known_select.on_value_change(lambda event: self.choose_question(event.value))
        self._known_select.props("dense outlined options-dense popup-content-class=questions")
        hint = f"Click a region's chip where the question means it, or write {MASK}"
        self._question = ui.textarea(placeholder=hint, on_change=self.refresh_marks)
        self._question.props("outlined autogrow").classes("question")
        self._question.on("keydown", self.ask, js_handler=_ASKS)
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
        self._ask.tooltip("Enter asks, Shift and Enter begin a line")

    def picture_changed(self) -> None:
        """Offers the questions of another picture and forgets the answers about the one before."""
        if self._known is not None and self._question.value == self._known.prompt:
            self._question.set_value("")
        self._known = None
        self._history.clear()
        self._answers.set_visibility(False)
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

    def regions_changed(self) -> None:
        """Has the question mention its regions by the numbers that they have now."""
        marked = self._picture.marked
        keys, before = [region.key for region in marked.regions] if marked else [], self._keys
        self._keys = keys
        if keys != before:
            places = {old: keys.index(key) for old, key in enumerate(before) if key in keys}
            self._question.set_value(renumbered(self._question.value or "", places))
        self.refresh_marks()

    def refresh_marks(self) -> None:
        """Says which regions the question asks about; what was said about them before is over."""
        self._notice.set_text("")
        marked = self._picture.marked
        regions = len(marked.regions) if marked else 0
        try:
            _, numbers = resolve(self._question.value or "", regions)
            told = f"asks about {len(set(numbers))} of {regions} region{'s' * (regions != 1)}" if regions else ""
        except DataError as error:
            told = str(error)
            self._marks.classes(add="off")
        else:
            self._marks.classes(remove="off")
        self._marks.set_text(told)

    async def ask(self) -> None:
        """Asks the model; the answer grows while it is written."""
        marked, known = self._picture.marked, self._known
        if self._asking:
            return None
        if marked is None:
            return self._notice.set_text("Open a picture first.")
        try:
            asked = self._asked(marked)
        except DataError as error:
            return self._notice.set_text(str(error))
        if asked.masks and marked.depth is None:
            return self._notice.set_text(f"{NEEDS_DEPTH}: open one with Depth.")
        with self._history:
            titles = [answerer.title for answerer in self._answerers]
            exchange = Exchange(asked, titles, lambda form: self.copy(asked, form), lambda: self.mark_again(asked))
        exchange.element.move(target_index=0)  # the newest comes first
        self._answers.set_visibility(True)
        self._asking = True
        self._ask.props("loading")
        ui.run_javascript("showAnswer()")
        same = known is not None and (known.prompt, known.regions) == (asked.prompt, asked.masks)
        try:
            for answerer, shown in zip(self._answerers, exchange.answers):
                found = await shown.follow(answerer.stream(asked), self._turn)
                if found is None:
                    return None
                shown.end(found, known.normalized_answer if same else None)
        except (ValueError, OSError, RuntimeError) as error:
            exchange.element.delete()
            self._answers.set_visibility(bool(self._history.default_slot.children))
            return self._notice.set_text(str(error))
        finally:
            self._asking = False
            self._ask.props(remove="loading")
        ui.run_javascript("showAnswer()")

    def _asked(self, marked: MarkedPicture) -> Asked:
        """The question as it stands; raises DataError where it cannot be asked."""
        text = self._question.value or ""
        prompt, numbers = resolve(text, len(marked.regions))
        depth = marked.depth, marked.depth_file
        asked = Asked(text, prompt, marked, *depth, marked.regions, numbers, tuple(marked.labels()))
        check_marks(prompt, asked.masks)
        return asked

    async def copy(self, asked: Asked, form: str) -> None:
        """Puts the request that asks a server the same on the clipboard."""
        first = self._answerers[0]
        try:
            body = await run.io_bound(asked.body, first.name, first.max_new_tokens)
        except OSError as error:
            return self._notice.set_text(f"the picture cannot be read again ({error})")
        ui.run_javascript(f"copyText({json.dumps(FORMS[form](body))})")
        ui.notify(f"Copied for a server of {first.name} at {ADDRESS}")

    def mark_again(self, asked: Asked) -> None:
        """Marks the regions that there were when a question was asked, and writes it again."""
        asked.marked.set_regions(asked.regions)
        self._keys = [region.key for region in asked.regions]
        self._question.set_value(asked.text)
        self._picture.refresh()
