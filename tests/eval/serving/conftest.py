"""A server of a small random model in a thread, on a free port, and clients of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from eval.answering.served import data_url
from eval.command_line import listen
from eval.serving.endpoints import Limits, make_app
from eval.serving.stopping import Server
from eval.serving.worker import KeptPictures, Worker
from smolrgpt_jax import load
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.generation.answers import generate_answers
from smolrgpt_jax.generation.engine import AnswerOptions
from smolrgpt_jax.generation.online import OnlineEngine
from smolrgpt_jax.model import Model

NEW_TOKENS = 40
KEY = "a key"
QUESTION = "Is the pallet <mask> to the left or right of the pallet <mask>?"
BOXES = [[6, 10, 16, 22], [40, 20, 60, 40]]


@dataclass
class Served:
    """A running server."""

    url: str
    worker: Worker
    server: Server
    thread: threading.Thread

    def client(self, key: str = KEY, retries: int = 0) -> openai.OpenAI:
        http = openai.DefaultHttpxClient(trust_env=False)
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=retries, http_client=http, timeout=60.0
        )


@pytest.fixture(scope="session")
def small_model(small_checkpoint) -> Model:
    return load(small_checkpoint)


@pytest.fixture(scope="session")
def small_engine(small_model) -> OnlineEngine:
    """Compiled once for all servers of the tests, of which one runs at a time."""
    engine = OnlineEngine(small_model, 4, question_tokens=128, answer_tokens=NEW_TOKENS, regions=8)
    engine.warm_up()
    return engine


@contextlib.contextmanager
def serving(
    engine: OnlineEngine,
    *,
    queue: int = 64,
    seconds: float = 60.0,
    grace: float = 30.0,
    key: str | None = KEY,
    **models: Any,
) -> Iterator[Served]:
    engine.empty()
    worker = Worker(engine, KeptPictures(2**24, 600.0), queue)
    limits = Limits(2**20, seconds, queue + len(engine.asked))
    server = Server(make_app(worker, "small", "f1", limits, key, **models), worker, grace)
    listening, url = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.answer, args=(listening,), daemon=True)
    thread.start()
    try:
        yield Served(url, worker, server, thread)
    finally:
        worker.stop()
        worker.give_up()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive() and not worker.is_alive()


@pytest.fixture
def served(small_engine) -> Iterator[Served]:
    with serving(small_engine) as found:
        yield found


@pytest.fixture
def direct(warehouse, small_model):
    """The val pictures, and what the model answers to their questions without any server: {id: GeneratedAnswer}."""
    pictures = read_warehouse(warehouse, "val")
    return pictures, generate_answers(small_model, pictures, AnswerOptions(8, NEW_TOKENS, progress=False))


def body(folder: Path, **changes) -> dict:
    """A good request about the first val picture of `warehouse`; a change to None takes a field out."""
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(folder / "val/images/000100.png")}},
        {"type": "image_url", "image_url": {"url": data_url(folder / "val/depths/000100_depth.png")}},
        {"type": "text", "text": QUESTION},
    ]
    whole = {"model": "small", "messages": [{"role": "user", "content": parts}], "regions": BOXES, **changes}
    return {name: value for name, value in whole.items() if value is not None}
