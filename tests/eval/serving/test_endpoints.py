"""The server, asked over a socket by OpenAI's client and by worse ones."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Literal

import httpx
import numpy as np
import openai
import pydantic
import pytest
from PIL import Image

from eval.answering.confidences import Confidences
from eval.answering.served import chat_request, data_url
from eval.assist.estimated_depth import DepthModel
from eval.assist.segmented import Segmenter
from eval.serving import endpoints
from smolrgpt_jax.data.images import read_depth
from smolrgpt_jax.data.records import spread_questions
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.generation.likelihood import log_likelihoods
from tests.eval.serving.conftest import KEY, NEW_TOKENS, body, serving


def until(true, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def asked(direct) -> dict[str, dict]:
    """The arguments of OpenAI's client for each question."""
    pictures, _ = direct
    return {question.id: chat_request(picture, question) for picture in pictures for question in picture.questions}


def post(served, content, **headers) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=60) as client:
        sent = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}
        return client.post(f"{served.url}/v1/chat/completions", content=content, headers=sent)


def told(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    return response.status_code, error["message"]


def get(served, path: str, key: str = KEY) -> httpx.Response:
    return httpx.get(f"{served.url}{path}", headers={"Authorization": f"Bearer {key}"}, trust_env=False)


def test_an_answer_is_the_models_own(served, direct):
    _, expected = direct
    name, request = next(iter(asked(direct).items()))
    client = served.client()
    assert [model.id for model in client.models.list()] == ["small"]
    reply = client.chat.completions.create(model="small", **request)
    (choice,) = reply.choices
    assert choice.message.content == expected[name].text
    assert choice.finish_reason == ("length" if expected[name].cut_off else "stop")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert 0 < reply.usage.completion_tokens <= NEW_TOKENS and reply.system_fingerprint == "f1"


def test_a_stream_brings_the_same_text_in_pieces(served, direct):
    _, expected = direct
    pieces = []
    for name, request in list(asked(direct).items())[:4]:
        how = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(served.client().chat.completions.create(model="small", **how, **request))
        deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(deltas) == expected[name].text
        assert chunks[-1].usage.completion_tokens > 0 and chunks[-2].choices[0].finish_reason in ("stop", "length")
        pieces.append(len(deltas))
    assert max(pieces) > 4


class Likelihoods(Confidences):
    """Tells what it is called with, as a number from 0 to 1."""

    def __call__(self, category, likelihood):
        return 1 / (1 - likelihood)


def test_how_sure_an_answer_is_stands_beside_it(small_engine, small_model, direct, tmp_path, monkeypatch):
    pictures, _ = direct
    picture = pictures[0]
    question = picture.questions[0]
    text = "The pallet [Region 0] is to the left of the pallet [Region 1]."
    alone = dataclasses.replace(picture, questions=(question,))
    expected = 1 / (1 - log_likelihoods(small_model, [alone], {question.id: text})[question.id])
    monkeypatch.setattr(type(small_engine.tokenizer), "decode", lambda self, ids: text)
    request = chat_request(picture, question)
    sides = {"type": "object", "properties": {"side": {"enum": ["left", "right"]}}}
    schema = {"type": "json_schema", "json_schema": {"name": "side", "schema": sides}}
    sure = Likelihoods(tmp_path, "f1", {"left_right": (1.0, 0.0)})
    with serving(small_engine, confidences=sure) as served:
        (listed,) = served.client().models.list()
        assert listed.tells_confidence is True
        ask = served.client().chat.completions.create
        for how in ({}, {"response_format": schema}):
            (choice,) = ask(model="small", **how, **request).choices
            assert choice.confidence == pytest.approx(expected, rel=1e-4) and choice.confidence_word == "guessing"
        *_, last = ask(model="small", stream=True, **request)
        assert last.choices[0].confidence == pytest.approx(expected, rel=1e-4)
        (choice,) = ask(model="small", **chat_request(picture, picture.questions[1])).choices
        assert not hasattr(choice, "confidence"), "nothing was fitted to counts"
        monkeypatch.undo()
        (choice,) = ask(model="small", **request).choices
        assert not hasattr(choice, "confidence"), "its answer cannot be read"
    with serving(small_engine) as served:
        (choice,) = served.client().chat.completions.create(model="small", **request).choices
        assert not hasattr(choice, "confidence")
        (listed,) = served.client().models.list()
        assert listed.tells_confidence is False


def test_a_schema_is_kept_to_and_a_cut_text_told(served, direct):
    pictures, expected = direct

    class Side(pydantic.BaseModel):
        answer: str
        side: Literal["left", "right"]

    class Number(pydantic.BaseModel):
        pallets: int = pydantic.Field(ge=0, le=3)

    class Metres(pydantic.BaseModel):
        metres: float

    for question, shape in zip(pictures[0].questions, (Side, Number, Number, Metres), strict=True):
        schema = {"name": "n", "schema": shape.model_json_schema()}
        how = {"response_format": {"type": "json_schema", "json_schema": schema}, **chat_request(pictures[0], question)}
        (choice,) = served.client().chat.completions.create(model="small", **how).choices
        found = shape.model_validate_json(choice.message.content)
        assert choice.finish_reason == ("length" if expected[question.id].cut_off else "stop")
        if shape is Side:
            assert found.answer == expected[question.id].text
        (choice,) = served.client().chat.completions.create(model="small", max_tokens=1, **how).choices
        shape.model_validate_json(choice.message.content)
        assert choice.finish_reason == "length", "of a text of one token"


def test_several_choices_of_one_seed_are_drawn_alike_and_apart(served, direct):
    request = next(iter(asked(direct).values()))
    drawn = [
        [choice.message.content for choice in reply.choices]
        for reply in (
            served.client().chat.completions.create(model="small", n=3, temperature=1.5, seed=seed, **request)
            for seed in (1, 1, 2)
        )
    ]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 3


def test_32_clients_at_once_get_each_their_own_answer(served, direct):
    _, expected = direct
    requests = list(asked(direct).items())
    requests = (requests + requests)[:32]
    assert len({answer.text for answer in expected.values()}) > 14

    def ask(named):
        reply = served.client().chat.completions.create(model="small", **named[1])
        return named[0], reply.choices[0].message.content

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(ask, requests))
    assert found == [(name, expected[name].text) for name, _ in requests]
    shown = get(served, "/metrics").text
    assert 'smolrgpt_requests_total{status="200"} 32.0' in shown and "smolrgpt_pictures_kept 7.0" in shown
    assert "smolrgpt_queue_length 0.0" in shown and "smolrgpt_request_seconds_count 32.0" in shown


