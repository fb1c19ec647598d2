"""The left half of the page: a picture is opened or chosen, regions are marked in it."""

import io
from collections.abc import Callable, Sequence
from typing import BinaryIO, cast

from nicegui import events, run, ui
from PIL import Image

from eval.assist.estimated_depth import DepthModel
from eval.page.exchange import notice_label
from eval.page.marking import MarkedPicture, Point, Region
from eval.page.region_chips import RegionChips
from eval.report.marks import draw_marks
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


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _estimated(model: DepthModel, picture: Image.Image) -> tuple[Image.Image, bytes]:
    """The depth that a model sees in a picture, in grey, and its file."""
    depth = upright_depth(model.estimate(picture), picture)
    return depth, _png(depth)


# Said of the picture to those who do not see it or have no mouse.
_KEYS = "Picture. Arrow keys move a cross, Enter sets a corner or picks what is there, Escape cancels, Delete deletes the region"
_MODES = {"box": "Draw boxes", "paint": "Paint", "pick": "Pick masks"}
_HINTS = {
    "box": "Drag a box, or click two corners; a click on a region selects it.",
    "paint": "Paint over an object; a click beside it begins another region.",
    "pick": "Click an outlined object to mark it.",
}


class PicturePanel:
    """Holds the picture with its regions, `marked`, None before one is opened, and `example`, the data set's, if it is one.

    on_picture, on_regions: called when another picture is shown, and when its regions changed.
    """

    def __init__(self, examples: Sequence[Picture], depth_model: DepthModel | None = None):
        """Builds the panel inside the present element; depth_model: of pictures that come without depth."""
        self.marked: MarkedPicture | None = None
        self.example: Picture | None = None
        self.on_picture: Callable[[], None] = lambda: None
        self.on_regions: Callable[[], None] = lambda: None
        self._examples = examples
        with ui.element("div").classes("row"):
            self._build_upload("picture", "image")
            self._build_upload("depth", "layers")
            if depth_model is not None:
                button = ui.button("Estimate depth", icon="blur_on", on_click=lambda: self.estimate_depth(depth_model))
                button.props("outline no-caps dense").classes("tool")
            if examples:
                names = {index: picture.id for index, picture in enumerate(examples)}
                self._example_select = ui.select(names, label="Example", with_input=True)
                self._example_select.on_value_change(lambda event: self.choose_example(event.value))
                self._example_select.props("dense outlined options-dense").classes("example")
        with ui.element("div").classes("stage") as self._stage:
            # Boxes and strokes are drawn by page.js, which tells their points.
            self._image = ui.interactive_image(cross="rgba(255,255,255,.75)").props(
                f'tabindex=0 role=application aria-label="{_KEYS}"'
            )
            ui.on("box", lambda event: self.add_box(*event.args))
            ui.on("stroke", lambda event: self.paint(**event.args))
            ui.on("spot", lambda event: self.click(*event.args))
            ui.on("delete", self.delete)
            ui.on("undo", self.undo)
        self._empty = ui.label(f"Open a picture or drop one here to begin. {NEEDS_DEPTH}.").classes("empty")
        self._notice = notice_label()
        with ui.element("div").classes("row bottom"):
            with ui.element("div").classes("regions"):
                self._chips = RegionChips(self.refresh)
            with ui.element("figure") as self._depth_figure:
                self._depth = ui.image().props("no-spinner no-transition")
                with ui.element("figcaption"):
                    self._over = ui.switch("Depth over the picture", on_change=self.refresh).props("dense")
        with ui.element("div").classes("row under") as self._tools:
            self._mode = ui.toggle(dict(list(_MODES.items())[:2]), value="box", on_change=self.change_mode)
            self._mode.props("dense no-caps unelevated toggle-color=primary").classes("mode")
            self._brush = ui.slider(min=6, max=120, value=36, on_change=self.set_brush).classes("brush")
            self._brush.props('aria-label="Width of the brush" dense').tooltip("Width of the brush")
            self._undo = ui.button("Undo", icon="undo", on_click=self.undo)
            self._clear = ui.button("Clear", icon="close", on_click=lambda: self.set_regions())
            self._tighten = ui.button("Tighten", icon="compress", on_click=self.tighten)
            self._tighten.tooltip("Boxes become masks of what is in them")
            self._download = ui.button("Download", icon="download", on_click=self.download)
            self._download.tooltip("The picture with outlines and numbers of the regions")
            for button in (self._undo, self._clear, self._tighten, self._download):
                button.props("flat no-caps dense")
            self._hint = ui.label().classes("hint")
            ui.label("Now the opposite corner.").classes("hint corner")
        self.set_brush()
        self.refresh()

    def _build_upload(self, kind: str, icon: str) -> None:
        upload = ui.upload(
            auto_upload=True,
            max_file_size=MOST_UPLOADED * 2**20,
            on_begin_upload=lambda: self._notice.set_text(""),
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
            cast(ui.upload, event.sender).reset()
        if kind == "picture":
            if self.example is not None:
                self.example = None
                self._example_select.set_value(None)
            read.file = content
            return self.show(read)
        marked.depth, marked.depth_file = read, content
        self.refresh()

    async def estimate_depth(self, model: DepthModel) -> None:
        """Gives the picture the depth that a model sees in it."""
        marked = self.marked
        if marked is None:
            return self._notice.set_text("Open a picture first.")
        self._notice.set_text("Estimating…")
        try:
            marked.depth, marked.depth_file = await run.io_bound(_estimated, model, marked.image)
        except (ValueError, OSError, RuntimeError) as error:
            return self._notice.set_text(str(error))
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
            shown = None if self.example is None else self._examples.index(self.example)
            self._example_select.set_value(shown)
            return self._notice.set_text(str(error))
        self.example = picture
        self._example_select.set_value(index)
        self.show(MarkedPicture(image, depth, list(known), picture.image, picture.depth))

    def show(self, marked: MarkedPicture) -> None:
        self.marked = marked
        self._over.set_value(False)
        modes = _MODES if marked.candidates else dict(list(_MODES.items())[:2])
        self._mode.set_options(modes, value="pick" if marked.candidates else "box")
        ui.run_javascript("cross = null; cancel(); giveDepth()")  # cross and corner were of the picture before
        self.on_picture()
        self.refresh()

    def set_regions(self, regions: Sequence[RLE] = ()) -> None:
        """Marks these regions instead of those there are."""
        self.marked.set_regions(map(Region, regions))
        self.refresh()

    def undo(self) -> None:
        if self.marked is not None:
            self.marked.undo()
            self.refresh()

    def delete(self) -> None:
        """Deletes the selected region."""
        if self.marked is not None and self.marked.selected is not None:
            self.marked.remove(self.marked.selected)
            self.refresh()

    def change_mode(self) -> None:
        """Has nothing selected, so that a stroke begins a region."""
        if self.marked is not None:
            self.marked.selected = None
        ui.run_javascript("cancel()")
        self.refresh()

    def set_brush(self) -> None:
        self._stage.style(f"--brush: {self._brush.value}")

    def add_box(self, *corners: float) -> None:
        """Marks the box of two corners, x, y, x, y in pixels of the shown picture."""
        marked = self.marked.add_box(corners[:2], corners[2:])
        self.refresh()
        self._notice.set_text("" if marked else "This box is empty.")

    def paint(self, points: Sequence[Point], width: float) -> None:
        """Adds a stroke of the brush, in pixels of the shown picture."""
        self.marked.paint(points, width)
        self.refresh()

    def click(self, *point: float) -> None:
        """Marks or unmarks the mask under a click, or selects a region."""
        picked = self._mode.value == "pick" and self.marked.pick(point)
        found = picked or self.marked.select(point)
        if found and self._mode.value == "box":
            ui.run_javascript("cancel()")  # it was no first corner
        self.refresh()
        self._notice.set_text("There is no mask under this point." if self._mode.value == "pick" and not found else "")

    async def tighten(self) -> None:
        """Makes masks of boxes."""
        marked = self.marked
        try:
            found = await run.io_bound(marked.tighten)
        except (ImportError, ValueError) as error:
            return self._notice.set_text(str(error))
        if self.marked is marked:
            self.refresh()
            self._notice.set_text("" if found else "Nothing that is tighter was found in the boxes.")

    async def download(self) -> None:
        """Offers the picture, as large as it is, with the regions' outlines and numbers."""
        marked = self.marked
        ui.download.content(
            await run.io_bound(lambda: _png(draw_marks(marked.image, marked.masks))), "marked.png", "image/png"
        )

    def refresh(self) -> None:
        """Shows picture, regions and tools as they are now."""
        marked = self.marked
        for element in (self._stage, self._tools):
            element.set_visibility(marked is not None)
        self._empty.set_visibility(marked is None)
        self._depth_figure.set_visibility(marked is not None and marked.depth is not None)
        self._chips.refresh(marked)
        mode, depth = self._mode.value, None if marked is None else marked.depth
        self._brush.set_visibility(mode == "paint")
        if marked is not None:
            width, height = marked.shown_size
            for element in (self._stage, self._depth_figure):
                element.style(f"--shape: {width / height:.4f}")
            self._image.classes(replace=f"shown {mode}")
            self._image.set_source(jpeg_data_uri(marked.shown(mode == "pick", float(self._over.value))))
            if depth is not None:
                self._depth.set_source(jpeg_data_uri(depth.reduce(max(1, max(depth.size) // 320))))
            self._undo.set_enabled(marked.changed)
            self._clear.set_enabled(bool(marked.regions))
            self._tighten.set_visibility(any(region.box for region in marked.regions))
        self._notice.set_text(depth and other_view(depth.size, marked.image.size) or "")
        self._hint.set_text(_HINTS[mode] if depth else f"{_HINTS[mode]} {NEEDS_DEPTH}: open it with Depth.")
        self.on_regions()
