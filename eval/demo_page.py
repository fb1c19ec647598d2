"""The page of ``eval.demo``: its widgets, and what they do. Needs NiceGUI."""

from __future__ import annotations

import asyncio
import html
import io
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from nicegui import events, run, ui
from PIL import Image, ImageOps

from eval.marking import MarkedPicture, Point
from eval.overlay import colour_of, jpeg_data_uri
from eval.prediction import check_marks, read_answer, stream_answer
from smolrgpt_jax.data.images import open_picture, read_depth, read_rgb
from smolrgpt_jax.data.records import MASK, DataError, Picture, Question

if TYPE_CHECKING:
    from smolrgpt_jax.loading import Model

MOST_UPLOADED = 64 * 2**20  # bytes
_CLICK = 6  # pixels of the shown picture: a shorter drag is a click, which sets the box's first corner
_STYLE = Path(__file__).parent / "templates" / "demo_page.css"
_SUGGESTIONS = {
    "How far?": f"How far is the pallet {MASK} from the pallet {MASK}?",
    "Left or right?": f"Is the pallet {MASK} to the left or right of the pallet {MASK}?",
    "How many?": f"How many pallets are in the buffer region {MASK}, given the pallets {MASK} {MASK}?",
    "Which one?": f"Which of the pallets {MASK} {MASK} {MASK} is the closest to the shelf {MASK}?",
}
_UNITS = {"distance": " m"}
# Writes a mark at the cursor of the question, as if it were typed.
_INSERT_MARK = (
    """() => {
  const field = document.querySelector(".question textarea");
  const before = field.value.slice(0, field.selectionStart);
  const mark = (before && !/\\s$/.test(before) ? " " : "") + "%s";
  field.focus();
  field.setRangeText(mark, field.selectionStart, field.selectionEnd, "end");
  field.dispatchEvent(new Event("input", {bubbles: true}));
}"""
    % MASK
)


def serve(
    listening: socket.socket, model: Model, title: str, examples: Sequence[Picture], max_new_tokens: int
) -> None:
    """Serves the page at a listening socket until the process is asked to stop.

    Args:
      title: what the page calls the model.
      examples: pictures to choose from, with their questions.
      max_new_tokens: longest answer.
    """
    # One answer at a time: two would only slow each other down.
    turn = asyncio.Lock()
    app = FastAPI()
    ui.run_with(
        app,
        root=lambda: DemoPage(model, title, examples, max_new_tokens, turn),
        title="SmolRGPT",
        favicon="🟧",
        show_welcome_message=False,
    )
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


