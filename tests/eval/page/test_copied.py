"""What is copied from the page, sent to the server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading

import httpx
import numpy as np
import pytest

from eval.answering.one_picture import answer
from eval.command_line import listen
from eval.page.copied import FORMS, chat_body
from eval.serving.endpoints import Limits, make_app
from eval.serving.stopping import Server
from eval.serving.worker import KeptPictures, Worker
from smolrgpt_jax import load
from smolrgpt_jax.data.masks import box_mask, encode
from smolrgpt_jax.generation.online import OnlineEngine

NEW_TOKENS = 20
QUESTION = "Is the pallet <mask> to the left or 'right' of the \"pallet\" <mask>?"


@pytest.fixture(scope="module")
def small_model(small_checkpoint):
    return load(small_checkpoint)


@pytest.fixture(scope="module")
def address(small_model):
    """Of the server of a small model."""
    engine = OnlineEngine(small_model, 2, question_tokens=128, answer_tokens=NEW_TOKENS, regions=4)
    engine.warm_up()
    worker = Worker(engine, KeptPictures(2**24, 600.0), 8)
    server = Server(make_app(worker, "small", "f1", Limits(2**20, 60.0, 10)), worker, 5.0)
    listening, url = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.answer, args=(listening,), daemon=True)
    thread.start()
    yield f"{url}/v1"
    worker.stop()
    worker.give_up()
    server.should_exit = True
    thread.join(30)


@pytest.fixture(params=["regions", "none"])
def asked(request, warehouse, small_model):
    """(body, the model's own answer)."""
    picture, depth = warehouse / "val/images/000103.png", warehouse / "val/depths/000103_depth.png"
    boxes = [(6, 10, 16, 22), (40, 20, 60, 40)] if request.param == "regions" else []
    masks = [encode(box_mask(box, 60, 96)) for box in boxes]
    question = QUESTION if masks else "What is it?"
    how = {"depth": depth, "masks": masks, "max_new_tokens": NEW_TOKENS}
    body = chat_body("small", picture.read_bytes(), depth, question, masks, NEW_TOKENS)
    return body, answer(small_model, picture, question, **how).text


def run_json(text, address):
    reply = httpx.post(f"{address}/chat/completions", content=text, headers={"Content-Type": "application/json"})
    return reply.json()["choices"][0]["message"]["content"]


def run_python(text, address):
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout[:-1]


def run_curl(text, address):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    said = subprocess.run(["bash"], input=text, capture_output=True, text=True, check=True).stdout
    return json.loads(said)["choices"][0]["message"]["content"]


@pytest.mark.parametrize("form, run", [("JSON", run_json), ("Python", run_python), ("curl", run_curl)])
def test_what_is_copied_gets_the_same_answer_from_the_server(asked, address, form, run):
    body, expected = asked
    assert expected and run(FORMS[form](body, address), address) == expected


def test_the_depth_is_sent_only_with_regions(warehouse):
    picture = warehouse / "val/images/000103.png"
    mask = encode(np.ones((60, 96), np.uint8))
    for regions, files in (([mask], 2), ([], 1)):
        parts = chat_body("small", picture, picture, "<mask>?", regions, 5)["messages"][0]["content"]
        assert [part["type"] for part in parts] == ["image_url"] * files + ["text"]
