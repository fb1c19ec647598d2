"""The left half of the page: a picture is opened or chosen, regions are marked in it."""

import io
from collections.abc import Callable, Sequence
from typing import BinaryIO

from nicegui import events, run, ui
from PIL import Image

from eval.page.marking import MarkedPicture, Point
from eval.report.overlay import colour_of, jpeg_data_uri
from smolrgpt_jax.data.images import open_picture, other_view, upright_depth, upright_rgb
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.errors import DataError

MOST_UPLOADED = 64  # MiB
_CLICK = 6  # pixels of the shown picture: a shorter drag is a click, which sets the box's first corner


def say(sentence: object) -> None:
    """Shows one sentence about something that cannot be done."""
    text = str(sentence)
    ui.notify(text[:1].upper() + text[1:], type="warning", position="top", timeout=8000, close_button="Close")


def read_upload(file: BinaryIO, name: str, kind: str, marked: MarkedPicture | None) -> MarkedPicture | Image.Image:
    """What an uploaded file holds: a picture to mark regions in, or the depth of the one that is shown; DataError for neither."""
    if kind == "picture":
        return MarkedPicture(upright_rgb(open_picture(file, name)))
    if marked is None:
        raise DataError("open the picture before its depth")
    return upright_depth(open_picture(file, name), marked.image)