class DemoPage:
    """One visitor's page."""

    def __init__(
        self, model: Model, title: str, examples: Sequence[Picture], max_new_tokens: int, turn: asyncio.Lock
    ):
        self.model, self.examples, self.max_new_tokens, self.turn = model, examples, max_new_tokens, turn
        self.marked: MarkedPicture | None = None
        self.example: Picture | None = None
        self.asked: Question | None = None  # the example's question that was chosen
        self.corner: Point | None = None  # the first one of a box whose second one is still to come
        ui.add_css(_STYLE.read_text(encoding="utf-8"))
        ui.colors(primary="#1668c7")
        with ui.element("main").classes("page"):
            with ui.element("header"):
                ui.label("SmolRGPT").classes("name")
                ui.label(title).classes("checkpoint")
            with ui.element("section").classes("card picture"):
                self._build_picture()
            with ui.element("div").classes("side"):
                with ui.element("section").classes("card"):
                    self._build_question()
                with ui.element("section").classes("card answer") as self.answer_card:
                    self._build_answer()
        if examples:
            self.choose_example(0)
        else:
            self.refresh()

    # --- building

    def _build_picture(self) -> None:
        with ui.element("div").classes("row"):
            for label, icon, kind in (
                ("Picture", "image", "picture"),
                ("Depth", "layers", "depth"),
            ):
                upload = (
                    ui.upload(
                        auto_upload=True,
                        max_file_size=MOST_UPLOADED,
                        on_upload=lambda event, kind=kind: self.upload(event, kind),
                        on_rejected=lambda: _say(f"A file may have {MOST_UPLOADED // 2**20} MB at most."),
                    )
                    .props("accept=image/*")
                    .classes(f"hidden upload-{kind}")
                )
                ui.button(
                    label, icon=icon, on_click=lambda upload=upload: upload.run_method("pickFiles")
                ).props("outline no-caps dense").classes("tool")
            if self.examples:
                self.example_select = (
                    ui.select(
                        {index: picture.id for index, picture in enumerate(self.examples)},
                        label="Example",
                        with_input=True,
                        on_change=lambda event: self.choose_example(event.value),
                    )
                    .props("dense outlined options-dense")
                    .classes("example")
                )
        with ui.element("div").classes("stage") as self.stage:
            self.image = ui.interactive_image(
                on_mouse=self.mouse,
                events=["mousedown", "mousemove", "mouseup"],
                cross="rgba(255,255,255,.75)",
            ).classes("shown")
        self.empty = ui.label("Open a picture to begin.").classes("empty")
        with ui.element("div").classes("row under"):
            self.mode = (
                ui.toggle({"box": "Draw boxes", "pick": "Pick masks"}, value="box", on_change=self.refresh)
                .props("dense no-caps unelevated toggle-color=primary")
                .classes("mode")
            )
            self.undo_button = ui.button("Undo", icon="undo", on_click=self.undo).props("flat no-caps dense")
            self.clear_button = ui.button("Clear", icon="close", on_click=self.clear).props(
                "flat no-caps dense"
            )
            self.hint = ui.label().classes("hint")
        with ui.element("div").classes("row bottom"):
            self.chips = ui.element("div").classes("chips")
            with ui.element("figure") as self.depth_figure:
                self.depth_image = ui.image().props("no-spinner no-transition")
                ui.element("figcaption").add_slot("default", "depth")

    def _build_question(self) -> None:
        ui.label("Question").classes("title")
        self.question_select = (
            ui.select(
                {}, label="Questions about this picture", on_change=lambda e: self.choose_question(e.value)
            )
            .props("dense outlined options-dense")
            .classes("questions")
        )
        self.question = (
            ui.textarea(
                placeholder=f"Write {MASK} where the question means a region", on_change=self.refresh_marks
            )
            .props("outlined autogrow")
            .classes("question")
        )
        with ui.element("div").classes("row"):
            ui.button(f"Insert {MASK}", icon="add").props("outline no-caps dense").classes("insert tool").on(
                "click", js_handler=_INSERT_MARK
            )
            self.marks = ui.label().classes("hint marks")
        with ui.element("div").classes("row suggestions"):
            for label, text in _SUGGESTIONS.items():
                ui.button(label, on_click=lambda text=text: self.question.set_value(text)).props(
                    "flat no-caps dense"
                )
        self.ask_button = ui.button("Ask", on_click=self.ask).props("unelevated no-caps").classes("ask")

    def _build_answer(self) -> None:
        ui.label("Answer").classes("title")
        self.text = ui.html(sanitize=False).classes("text")
        self.values = ui.html(sanitize=False).classes("values")
        self.answer_card.set_visibility(False)

    # --- pictures

    async def upload(self, event: events.UploadEventArguments, kind: str) -> None:
        """Takes an uploaded picture, or the depth of the present one."""
        try:
            content = await event.file.read()
            if len(content) > MOST_UPLOADED:
                raise DataError(f"{event.file.name} has more than {MOST_UPLOADED // 2**20} MB")
            picture = await run.io_bound(self._decoded, content, event.file.name, kind)
        except (ValueError, OSError) as error:
            return _say(error)
        finally:
            event.sender.reset()
        if kind == "picture":
            self.example = None
            self.show(MarkedPicture(picture))
        elif self.marked is None:
            _say("Open the picture before its depth.")
        else:
            if picture.size != self.marked.image.size:
                sizes = ["{}x{}".format(*size) for size in (picture.size, self.marked.image.size)]
                _say("The depth is {} pixels, its picture {}: is it of the same view?".format(*sizes))
            self.marked.depth = picture
            self.refresh()

    def _decoded(self, content: bytes, name: str, kind: str) -> Image.Image:
        """An uploaded picture with its pixels, or one sentence about them; cameras' turned ones upright."""
        picture = open_picture(io.BytesIO(content), name)
        read = read_rgb if kind == "picture" else read_depth
        read(picture, self.model.config.vision.image_size)
        return ImageOps.exif_transpose(picture)

    def choose_example(self, index: int | None) -> None:
        """Shows a picture of the data set with its first question."""
        if index is None or self.examples[index] is self.example:
            return
        picture = self.examples[index]
        known = dict.fromkeys(region for question in picture.questions for region in question.regions)
        try:
            depth = None if picture.depth is None else open_picture(picture.depth)
            with open_picture(picture.image) as image:
                marked = MarkedPicture(image, depth, list(known))
        except (ValueError, OSError) as error:
            return _say(error)
        self.example = picture
        self.example_select.set_value(index)
        self.question_select.set_options(
            {number: question.prompt for number, question in enumerate(picture.questions)}
        )
        self.show(marked)
        self.question_select.set_value(0)
        self.choose_question(0)

    def choose_question(self, number: int | None) -> None:
        """Takes over the text and the regions of one of the example's questions."""
        if number is None or self.example is None:
            return
        self.asked = self.example.questions[number]
        self.marked.regions = list(self.asked.regions)
        self.question.set_value(self.asked.prompt)
        self.refresh()

    def show(self, marked: MarkedPicture) -> None:
        """Shows another picture; what was said of the one before is gone."""
        self.marked, self.corner, self.asked = marked, None, None
        self.mode.set_value("pick" if marked.candidates else "box")
        self.answer_card.set_visibility(False)
        self.refresh()

    # --- regions

    def mouse(self, event: events.MouseEventArguments) -> None:
        """Sets the corners of a box by two clicks or by dragging, or picks a mask."""
        if self.marked is None:
            return
        point = (event.image_x, event.image_y)
        if self.mode.value == "pick":
            if event.type == "mousedown" and not self.marked.pick(point):
                _say("There is no mask under this point.")
            if event.type == "mousedown":
                self.refresh()
        elif event.type == "mousedown" and self.corner is None:
            self.corner = point
            self.refresh_box(point)
        elif self.corner is None:
            return
        elif event.type == "mousedown" or (event.type == "mouseup" and _far(self.corner, point)):
            if not self.marked.add_box(self.corner, point):
                _say("This box is empty.")
            self.corner = None
            self.refresh()
        elif event.type == "mousemove":
            self.refresh_box(point)

    def undo(self) -> None:
        """Takes back the corner that waits for its box, or else the last region."""
        if self.corner is not None:
            self.corner = None
        elif self.marked and self.marked.regions:
            self.marked.regions.pop()
        self.refresh()

    def clear(self) -> None:
        """Takes back all regions."""
        self.corner = None
        if self.marked:
            self.marked.regions.clear()
        self.refresh()

    def remove(self, index: int) -> None:
        """Takes back one region; those after it move up."""
        del self.marked.regions[index]
        self.refresh()

    # --- asking

    async def ask(self) -> None:
        """Asks the model; the answer grows while it is written."""
        question, marked = self.question.value or "", self.marked
        if marked is None:
            return _say("Open a picture first.")
        regions = tuple(marked.regions)
        try:
            check_marks(question, regions)
            if regions and marked.depth is None:
                raise DataError("A question about regions needs the depth picture, open one with Depth.")
        except DataError as error:
            return _say(error)
        self.answer_card.set_visibility(True)
        self.text.set_content('<span class="wait">thinking…</span>')
        self.values.set_content("")
        self.ask_button.props("loading")
        texts = stream_answer(
            self.model,
            marked.image,
            question,
            depth=marked.depth,
            masks=regions,
            max_new_tokens=self.max_new_tokens,
        )
        text = ""
        try:
            async with self.turn:
                while (longer := await run.io_bound(next, texts, None)) is not None:
                    text = longer
                    self.text.set_content(_with_chips(text) + '<span class="cursor"></span>')
        except (ValueError, OSError, RuntimeError) as error:
            self.answer_card.set_visibility(False)
            return _say(error)
        finally:
            self.ask_button.props(remove="loading")
        self.text.set_content(_with_chips(text) or "(no answer)")
        self.values.set_content(self._values(question, text))

    def _values(self, question: str, text: str) -> str:
        """The value read from an answer, and the truth where it is known, as HTML."""
        found = read_answer(question, text)
        if found.category is None:
            return ""
        unit = _UNITS.get(found.category, "")
        value = found.normalized_answer
        pairs = [("read as", "unreadable" if value is None else f"{value}{unit}")]
        if (
            self.asked is not None
            and self.asked.prompt == question
            and self.asked.normalized_answer is not None
        ):
            pairs.append(("truth", f"{self.asked.normalized_answer}{unit}"))
        pairs.append(("kind of question", found.category.replace("_", " ")))
        return "".join(f"<div><dt>{name}</dt><dd>{html.escape(text)}</dd></div>" for name, text in pairs)

    # --- showing

    def refresh(self) -> None:
        """Brings everything that depends on the picture and its regions up to date."""
        marked = self.marked
        self.stage.set_visibility(marked is not None)
        self.empty.set_visibility(marked is None)
        self.depth_figure.set_visibility(marked is not None and marked.depth is not None)
        self.question_select.set_visibility(self.example is not None)
        self.mode.set_visibility(marked is not None and bool(marked.candidates))
        self.chips.clear()
        self.image.set_content("")
        if marked is not None:
            width, height = marked.shown_size
            self.stage.style(f"max-width: min(100%, {0.7 * width / height:.4f} * 100vh)")
            self.image.set_source(jpeg_data_uri(marked.shown(self.mode.value == "pick")))
            if marked.depth is not None:
                self.depth_image.set_source(jpeg_data_uri(_thumbnail(marked.depth)))
            with self.chips:
                for index in range(len(marked.regions)):
                    ui.chip(
                        f"Region {index}",
                        removable=True,
                        on_value_change=lambda _, index=index: self.remove(index),
                    ).style(f"background: rgb{colour_of(index)} !important").props("square dense")
        for button in (self.undo_button, self.clear_button):
            button.set_enabled(marked is not None and bool(marked.regions))
        self.refresh_hint()
        self.refresh_marks()

    def refresh_box(self, point: Point) -> None:
        """Shows the box whose second corner is to come."""
        (x, y), (x2, y2) = self.corner, point
        self.image.set_content(
            f'<rect x="{min(x, x2):.1f}" y="{min(y, y2):.1f}" width="{abs(x2 - x):.1f}" height="{abs(y2 - y):.1f}" '
            f'fill="rgba(255,255,255,.15)" stroke="white" stroke-width="2" stroke-dasharray="6 4"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="white"/>'
        )
        self.undo_button.set_enabled(True)
        self.refresh_hint()

    def refresh_hint(self) -> None:
        """Says what a click would do."""
        if self.marked is None:
            self.hint.set_text("")
        elif self.mode.value == "pick":
            self.hint.set_text("Click an outlined object to mark it.")
        elif self.corner is None:
            self.hint.set_text("Click two corners, or drag.")
        else:
            self.hint.set_text("Now the opposite corner.")

    def refresh_marks(self) -> None:
        """Compares the question's marks with the regions."""
        marks = (self.question.value or "").count(MASK)
        regions = len(self.marked.regions) if self.marked else 0
        self.marks.set_text(f"{_counted(marks, MASK)}, {_counted(regions, 'region')}")
        self.marks.classes(add="off" if marks != regions else "", remove="" if marks != regions else "off")


def _say(sentence: object) -> None:
    """Shows a sentence about something that cannot be done."""
    text = str(sentence)
    ui.notify(text[:1].upper() + text[1:], type="warning", position="top", timeout=8000, close_button="Close")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 and noun != MASK else "")


def _far(corner: Point, point: Point) -> bool:
    return max(abs(a - b) for a, b in zip(corner, point)) > _CLICK


def _thumbnail(depth: Image.Image) -> Image.Image:
    small = depth.convert("L")
    small.thumbnail((320, 320))
    return small


def _with_chips(text: str) -> str:
    """An answer as HTML, the regions it names on their colours."""

    def chip(match: re.Match) -> str:
        colour = ",".join(map(str, colour_of(int(match.group(1)))))
        return f'<span class="chip" style="background:rgb({colour})">Region {match.group(1)}</span>'

    return re.sub(r"\[Region (\d{1,3})\]", chip, html.escape(text))
