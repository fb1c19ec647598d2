"""The page and its server. Needs NiceGUI, which brings everything the page shows: nothing comes from outside."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from eval.page.picture_panel import PicturePanel
from eval.page.question_panel import QuestionPanel
from smolrgpt_jax.data.records import Picture
from smolrgpt_jax.model import Model

_STYLE = Path(__file__).with_name("page.css")


def serve(listening: socket.socket, model: Model, title: str, examples: Sequence[Picture], max_new_tokens: int) -> None:
    """Serves the page, with pictures to choose from, at a listening socket until the process is asked to stop."""
    turn = asyncio.Lock()

    def build_page() -> None:
        """Builds one visitor's page."""
        ui.add_css(_STYLE.read_text(encoding="utf-8"))
        ui.colors(primary="#1668c7")
        with ui.element("main").classes("page"):
            with ui.element("header"):
                ui.label("SmolRGPT").classes("name")
                ui.label(title).classes("checkpoint")
            with ui.element("section").classes("card picture"):
                picture = PicturePanel(examples)
            with ui.element("div").classes("side"):
                QuestionPanel(model, max_new_tokens, turn, picture)
        if examples:
            picture.choose_example(0)

    app = FastAPI()
    ui.run_with(app, root=build_page, title="SmolRGPT", favicon="🟧", show_welcome_message=False)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