@pytest.fixture
def slow_steps(small_engine, monkeypatch):
    """An engine that takes its time, and the slots that it has cancelled."""
    step, cancel, cancelled = small_engine.step, small_engine.cancel, []

    def slow(steps):
        time.sleep(0.2)
        return step(min(steps, 2))

    monkeypatch.setattr(small_engine, "step", slow)
    monkeypatch.setattr(small_engine, "cancel", lambda slot: (cancelled.append(slot), cancel(slot)))
    return cancelled


def longest_request(direct) -> dict:
    _, expected = direct
    return next(request for name, request in asked(direct).items() if expected[name].cut_off)


def test_a_client_that_leaves_frees_its_slot(slow_steps, served, direct):
    request = longest_request(direct)
    stream = served.client().chat.completions.create(model="small", stream=True, **request)
    until(lambda: next(iter(stream)).choices[0].delta.content)
    assert served.worker.answering == 1
    stream.close()
    until(lambda: served.worker.answering == 0, 2.0)
    assert slow_steps == [0]
    with pytest.raises(openai.APITimeoutError):
        served.client().with_options(timeout=0.6).chat.completions.create(model="small", **request)
    until(lambda: served.worker.answering == 0, 2.0)
    assert slow_steps == [0, 0]


def test_too_many_and_too_slow_are_told(slow_steps, small_engine, direct):
    request = longest_request(direct)
    with serving(small_engine, queue=1, seconds=1.0) as served, ThreadPoolExecutor(8) as pool:

        def ask(_) -> int:
            try:
                served.client().chat.completions.create(model="small", **request)
            except openai.APIStatusError as error:
                assert error.response.json()["error"]["message"]
                if error.status_code == 429:
                    assert error.response.headers["Retry-After"] == "1"
                return error.status_code
            return 200

        found = list(pool.map(ask, range(8)))
        assert set(found) == {429, 504} and found.count(429) >= 3
        until(lambda: served.worker.idle, 5.0)


