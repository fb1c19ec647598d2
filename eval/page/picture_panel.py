"""The left half of the page: a picture is opened or chosen, regions are marked in it."""

import io
from collections.abc import Callable, Sequence
from typing import BinaryIO

from nicegui import events, run, ui
from PIL import Image

from eval.page.exchange import notice_label
from eval.page.marking import MarkedPicture, Region
from eval.page.region_chips import RegionChips
from eval.report.overlay import jpeg_data_uri
from smolrgpt_jax.data.images import open_picture, other_view, upright_depth, upright_rgb
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.errors import DataError

MOST_UPLOADED = 64  # MiB
_DEPTHS = "8-bit grey with near dark and far bright, or distances in 16 bits or floats"
NEEDS_DEPTH = f"Regions need a depth picture, {_DEPTHS}"


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
        with ui.element("div").classes("row"):
            self._build_upload("picture", "image")
            self._build_upload("depth", "layers")
            if examples:
                names = {index: picture.id for index, picture in enumerate(examples)}
                self._example_select = ui.select(names, label="Example", with_input=True)
                self._example_select.on_value_change(lambda event: self.choose_example(event.value))
                self._example_select.props("dense outlined options-dense").classes("example")
        with ui.element("div").classes("stage") as self._stage:
            # Boxes are drawn by page.js, which tells their corners.
            self._image = ui.interactive_image(on_mouse=self.pick, cross="rgba(255,255,255,.75)")
            ui.on("box", lambda event: self.add_box(*event.args))
        self._empty = ui.label(f"Open a picture to begin. {NEEDS_DEPTH}.").classes("empty")
        self._notice = notice_label()
        with ui.element("div").classes("row bottom"):
            with ui.element("div").classes("regions"):
                self._chips = RegionChips(self.refresh)
            with ui.element("figure") as self._depth_figure:
                self._depth = ui.image().props("no-spinner no-transition")
                with ui.element("figcaption"):
                    ui.label("depth")
        with ui.element("div").classes("row under") as self._tools:
            self._mode = ui.toggle({"box": "Draw boxes", "pick": "Pick masks"}, value="box", on_change=self.refresh)
            self._mode.props("dense no-caps unelevated toggle-color=primary").classes("mode")
            self._undo = ui.button("Undo", icon="undo", on_click=self.undo)
            self._clear = ui.button("Clear", icon="close", on_click=lambda: self.set_regions())
            for button in (self._undo, self._clear):
                button.props("flat no-caps dense")
            self._hint = ui.label().classes("hint")
            ui.label("Now the opposite corner.").classes("hint corner")
        self.refresh()

    def _build_upload(self, kind: str, icon: str) -> None:
        upload = ui.upload(
            auto_upload=True,
            max_file_size=MOST_UPLOADED * 2**20,
            on_upload=lambda event: self.upload(event, kind),
            on_rejected=lambda: self._notice.set_text(f"A file may have at most {MOST_UPLOADED} MiB."),
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
            return self._notice.set_text(str(error))
        finally:
            event.sender.reset()
        if kind == "picture":
            if self.example is not None:
                self.example = None
                self._example_select.set_value(None)
            return self.show(read)
        marked.depth = read
        self.refresh()

    def choose_example(self, index: int | None) -> None:
        if index is None or self._examples[index] is self.example:
            return
        picture = self._examples[index]
        known = dict.fromkeys(region for question in picture.questions for region in question.regions)
        try:
            image = upright_rgb(picture.image)
            depth = None if picture.depth is None else upright_depth(picture.depth, image)
        except (ValueError, OSError) as error:
            return self._notice.set_text(str(error))
        self.example = picture
        self._example_select.set_value(index)
        self.show(MarkedPicture(image, depth, list(known)))

    def show(self, marked: MarkedPicture) -> None:
        self.marked = marked
        self._mode.set_value("pick" if marked.candidates else "box")
        self.on_picture()
        self.refresh()

    def set_regions(self, regions: Sequence[RLE] = ()) -> None:
        """Marks these regions instead of those there are."""
        self.marked.set_regions(map(Region, regions))
        self.refresh()

    def undo(self) -> None:
        self.marked.undo()
        self.refresh()

    def add_box(self, *corners: float) -> None:
        """Marks the box of two corners, x, y, x, y in pixels of the shown picture."""
        marked = self.marked.add_box(corners[:2], corners[2:])
        self.refresh()
        self._notice.set_text("" if marked else "This box is empty.")

    def pick(self, event: events.MouseEventArguments) -> None:
        """Marks the mask under a click, or unmarks it."""
        if self._mode.value == "pick":
            found = self.marked.pick((event.image_x, event.image_y))
            self.refresh()
            self._notice.set_text("" if found else "There is no mask under this point.")

    def refresh(self) -> None:
        """Shows picture, regions and tools as they are now."""
        marked = self.marked
        for element in (self._stage, self._tools):
            element.set_visibility(marked is not None)
        self._empty.set_visibility(marked is None)
        self._depth_figure.set_visibility(marked is not None and marked.depth is not None)
        self._mode.set_visibility(marked is not None and bool(marked.candidates))
        self._chips.refresh(marked)
        if marked is not None:
            width, height = marked.shown_size
            for element in (self._stage, self._depth_figure):
                element.style(f"--shape: {width / height:.4f}")
            self._image.classes(replace=f"shown {self._mode.value}")
            self._image.set_source(jpeg_data_uri(marked.shown(self._mode.value == "pick")))
            if marked.depth is not None:
                self._depth.set_source(jpeg_data_uri(marked.depth.reduce(max(1, max(marked.depth.size) // 320))))
        depth = None if marked is None else marked.depth
        self._notice.set_text(depth and other_view(depth.size, marked.image.size) or "")
        for button in (self._undo, self._clear):
            button.set_enabled(marked is not None and bool(marked.regions))
        picking, depth_missing = self._mode.value == "pick", f" {NEEDS_DEPTH}: open it with Depth."
        hint = "Click an outlined object to mark it." if picking else "Drag a box, or click two corners."
        self._hint.set_text(hint if depth else hint + depth_missing)
        self.on_regions()
