"""The chips of the regions under the picture, and the row in which the selected one is named."""

from collections.abc import Callable

from nicegui import ui

from eval.page.marking import MarkedPicture
from eval.report.overlay import colour_of


class RegionChips:
    """A chip for each region; a click on it selects the region and writes its number into the question."""

    def __init__(self, on_change: Callable[[], None]):
        """Builds them inside the present element; on_change: called when another region is selected, or they changed."""
        self._on_change = on_change
        self._marked: MarkedPicture | None = None
        self._chips: list[ui.chip] = []
        self._chips_row = ui.element("div").classes("chips")
        with ui.element("div").classes("row selected") as self._row:
            self._name = ui.input().props("dense outlined maxlength=40").classes("region-name")
            self._name.on("change", self._rename)
            delete = ui.button("Delete", icon="delete", on_click=self._remove_selected)
            delete.props("flat no-caps dense")

    def refresh(self, marked: MarkedPicture | None) -> None:
        """Shows the regions as they are now."""
        self._marked = marked
        selected = None if marked is None else marked.selected
        labels = [] if marked is None else marked.labels()
        # Chips that stay the same are not built again: they may have the focus.
        if labels != [chip.text for chip in self._chips]:
            self._chips_row.clear()
            with self._chips_row:
                self._chips = [self._chip(number, label) for number, label in enumerate(labels)]
        for number, chip in enumerate(self._chips):
            chip.classes(**{"add" if number == selected else "remove": "chosen"})
        self._row.set_visibility(selected is not None)
        if selected is not None:
            self._name.props(f'label="Name of region {selected}"')
            self._name.set_value(marked.regions[selected].name)

    def _chip(self, number: int, label: str) -> ui.chip:
        chip = ui.chip(label, removable=True).props("square dense clickable").tooltip("Write it into the question")
        chip.style(f"background: rgb{colour_of(number)} !important")
        chip.on("click", lambda: self._select(number))
        chip.on("click", js_handler=f"() => insertMark('[{number}]')")
        chip.on_value_change(lambda: self._remove(number))
        return chip

    def _select(self, number: int) -> None:
        self._marked.selected = number
        self._on_change()

    def _remove(self, number: int) -> None:
        self._marked.remove(number)
        self._on_change()

    def _remove_selected(self) -> None:
        if self._marked is not None and self._marked.selected is not None:
            self._remove(self._marked.selected)

    def _rename(self) -> None:
        if self._marked is not None and self._marked.selected is not None:
            self._marked.rename(self._marked.selected, self._name.value or "")
            self._on_change()