class PicturePanel:
    """Holds the picture with its regions, `marked`, None before one is opened, and `example`, the data set's, if it is one.

    on_picture, on_regions: called when another picture is shown, and when its regions changed.
    """

    def __init__(self, examples: Sequence[Picture]):
        """Builds the panel inside the present element."""
        self.marked: MarkedPicture | None = None
        self.example: Picture | None = None
        self.on_picture: Callable[[], None] = lambda: None
        self.on_regions: Callable[[], None] = lambda: None
        self._examples = examples
        self._corner: Point | None = None  # the first one of a box whose second one is still to come
        with ui.element("div").classes("row"):
            self._build_upload("picture", "image")
            self._build_upload("depth", "layers")
            if examples:
                names = {index: picture.id for index, picture in enumerate(examples)}
                self._example_select = ui.select(names, label="Example", with_input=True)
                self._example_select.on_value_change(lambda event: self.choose_example(event.value))
                self._example_select.props("dense outlined options-dense").classes("example")
        with ui.element("div").classes("stage") as self._stage:
            self._image = ui.interactive_image(
                on_mouse=self.mouse, events=["mousedown", "mousemove", "mouseup"], cross="rgba(255,255,255,.75)"
            ).classes("shown")
        self._empty = ui.label("Open a picture to begin.").classes("empty")
        with ui.element("div").classes("row under") as self._tools:
            self._mode = ui.toggle({"box": "Draw boxes", "pick": "Pick masks"}, value="box", on_change=self.refresh)
            self._mode.props("dense no-caps unelevated toggle-color=primary").classes("mode")
            self._undo = ui.button("Undo", icon="undo", on_click=self.undo).props("flat no-caps dense")
            self._clear = ui.button("Clear", icon="close", on_click=lambda: self.set_regions())
            self._clear.props("flat no-caps dense")
            self._hint = ui.label().classes("hint")
        with ui.element("div").classes("row bottom"):
            self._chips = ui.element("div").classes("chips")
            with ui.element("figure") as self._depth_figure:
                self._depth = ui.image().props("no-spinner no-transition")
                with ui.element("figcaption"):
                    ui.label("depth")
        self.refresh()

    def _build_upload(self, kind: str, icon: str) -> None:
        upload = ui.upload(
            auto_upload=True,
            max_file_size=MOST_UPLOADED * 2**20,
            on_upload=lambda event: self.upload(event, kind),
            on_rejected=lambda: say(f"A file may have at most {MOST_UPLOADED} MiB."),
        )
        upload.props("accept=image/*").classes(f"hidden upload-{kind}")
        button = ui.button(kind.capitalize(), icon=icon, on_click=lambda: upload.run_method("pickFiles"))
        button.props("outline no-caps dense").classes("tool")

    async def upload(self, event: events.UploadEventArguments, kind: str) -> None:
        """Takes an uploaded picture, or the depth of the present one."""
        marked = self.marked
        try:
            content = await event.file.read()
            if len(content) > MOST_UPLOADED * 2**20:
                raise DataError(f"{event.file.name} has more than {MOST_UPLOADED} MiB")
            # Off the event loop, where other visitors wait: a large picture takes seconds.
            read = await run.io_bound(read_upload, io.BytesIO(content), event.file.name, kind, marked)
        except (ValueError, OSError) as error:
            return say(error)
        finally:
            event.sender.reset()
        if kind == "picture":
            self.example = None
            return self.show(read)
        marked.depth = read
        doubt = other_view(read.size, marked.image.size)
        if doubt:
            say(doubt)
        self.refresh()

    def choose_example(self, index: int | None) -> None:
        """Shows a picture of the data set."""
        if index is None or self._examples[index] is self.example:
            return
        picture = self._examples[index]
        known = dict.fromkeys(region for question in picture.questions for region in question.regions)
        try:
            image = upright_rgb(picture.image)
            depth = None if picture.depth is None else upright_depth(picture.depth, image)
        except (ValueError, OSError) as error:
            return say(error)
        self.example = picture
        self._example_select.set_value(index)
        self.show(MarkedPicture(image, depth, list(known)))

    def show(self, marked: MarkedPicture) -> None:
        """Shows another picture."""
        self.marked, self._corner = marked, None
        self._mode.set_value("pick" if marked.candidates else "box")
        self.on_picture()
        self.refresh()

    def set_regions(self, regions: Sequence[RLE] = ()) -> None:
        """Marks these regions instead of those there are."""
        self._corner = None
        self.marked.regions = list(regions)
        self.refresh()

    def mouse(self, event: events.MouseEventArguments) -> None:
        """Sets the corners of a box by two clicks or by dragging, or picks a mask."""
        point = (event.image_x, event.image_y)
        if self._mode.value == "pick":
            if event.type == "mousedown":
                if not self.marked.pick(point):
                    say("There is no mask under this point.")
                self.refresh()
        elif event.type == "mousedown" and self._corner is None:
            self._corner = point
            self._refresh_box(point)
        elif self._corner is None:
            return
        elif event.type == "mousedown" or (
            event.type == "mouseup" and max(abs(a - b) for a, b in zip(self._corner, point)) > _CLICK
        ):
            if not self.marked.add_box(self._corner, point):
                say("This box is empty.")
            self._corner = None
            self.refresh()
        elif event.type == "mousemove":
            self._refresh_box(point)

    def undo(self) -> None:
        """Takes back the corner that waits for its box, or else the last region."""
        self.set_regions(self.marked.regions[: None if self._corner is not None else -1])

    def refresh(self) -> None:
        """Shows picture, regions and tools as they are now."""
        marked = self.marked
        for element in (self._stage, self._tools):
            element.set_visibility(marked is not None)
        self._empty.set_visibility(marked is None)
        self._depth_figure.set_visibility(marked is not None and marked.depth is not None)
        self._mode.set_visibility(marked is not None and bool(marked.candidates))
        self._image.set_content("")
        self._chips.clear()
        if marked is not None:
            width, height = marked.shown_size
            self._stage.style(f"max-width: min(100%, {70 * width / height:.2f}vh)")
            self._image.set_source(jpeg_data_uri(marked.shown(self._mode.value == "pick")))
            if marked.depth is not None:
                self._depth.set_source(jpeg_data_uri(marked.depth.reduce(max(1, max(marked.depth.size) // 320))))
            with self._chips:
                for index in range(len(marked.regions)):
                    others = marked.regions[:index] + marked.regions[index + 1 :]
                    chip = ui.chip(f"Region {index}", removable=True)
                    chip.on_value_change(lambda others=others: self.set_regions(others))
                    chip.props("square dense").style(f"background: rgb{colour_of(index)} !important")
        self._refresh_tools()
        self.on_regions()

    def _refresh_box(self, point: Point) -> None:
        """Shows the box whose second corner is to come."""
        (x, y), (x2, y2) = self._corner, point
        self._image.set_content(
            f'<rect x="{min(x, x2):.1f}" y="{min(y, y2):.1f}" width="{abs(x2 - x):.1f}" '
            f'height="{abs(y2 - y):.1f}" fill="rgba(255,255,255,.15)" stroke="white" stroke-width="2" '
            f'stroke-dasharray="6 4"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="white"/>'
        )
        self._refresh_tools()

    def _refresh_tools(self) -> None:
        regions = self.marked is not None and bool(self.marked.regions)
        self._undo.set_enabled(regions or self._corner is not None)
        self._clear.set_enabled(regions)
        drawing = "Click two corners, or drag." if self._corner is None else "Now the opposite corner."
        self._hint.set_text("Click an outlined object to mark it." if self._mode.value == "pick" else drawing)
