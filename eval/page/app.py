"""The page and its server. Needs NiceGUI, which brings everything the page shows: nothing comes from outside."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI
from nicegui import app as pages
from nicegui import run, ui
from starlette.formparsers import MultiPartParser

from eval.answering.one_picture import stream_answer
from eval.assist.estimated_depth import DepthModel
from eval.page.picture_panel import MOST_UPLOADED, PicturePanel
from eval.page.question_panel import SUGGESTIONS, Answerer, QuestionPanel
from smolrgpt_jax.data.records import MASK, Picture

_STYLE, _SCRIPT = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))

# Uploads are kept in memory alone, as long as they are shown: what is larger than this would be written to disk.
MultiPartParser.spool_max_size = MOST_UPLOADED * 2**20

# Seconds that a visitor's page outlives its connection, which phones cut while another app, as that of photos, is in front.
_AWAY = 30.0


def serve(
    listening: socket.socket,
    answerers: Sequence[Answerer],
    examples: Sequence[Picture],
    depth_model: DepthModel | None = None,
) -> None:
    """Serves the page, with pictures to choose from, at a listening socket until the process is asked to stop."""
    turn = asyncio.Lock()

    def build_page() -> None:
        ui.add_css(_STYLE)
        ui.add_body_html(f"<script>{_SCRIPT}</script>")
        ui.colors(primary="#1668c7")
        with ui.element("main").classes("page"):
            with ui.element("header"):
                ui.label("SmolRGPT").classes("name")
                for answerer in answerers:
                    ui.label(answerer.title).classes("checkpoint")
                    if seen := answerer.model.tokenizer.format.trained_on:
                        ui.label(str(seen)).classes("trained")
            with ui.element("section").classes("card picture"):
                picture = PicturePanel(examples, depth_model)
            with ui.element("div").classes("side"):
                QuestionPanel(answerers, turn, picture)
        if examples:
            picture.choose_example(0)

    async def warm_up() -> None:
        """Has the programs of the first example's questions and of the suggested ones compiled before someone waits for them."""
        blank = np.zeros((8, 8, 3), np.uint8)
        texts = [*(q.prompt for picture in examples[:1] for q in picture.questions), *SUGGESTIONS.values()]
        for text, answerer in itertools.product(texts, answerers):
            boxes, longest = [(0, 0, 8, 8)] * text.count(MASK), answerer.max_new_tokens
            how = {"depth": blank[..., 0], "boxes": boxes, "max_new_tokens": longest}
            async with turn:
                await run.io_bound(lambda: list(itertools.islice(stream_answer(answerer.model, blank, text, **how), 2)))

    pages.on_startup(warm_up)
    app = FastAPI()
    how = {"title": "SmolRGPT", "favicon": "🟧", "show_welcome_message": False}
    ui.run_with(app, root=build_page, reconnect_timeout=_AWAY, **how)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
