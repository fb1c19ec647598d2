"""The left half of the page: a picture is opened or chosen, regions are marked in it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from nicegui import events, run, ui
from PIL import Image, ImageOps

from eval.page.marking import MarkedPicture, Point
from eval.report.overlay import colour_of, jpeg_data_uri
from smolrgpt_jax.data.images import open_picture, read_depth, read_rgb
from smolrgpt_jax.data.records import RLE, Picture
from smolrgpt_jax.errors import DataError

MOST_UPLOADED = 64  # MiB
_CLICK = 6  # pixels of the shown picture: a shorter drag is a click, which sets the box's first corner


def say(sentence: object) -> None:
    """Shows one sentence about something that cannot be done."""
    text = str(sentence)
    ui.notify(text[:1].upper() + text[1:], type="warning", position="top", timeout=8000, close_button="Close")


class PicturePanel:
    """Holds the picture and its regions.

    Attributes:
      marked: the picture with its regions, None before one is opened.
      example: the picture of the data set that it is, None for one of the visitor's own.
      on_picture, on_regions: called when another picture is shown, and when its regions changed.
    """

    def __init__(self, examples: Sequence[Picture], image_size: int):
        """Builds the panel inside the present element.

        Args:
          examples: pictures to choose from.
          image_size: side in pixels of what the model sees.
        """
        self.marked: MarkedPicture | None = None
        self.example: Picture | None = None
        self.on_picture: Callable[[], None] = lambda: None
        self.on_regions: Callable[[], None] = lambda: None
        self._examples, self._image_size = examples, image_size
        self._corner: Point | None = None  # the first one of a box whose second one is still to come
        self._build_sources()
        self._build_picture()
        self._build_tools()
        self.refresh()

    def _build_sources(self) -> None:
        with ui.element("div").classes("row"):
            for kind, icon in (("picture", "image"), ("depth", "layers")):
                upload = ui.upload(
                    auto_upload=True,
                    max_file_size=MOST_UPLOADED * 2**20,
                    on_upload=lambda event, kind=kind: self.upload(event, kind),
                    on_rejected=lambda: say(f"A file may have at most {MOST_UPLOADED} MiB."),
                )
                upload.props("accept=image/*").classes(f"hidden upload-{kind}")
                button = ui.button(
                    kind.capitalize(), icon=icon, on_click=lambda upload=upload: upload.run_method("pickFiles")
                )
                button.props("outline no-caps dense").classes("tool")
            if self._examples:
                self._example_select = ui.select(
                    {index: picture.id for index, picture in enumerate(self._examples)},
                    label="Example",
                    with_input=True,
                    on_change=lambda event: self.choose_example(event.value),
                )
                self._example_select.props("dense outlined options-dense").classes("example")

    def _build_picture(self) -> None:
        with ui.element("div").classes("stage") as self._stage:
            self._image = ui.interactive_image(
                on_mouse=self.mouse, events=["mousedown", "mousemove", "mouseup"], cross="rgba(255,255,255,.75)"
            ).classes("shown")
        self._empty = ui.label("Open a picture to begin.").classes("empty")

    def _build_tools(self) -> None:
        with ui.element("div").classes("row under") as self._tools:
            self._mode = ui.toggle({"box": "Draw boxes", "pick": "Pick masks"}, value="box", on_change=self.refresh)
            self._mode.props("dense no-caps unelevated toggle-color=primary").classes("mode")
            self._undo = ui.button("Undo", icon="undo", on_click=self.undo).props("flat no-caps dense")
            self._clear = ui.button("Clear", icon="close", on_click=self.clear).props("flat no-caps dense")
            self._hint = ui.label().classes("hint")
        with ui.element("div").classes("row bottom"):
            self._chips = ui.element("div").classes("chips")
            with ui.element("figure") as self._depth_figure:
                self._depth = ui.image().props("no-spinner no-transition")
                with ui.element("figcaption"):
                    ui.label("depth")

    async def upload(self, event: events.UploadEventArguments, kind: str) -> None:
        """Takes an uploaded picture, or the depth of the present one."""
        try:
            content = await event.file.read()
            if len(content) > MOST_UPLOADED * 2**20:
                raise DataError(f"{event.file.name} has more than {MOST_UPLOADED} MiB")
            picture = await run.io_bound(self._decoded, content, event.file.name, kind)
        except (ValueError, OSError) as error:
            return say(error)
        finally:
            event.sender.reset()
        if kind == "picture":
            self.example = None
            return self.show(MarkedPicture(picture))
        if self.marked is None:
            return say("Open the picture before its depth.")
        if picture.size != self.marked.image.size:
            sizes = ("{}x{}".format(*size) for size in (picture.size, self.marked.image.size))
            say("The depth is {} pixels, its picture {}: are they of the same view?".format(*sizes))
        self.marked.depth = picture
        self.refresh()

    def _decoded(self, content: bytes, name: str, kind: str) -> Image.Image:
        """An uploaded picture; a camera's that lies on its side is set upright."""
        return ImageOps.exif_transpose(self._checked(open_picture(io.BytesIO(content), name), kind))

    def _checked(self, picture: Image.Image, kind: str) -> Image.Image:
        """The same picture, decoded; raises DataError if the model could not take it."""
        read = read_rgb if kind == "picture" else read_depth
        read(picture, self._image_size)
        return picture

    def choose_example(self, index: int | None) -> None:
        """Shows a picture of the data set."""
        if index is None or self._examples[index] is self.example:
            return
        picture = self._examples[index]
        known = dict.fromkeys(region for question in picture.questions for region in question.regions)
        try:
            image = self._checked(open_picture(picture.image), "picture")
            depth = None if picture.depth is None else self._checked(open_picture(picture.depth), "depth")
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

    def set_regions(self, regions: Sequence[RLE]) -> None:
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
        elif event.type == "mousedown" or (event.type == "mouseup" and _far(self._corner, point)):
            if not self.marked.add_box(self._corner, point):
                say("This box is empty.")
            self._corner = None
            self.refresh()
        elif event.type == "mousemove":
            self._refresh_box(point)

    def undo(self) -> None:
        """Takes back the corner that waits for its box, or else the last region."""
        regions = self.marked.regions
        self.set_regions(regions if self._corner is not None else regions[:-1])

    def clear(self) -> None:
        """Takes back all regions."""
        self.set_regions(())

    def remove(self, index: int) -> None:
        """Takes back one region; those after it move up."""
        self.set_regions(self.marked.regions[:index] + self.marked.regions[index + 1 :])

    def refresh(self) -> None:
        """Shows picture, regions and tools as they are now."""
        marked = self.marked
        self._stage.set_visibility(marked is not None)
        self._empty.set_visibility(marked is None)
        self._tools.set_visibility(marked is not None)
        self._depth_figure.set_visibility(marked is not None and marked.depth is not None)
        self._mode.set_visibility(marked is not None and bool(marked.candidates))
        self._image.set_content("")
        self._chips.clear()
        if marked is not None:
            width, height = marked.shown_size
            self._stage.style(f"max-width: min(100%, {70 * width / height:.2f}vh)")
            self._image.set_source(jpeg_data_uri(marked.shown(self._mode.value == "pick")))
            if marked.depth is not None:
                self._depth.set_source(jpeg_data_uri(_thumbnail(marked.depth)))
            with self._chips:
                for index in range(len(marked.regions)):
                    self._region_chip(index)
        self._refresh_tools()
        self.on_regions()

    def _region_chip(self, index: int) -> None:
        chip = ui.chip(f"Region {index}", removable=True, on_value_change=lambda: self.remove(index))
        chip.props("square dense").style(f"background: rgb{colour_of(index)} !important")

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
        if self._mode.value == "pick":
            self._hint.set_text("Click an outlined object to mark it.")
        else:
            self._hint.set_text("Click two corners, or drag." if self._corner is None else "Now the opposite corner.")


def _far(corner: Point, point: Point) -> bool:
    return max(abs(a - b) for a, b in zip(corner, point)) > _CLICK


def _thumbnail(depth: Image.Image) -> Image.Image:
    small = depth.convert("L")
    small.thumbnail((320, 320))
    return small