@pytest.fixture
def decoding(monkeypatch):
    """The large pictures being decoded, which takes until `go` is set; most: of them at once; all that were read."""
    state = SimpleNamespace(now=0, most=0, read=[], go=threading.Event())
    lock, whole = threading.Lock(), endpoints.read_rgb

    def read_rgb(picture, size):
        large = picture.width > 1000
        with lock:
            state.now += large
            state.most = max(state.most, state.now)
            state.read.append(picture)
        assert not large or state.go.wait(30)
        try:
            return whole(picture, size)
        finally:
            with lock:
                state.now -= large

    monkeypatch.setattr(endpoints, "read_rgb", read_rgb)
    return state


def asking_about(picture: Image.Image, folder) -> str:
    picture.save(folder / "asked.png")
    parts = [{"type": "image_url", "image_url": {"url": data_url(folder / "asked.png")}}]
    messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "Is it dark?"}]}]
    return json.dumps({"model": "small", "messages": messages})


def test_large_pictures_are_decoded_one_at_a_time_and_small_ones_meanwhile(served, decoding, tmp_path):
    large = [asking_about(Image.new("RGB", (5000, 3500 + number)), tmp_path) for number in range(5)]
    small = asking_about(Image.new("RGB", (40, 30)), tmp_path)
    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(post, served, content) for content in large]
        until(lambda: decoding.now)
        try:
            assert post(served, small).status_code == 200
        finally:
            decoding.go.set()
        assert {reply.result().status_code for reply in waiting} == {200}
    assert decoding.most == 1 and len(decoding.read) == 6


def test_what_a_picture_was_decoded_to_is_not_kept_until_its_answer(served, decoding, tmp_path):
    assert post(served, asking_about(Image.new("RGB", (40, 30)), tmp_path)).status_code == 200
    (picture,) = decoding.read
    with pytest.raises(ValueError, match="closed"):
        picture.getpixel((0, 0))


def test_bad_requests_get_one_sentence(served, warehouse):
    good = body(warehouse)
    cases = [
        (json.dumps(good), {"Authorization": "Bearer wrong"}, 401, "the API key is missing or wrong"),
        (json.dumps(good), {"Authorization": ""}, 401, "the API key is missing or wrong"),
        (json.dumps(good), {"Content-Type": "text/plain"}, 415, "the body's Content-Type is not application/json"),
        ("{", {}, 400, "the body is not JSON (Expecting property name"),
        (json.dumps(good | {"model": "gpt-4"}), {}, 404, "there is no model 'gpt-4' here, only 'small'"),
        (json.dumps(good | {"logprobs": True}), {}, 400, "'logprobs' is not supported"),
        (json.dumps(good | {"max_tokens": 4000}), {}, 400, f"answers take at most {NEW_TOKENS} tokens, not 4000"),
        (json.dumps(good | {"regions": good["regions"] * 20}), {}, 400, "there are 40 regions, at most 8 are read"),
        (b"x" * 100 * 2**20, {}, 413, "the body has more than 1 MiB"),
    ]
    parts = good["messages"][0]["content"]
    broken = [{"type": "image_url", "image_url": {"url": parts[0]["image_url"]["url"][:-80]}}, *parts[1:]]
    for content, sentence in ((broken, "is truncated or corrupt"), (parts[2:], "there is no picture")):
        cases.append((json.dumps(good | {"messages": [{"role": "user", "content": content}]}), {}, 400, sentence))
    for content, headers, status, sentence in cases:
        found, message = told(post(served, content, **headers))
        assert found == status and sentence in message
    assert told(get(served, "/v1/nothing")) == (404, "there is no GET /v1/nothing")
    assert told(get(served, "/v1/chat/completions")) == (405, "there is no GET /v1/chat/completions")
    assert get(served, "/metrics", "wrong").status_code == 401 and get(served, "/health", "wrong").status_code == 200
    assert post(served, json.dumps(good)).status_code == 200


