from __future__ import annotations

import contextlib
import email.utils
import json
import pickle
import re
import socket
import sqlite3
import sys
import threading
import time
import zlib

import diskcache
import jsonschema
import pytest

import eval.reading.server as module
from eval.reading.chat_server import ServerError
from eval.reading.methods import server_method
from eval.reading.server import AnswerServer, make_request, parse_reply
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.errors import DataError
from tests.eval.fake_server import FakeServer

VALUES = {"left_right": "left", "count": 3, "mcq": 7, "distance": 2.5}


def value_of(body: dict):
    return VALUES[body["response_format"]["json_schema"]["name"]]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    fake = FakeServer()
    fake.reply = lambda number, body: (200, {}, fake.content(value_of(body)))
    yield fake
    fake.close()


@pytest.fixture
def config(server, tmp_path, monkeypatch):
    """Makes askers of the server, which wait a millisecond before they try again."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)

    def build(**settings) -> AnswerServer:
        given = {"workers": 3, "retries": 2, "timeout": 30.0, **settings}
        url, model = given.pop("url", server.url), given.pop("model", "small")
        return AnswerServer(url, model, tmp_path / "new" / "cache", **given)

    return build


def item(number: int, category: str = "count") -> dict:
    return {"id": str(number), "category": category, "question": f"How many? {number}", "answer": f"Some {number}."}


def ask(asker: AnswerServer, items: list[dict]) -> list:
    return asker.values(items, progress=False)


def test_each_category_is_asked_with_a_schema_of_its_own(server, config):
    items = [item(n, category) for n, category in enumerate(WAREHOUSE_CATEGORIES)]
    assert ask(config(), items) == [VALUES[category] for category in WAREHOUSE_CATEGORIES]
    by_category = {body["response_format"]["json_schema"]["name"]: body for body in server.requests}
    for body in by_category.values():
        assert body["model"] == "small" and body["temperature"] == 0
        form = body["response_format"]
        assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
        jsonschema.Draft202012Validator.check_schema(form["json_schema"]["schema"])
    assert by_category["mcq"]["messages"][1]["content"] == "Question: How many? 2\n\nAnswer: Some 2."


@pytest.mark.parametrize("category", WAREHOUSE_CATEGORIES)
def test_the_schemas_take_values_of_their_category_and_null_only(category):
    fits = {"left_right": ["left", "right"], "count": [0, 4], "mcq": [0, 12], "distance": [0, 3.25]}
    others = {"left_right": ["up", 1], "count": [1.5, "left"], "mcq": [0.5, "3"], "distance": ["3 m", "left"]}
    check = jsonschema.Draft202012Validator(
        make_request("m", category, "Q", "A")["response_format"]["json_schema"]["schema"]
    )
    for value in [*fits[category], None]:
        assert check.is_valid({"value": value})
    for value in others[category]:
        assert not check.is_valid({"value": value})
    assert not check.is_valid({}) and not check.is_valid({"value": None, "why": ""})


def test_a_category_that_is_not_published_is_taken_from_the_question(server, config):
    items = [{**item(1, ""), "question": "How far is it?"}, {**item(2, ""), "question": "Hello?"}]
    assert ask(config(), items) == [2.5, None]
    assert len(server.requests) == 1


def test_equal_answers_and_empty_ones_are_not_asked_again(server, config):
    items = [item(1), {**item(1), "id": "2"}, {**item(3), "answer": " "}]
    assert ask(config(), items) == [3, 3, None]
    assert len(server.requests) == 1


def test_known_answers_come_from_the_cache_also_null(server, config):
    server.reply = lambda number, body: (200, {}, server.content(None))
    assert ask(config(), [item(1), item(2)]) == [None, None]
    server.reply = lambda number, body: (200, {}, server.content(4))
    assert ask(config(), [item(1), item(2), item(3)]) == [None, None, 4]
    assert len(server.requests) == 3
    # Another category is another schema, another model another answer.
    assert ask(config(), [item(1, "mcq")]) == [4]


def test_no_more_requests_than_workers_are_under_way_at_once(server, config):
    lock, active, most = threading.Lock(), [], []

    def reply(number, body):
        with lock:
            active.append(None)
            most.append(len(active))
        # Long enough for further requests to come, if they were sent.
        threading.Event().wait(0.05)
        with lock:
            active.pop()
        return 200, {}, server.content(1)

    server.reply = reply
    assert ask(config(workers=2), [item(n) for n in range(8)]) == [1] * 8
    assert max(most) <= 2


def test_a_server_that_fails_or_is_busy_is_asked_again(server, config):
    def reply(number, body):
        failures = [(500, {}, "boom"), (429, {"Retry-After": "0"}, "later")]
        return failures[number] if number < 2 else (200, {}, server.content(number))

    server.reply = reply
    assert ask(config(), [item(n) for n in range(6)]) == [2] * 6
    assert len(server.requests) == 18


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        "[]",
        '{"choices": []}',
        '{"choices": [{"message": {"content": null}}]}',
        '{"choices": [{"message": {"content": "two"}}]}',
        '{"choices": [{"message": {"content": "{\\"number\\": 2}"}}]}',
        '{"choices": [{"message": {"content": "{\\"value\\": \\"many\\"}"}}]}',
        '{"choices": [{"message": {"content": "{\\"value\\": -1}"}}]}',
        '{"choices": [{"message": {"content": "{\\"value\\": 2.5}"}}]}',
        '{"choices": [{"message": {"content": "{\\"value\\": 1e999}"}}]}',
        '{"choices": [{"message": {"content": "<think>It is {\\"value\\": 3}.</think> No idea."}}]}',
        '{"choices": [{"message": {"content": "<think>It may be {\\"value\\": 3}, or"}}]}',
    ],
)
def test_a_reply_that_violates_the_schema_is_asked_for_again_and_drawn_anew(server, config, text):
    server.reply = lambda number, body: (200, {}, text if number == 0 else server.content(2))
    assert ask(config(), [item(1)]) == [2]
    first, second = server.requests
    assert (first["temperature"], first["seed"]) == (0, 0)
    assert second["temperature"] > 0 and second["seed"] == 1


def test_an_answer_whose_replies_never_follow_the_schema_is_unreadable_and_counted(server, config, capsys):
    server.reply = lambda number, body: (200, {}, server.content("many" if "1" in str(body["messages"]) else 4))
    asker = config()
    assert asker.values([item(1), item(2)], progress=False) == [None, 4]
    assert len(asker.unusable) == 1 and "many" in asker.unusable[0] and len(server.requests) == 4
    assert server_method(asker)([item(1)]) == [None]
    assert f"1 answers got no reply of {server.url} that follows the schema in 3 tries" in capsys.readouterr().out
    # It is not kept as an answer.
    server.reply = lambda number, body: (200, {}, server.content(5))
    assert asker.values([item(1), item(2)], progress=False) == [5, 4]
    assert asker.unusable == []


@pytest.mark.parametrize(
    "content, more",
    [
        ('<think>\nFirst {"value": 1}.\n</think>\n\nJSON', {}),
        ("<think>\nMaybe { or }?\n</think>JSON", {}),
        ('Not {"value": 9} but {"why": "seen", "value": 8}, no:\nJSON', {}),
        ('JSON and then {"other": 1}', {}),
        ("JSON", {"reasoning_content": '{"value": 9}'}),
        ("```json\nJSON\n```", {}),
        ("Of {the two} here is the JSON:\nJSON", {}),
        ("\ufeffJSON\n", {}),
        (None, {"reasoning_content": "JSON"}),
        ("", {"reasoning": "I think\nJSON"}),
    ],
)
def test_the_value_is_found_in_fences_thoughts_and_prose(server, config, content, more):
    def reply(number, body):
        value = json.dumps({"value": value_of(body)})
        message = {"content": content, **more}
        message = {name: text and text.replace("JSON", value) for name, text in message.items()}
        return 200, {}, json.dumps({"choices": [{"message": message}]})

    server.reply = reply
    items = [item(n, category) for n, category in enumerate(WAREHOUSE_CATEGORIES)]
    assert ask(config(), items) == [VALUES[category] for category in WAREHOUSE_CATEGORIES]
    assert len(server.requests) == len(items)


@pytest.mark.parametrize(
    "kind, reply",
    [
        ("text/html", "<html>please log in</html>"),
        ("application/json", json.dumps({"error": {"message": "model not found"}})),
        ("application/json", FakeServer.content("2.5 m")),
        ("application/json", '{"choices": [{"message": {"content": "{\\"value\\": NaN}"}}]}'),
    ],
)
def test_a_server_that_never_follows_the_schema_is_quoted_after_a_few_answers(server, config, kind, reply):
    server.reply = lambda number, body: (200, {"Content-Type": kind}, reply)
    with pytest.raises(ServerError) as error:
        ask(config(workers=2), [item(n) for n in range(50)])
    assert f"{server.url} does not reply in the schema but with {reply}" in str(error.value)
    assert "0 of 50 new answers are kept" in str(error.value) and len(server.requests) <= 3 * 6


@pytest.mark.parametrize(
    "header",
    ["1", " 1.5 ", lambda: email.utils.formatdate(time.time() + 2, usegmt=True)],
    ids=["whole", "part", "date"],
)
def test_a_busy_server_is_waited_for_as_long_as_it_says(server, config, header):
    times = []

    def reply(number, body):
        times.append(time.monotonic())
        wait = header() if callable(header) else header
        return (200, {}, server.content(1)) if number else (429, {"Retry-After": wait}, "slow down")

    server.reply = reply
    assert ask(config(), [item(1)]) == [1]
    assert 0.9 <= times[1] - times[0] < 20


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_loopback_address_is_asked_without_the_proxy(server, config, monkeypatch, name):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    url = server.url.replace("127.0.0.1", name)
    config(url=url).check()
    assert ask(config(url=url), [item(1)]) == [3]


def test_another_address_is_another_cache(server, config):
    assert ask(config(), [item(1)]) == [3]
    assert ask(config(url=server.url.replace("127.0.0.1", "localhost")), [item(1)]) == [3]
    assert len(server.requests) == 2


def test_another_model_is_another_cache_and_a_slash_at_the_end_none(server, config):
    assert ask(config(), [item(1)]) == [3]
    server.reply = lambda number, body: (200, {}, server.content(4))
    assert ask(config(model="large"), [item(1)]) == [4]
    assert ask(config(url=f"{server.url}/"), [item(1)]) == [3]
    assert [body["model"] for body in server.requests] == ["small", "large"]


def test_the_cache_holds_json_and_no_pickle_in_it_is_loaded(server, config, tmp_path):
    asker = config()
    assert ask(asker, [item(1), item(2, "left_right")]) == [3, "left"]
    with contextlib.closing(sqlite3.connect(asker.cache / "cache.db")) as cache, cache:
        kept = cache.execute("SELECT key, value FROM Cache ORDER BY rowid").fetchall()
        keys, values = ([json.loads(zlib.decompress(cell)) for cell in cells] for cells in zip(*kept))
        assert sorted(values, key=str) == [3, "left"] and all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)
        planted = pickle.dumps(Planted(tmp_path / "ran"))
        cache.execute("UPDATE Cache SET mode = ?, value = ?", (diskcache.core.MODE_PICKLE, planted))
    with pytest.raises(DataError, match="cache: cannot be used as a cache of answers .it holds a pickle"):
        ask(config(), [item(1)])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", ["substr(value, 1, length(value) / 2)", "x'00'"])
def test_a_damaged_answer_in_the_cache_is_told(server, config, damage):
    asker = config()
    assert ask(asker, [item(1)]) == [3]
    with contextlib.closing(sqlite3.connect(asker.cache / "cache.db")) as cache, cache:
        cache.execute(f"UPDATE Cache SET value = {damage}")
    with pytest.raises(DataError, match="cache: cannot be used as a cache of answers .an answer in it is damaged"):
        ask(config(), [item(1)])


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return self.file.touch, ()


def test_without_the_extra_what_to_install_is_told(server, config, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ServerError, match=r'pip install -e "\.\[server\]"'):
        config()


def test_a_reply_that_takes_too_long_is_asked_for_again(server, config):
    again = threading.Event()

    def reply(number, body):
        if number == 0:
            again.wait(60)
        again.set()
        return 200, {}, server.content(number)

    server.reply = reply
    (value,) = ask(config(timeout=0.3, retries=50), [item(1)])
    assert value >= 1 and len(server.requests) >= 2


def test_a_server_that_keeps_failing_ends_the_run_and_the_cache_keeps_what_it_said(server, config):
    server.reply = lambda number, body: (
        (503, {}, "") if "How many? 3" in body["messages"][1]["content"] else (200, {}, server.content(1))
    )
    settings = config(workers=1)
    with pytest.raises(ServerError) as error:
        ask(settings, [item(n) for n in range(6)])
    assert f"{server.url} cannot be asked (3 tries, the last one: HTTP 503)" in str(error.value)
    assert f"3 of 6 new answers are kept in {settings.cache}" in str(error.value)
    asked = len(server.requests)
    server.reply = lambda number, body: (200, {}, server.content(2))
    assert ask(settings, [item(n) for n in range(6)]) == [1, 1, 1, 2, 2, 2]
    assert len(server.requests) == asked + 3


def test_a_run_that_is_interrupted_keeps_its_answers(server, config, monkeypatch):
    def interrupted(values, **settings):
        for number, value in enumerate(values):
            if number == 2:
                raise KeyboardInterrupt
            yield value

    monkeypatch.setattr(module, "tqdm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(config(workers=1), [item(n) for n in range(30)])
    before = len(server.requests)
    assert 3 <= before < 30
    monkeypatch.undo()
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert ask(config(), [item(n) for n in range(30)]) == [3] * 30
    assert len(server.requests) == 30


def test_a_server_that_is_not_there_is_one_sentence_with_its_url(config):
    # Bound but not listening: connections are refused, and nobody else gets the port.
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(ServerError) as error:
            config(url=url).check()
    assert str(error.value).startswith(f"{url} cannot be asked (3 tries, the last one: [Errno ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["localhost:1/v1", "", "http://", "http://localhost:x/v1", "http://[/v1"])
def test_a_url_that_is_none_is_refused_at_once(config, url):
    with pytest.raises(ValueError, match="cannot be asked|Port|Invalid"):
        config(url=url)


def test_a_server_that_refuses_is_not_asked_again_and_quoted(server, config):
    server.reply = lambda number, body: (404, {}, '{"error": {"message": "model small\\nnot found"}}')
    with pytest.raises(ServerError, match="HTTP 404: .*model small.*not found") as error:
        ask(config(workers=1), [item(1), item(2)])
    assert len(server.requests) == 1 and "\n" not in str(error.value)


def test_a_server_without_a_list_of_models_can_be_reached(server, config):
    config(url=server.url.removesuffix("/v1")).check()
    config().check()


def test_a_key_that_is_refused_is_told_before_anything_is_asked(server, config):
    server.models = 401
    with pytest.raises(ServerError, match=f"{server.url} refuses with HTTP 401"):
        config().check()


def test_the_key_comes_from_the_environment(server, config, monkeypatch):
    ask(config(), [item(1)])
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    ask(config(), [item(2)])
    given = [{name.lower(): value for name, value in headers.items()} for headers in server.headers]
    assert [headers.get("authorization") for headers in given] == [None, "Bearer secret"]


@pytest.mark.parametrize(
    "url, sent",
    [
        ("http://example.org/v1", False),
        ("http://127.0.0.1.example.org/v1", False),
        ("http://192.168.0.1/v1", False),
        ("https://example.org/v1", True),
        ("http://127.3.2.1/v1", True),
        ("http://[::1]/v1", True),
        ("http://0.0.0.0:8000/v1", True),
        ("http://localhost:11434/v1", True),
        ("http://LocalHost/v1", True),
        ("http://localhost.example.org/v1", False),
    ],
)
def test_the_key_does_not_leave_this_machine_in_the_clear(config, monkeypatch, url, sent):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert (config(url=url)._server.key == "secret") == sent
    assert config(url=url, key_in_clear=True)._server.key == "secret"


def test_a_wait_that_is_too_long_is_told(server, config):
    server.reply = lambda number, body: (429, {"Retry-After": "900"}, "later")
    with pytest.raises(ServerError, match="the last one: HTTP 429, Retry-After: 900"):
        ask(config(), [item(1)])


@pytest.mark.parametrize("key", ["schl\N{HEAVY CHECK MARK}ssel", "secret\n"])
def test_a_key_that_no_request_can_carry_is_one_sentence(config, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ServerError, match="^OPENAI_API_KEY holds a character that no key has") as caught:
        config()
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_cache_that_is_something_else_is_refused(server, config):
    asker = config()
    asker.cache.parent.mkdir()
    asker.cache.write_text("no folder")
    with pytest.raises(DataError, match="cache: cannot be used as a cache of answers"):
        ask(asker, [item(1)])
    assert asker.cache.read_text() == "no folder" and not server.requests
    asker.cache.unlink()
    asker.cache.mkdir()
    (asker.cache / "cache.db").write_text("no database, but a text that is long enough to be looked at. " * 9)
    with pytest.raises(DataError, match="cache: cannot be used as a cache of answers"):
        ask(asker, [item(1)])


@pytest.mark.parametrize("settings", [{"workers": 0}, {"retries": -1}, {"timeout": 0}, {"timeout": float("nan")}])
def test_settings_that_ask_nothing_are_refused(config, settings):
    with pytest.raises(ValueError, match="are no way to ask a server"):
        config(**settings)


def test_a_request_says_what_the_value_is():
    said = make_request("m", "distance", "Q", "A")["messages"][0]["content"]
    assert "metres" in said and parse_reply("distance", FakeServer.content("3.5")) == 3.5
