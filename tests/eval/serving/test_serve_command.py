"""The command: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import builtins
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
import uvicorn

from eval.answering.served import chat_request
from eval.command_line import listen
from eval.serve import main
from eval.serving import stopping
from eval.serving.endpoints import Limits, make_app
from eval.serving.stopping import Server
from eval.serving.worker import KeptPictures, Worker
from smolrgpt_jax.data.sources.formats import read_warehouse


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--checkpoint", "nowhere"], "nowhere: no such checkpoint"),
        (["--checkpoint", "{golden}"], "brings no tokenizer"),
        (["--checkpoint", "{checkpoint}", "--depth_model", "./none"], "depth model './none' cannot be loaded"),
        (["--checkpoint", "{checkpoint}", "--segmenter", "./none"], "segmenter './none' cannot be loaded"),
        (["--checkpoint", "{checkpoint}", "--port", "{taken}"], "cannot be listened at"),
        (
            ["--checkpoint", "{checkpoint}", "--host", "0.0.0.0"],
            "anyone there could ask: give a key in SMOLRGPT_API_KEY",
        ),
        (["--checkpoint", "{checkpoint}", "--api_key", "schlüssel"], "holds a character that no key has"),
    ],
)
def test_bad_input_ends_with_one_sentence(small_checkpoint, golden, monkeypatch, arguments, sentence):
    monkeypatch.delenv("SMOLRGPT_API_KEY", raising=False)
    with listen("127.0.0.1", 0)[0] as taken:
        known = {"checkpoint": small_checkpoint, "golden": golden.folder, "taken": taken.getsockname()[1]}
        with pytest.raises(SystemExit, match=sentence) as stop:
            main([argument.format(**known) for argument in arguments])
    assert str(stop.value).startswith("error: ") and "\n" not in str(stop.value)


def test_without_its_extra_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("eval.serving", "fastapi"))]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name.split(".")[0] == "fastapi":
            raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(SystemExit, match=r"needs an extra \(fastapi is missing\).*pip install -e '\.\[serve\]'"):
        main(["--checkpoint", "anywhere"])


@pytest.mark.parametrize("option", ["--depth_model", "--segmenter"])
def test_without_the_extra_of_an_option_it_says_so_before_it_reads_the_checkpoint(monkeypatch, option):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match=r"needs the package torch: pip install -e '\.\[assist\]'"):
        main(["--checkpoint", "nowhere", option, "some/model"])


@pytest.mark.slow
def test_a_server_that_is_terminated_answers_or_refuses_its_clients(small_checkpoint, warehouse):
    command = [sys.executable, "-m", "eval.serve", "--checkpoint", small_checkpoint, "--port", "0", "--batch_size", "2"]
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [*map(str, command), "--name", "small"], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        url = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+/v1", line)))
        asked = [(picture, question) for picture in read_warehouse(warehouse, "val") for question in picture.questions]
        http = openai.DefaultHttpxClient(trust_env=False)
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60, http_client=http)
        started = []

        def ask(number: int) -> str:
            for place, (picture, question) in enumerate(asked[number::8] * 100):
                started.append(place)
                try:
                    reply = client.chat.completions.create(model="small", **chat_request(picture, question))
                    assert reply.choices[0].finish_reason
                except openai.InternalServerError as error:
                    return f"{error.status_code} {error.response.json()['error']['message']}"
            return "never stopped"

        with ThreadPoolExecutor(8) as pool:
            found = pool.map(ask, range(8))
            while len(started) < 30:
                assert process.poll() is None
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGTERM)
            assert set(found) == {"503 the server is being stopped"}
        assert process.wait(30) == 0 and "Traceback" not in process.stdout.read()
    finally:
        process.kill()


def test_it_says_where_it_is_once_it_listens_and_so_handles_signals(small_engine, monkeypatch):
    worker = Worker(small_engine, KeptPictures(2**20, 60.0), 4)
    server = Server(make_app(worker, "small", "f1", Limits(2**20, 60.0, 8), None), worker, 5.0)
    said = []

    async def listening(self, sockets):
        said.append("signals are handled")

    monkeypatch.setattr(uvicorn.Server, "startup", listening)
    monkeypatch.setattr(stopping, "print", lambda text, flush: said.append(text), raising=False)
    monkeypatch.setattr(worker, "start", lambda: None)
    monkeypatch.setattr(worker, "join", lambda timeout: None)
    monkeypatch.setattr(server, "run", lambda sockets: asyncio.run(server.startup(sockets)))
    server.answer(None, "here it is")
    assert said == ["signals are handled", "here it is"]