def test_depth_is_estimated_once_for_the_questions_about_a_picture(
    small_engine, warehouse, tiny_depth_model, monkeypatch
):
    model, made, seen, read = DepthModel(str(tiny_depth_model)), [], [], small_engine.read_picture
    monkeypatch.setattr(small_engine, "read_picture", lambda image, depth: seen.append(depth) or read(image, depth))
    pixels = np.random.default_rng(0).integers(0, 256, (60, 96, 3), np.uint8)
    Image.fromarray(pixels).save(warehouse / "val/images/000100.png")
    flat = body(warehouse)
    parts = flat["messages"][0]["content"]
    estimated = flat | {"messages": [{"role": "user", "content": [parts[0], parts[2]]}], "depth": "estimate"}

    class Counted:
        def estimate(self, picture):
            made.append(picture)
            return model.estimate(picture)

    def text(served, request):
        return post(served, json.dumps(request)).json()["choices"][0]["message"]["content"]

    with serving(small_engine, depth_model=Counted()) as served:
        found = [text(served, estimated), text(served, estimated)]
    assert len(made) == len(seen) == 1 and found[0] == found[1]
    size = small_engine.config.vision.image_size
    np.testing.assert_array_equal(seen[0], read_depth(model.estimate(pixels), size, beside=made[0]))
    with serving(small_engine) as served:
        sentence = "this server estimates no depth, it runs without --depth_model"
        assert told(post(served, json.dumps(estimated))) == (400, sentence)


def test_a_click_is_answered_as_its_mask_is(small_engine, warehouse, tiny_segmenter):
    segmenter, clicks = Segmenter(str(tiny_segmenter)), {}
    for click in [(x, y) for x in range(5, 96, 10) for y in range(5, 60, 10)]:
        with contextlib.suppress(DataError):  # at some places random weights find nothing
            (mask,) = segmenter.segment(warehouse / "val/images/000100.png", [click])
            clicks.setdefault(mask, click)
    assert len(clicks) > 1
    clicks = dict(list(clicks.items())[:2])
    drawn = [{"size": [60, 96], "counts": mask.counts.decode()} for mask in clicks]
    with serving(small_engine, segmenter=segmenter) as served:
        found = [
            post(served, json.dumps(body(warehouse, regions=regions))).json()["choices"][0]["message"]["content"]
            for regions in ([{"click": click} for click in clicks.values()], drawn)
        ]
    assert found[0] == found[1]


def test_a_model_that_fails_is_told_and_goes_on(served, small_engine, direct, monkeypatch):
    _, expected = direct
    name, request = next(iter(asked(direct).items()))

    def fail(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED")

    with monkeypatch.context() as patched:
        patched.setattr(small_engine, "step", fail)
        with pytest.raises(openai.InternalServerError, match="the server failed"):
            served.client().chat.completions.create(model="small", **request)
    reply = served.client().chat.completions.create(model="small", **request)
    assert reply.choices[0].message.content == expected[name].text


def test_clients_of_a_server_that_stops_get_answers_or_are_told(slow_steps, small_engine, direct):
    pictures, expected = direct
    (picture,) = spread_questions(pictures, 1)
    requests = list(asked(direct).items())[:8]
    with serving(small_engine) as served, ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda named: served.client().chat.completions.create(model="small", **named[1]), requests)
        until(lambda: served.worker.answering == 4 and served.worker.waiting == 4)
        served.server.handle_exit(15, None)
        until(lambda: get(served, "/health").status_code == 503, 2.0)
        refused = post(served, json.dumps(body(picture.image.parents[2])))
        assert told(refused) == (503, "the server is being stopped") and refused.headers["Retry-After"] == "5"
        assert [reply.choices[0].message.content for reply in found] == [expected[name].text for name, _ in requests]
        served.thread.join(10)
        assert not served.thread.is_alive()


def test_what_is_not_answered_within_the_grace_is_told(slow_steps, small_engine, direct):
    request = longest_request(direct)
    with serving(small_engine, grace=0.5) as served, ThreadPoolExecutor(8) as pool:

        def ask(stream: bool) -> str:
            try:
                reply = served.client().chat.completions.create(model="small", stream=stream, **request)
                return "".join(chunk.choices[0].delta.content or "" for chunk in reply) if stream else "answered"
            except openai.APIError as error:
                return error.message

        found = [pool.submit(ask, number == 0) for number in range(8)]
        until(lambda: served.worker.answering == 4)
        served.server.handle_exit(15, None)
        assert all("the server is being stopped" in reply.result() for reply in found)
