"""Other models asked about numbered marks, against a stand-in for their server."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import threading

import numpy as np
import pytest
from PIL import Image

from eval.answering.asking import journal_path
from eval.answering.other_models import PROMPT, OtherModel, Prompt
from eval.answering.warehouse import evaluate
from eval.compare import main as compare
from eval.reading.bench_rules import CATEGORIES, QUANTITATIVE, bench_answer
from eval.reading.chat_server import ChatServer
from eval.reading.rules import normalized_answer
from eval.report.overlay import colour_of
from eval.spatialrgpt_bench import main as bench
from eval.warehouse import main
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES, Question
from smolrgpt_jax.data.sources.formats import read_bench, read_warehouse
from smolrgpt_jax.errors import DataError
from tests.eval.fake_server import FakeServer

USAGE = {"prompt_tokens": 700, "completion_tokens": 20, "total_tokens": 720}
ANSWERS = {
    "left or right": "<think>Maybe right.</think>\nIt stands to the left of it.\nAnswer: left",
    "How many": "There are 3 pallets, of which 1 is not in the region.\nAnswer: 2",
    "Which pallet": "Region 0 is far away, so\n\n**Answer: [Region 1]**",
    "How far": "About 3 metres to the shelf and 1 more.\nAnswer: 4.0 meters",
}


def reply(content, finish="stop", usage=USAGE, **more) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    return json.dumps({"choices": [choice]} | ({} if usage is None else {"usage": usage}))


def text_of(body: dict) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def answer_of(body: dict) -> str:
    return next(answer for words, answer in ANSWERS.items() if words in text_of(body))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.001)
    fake = FakeServer()
    fake.reply = lambda number, body: (200, {}, reply(answer_of(body)))
    yield fake
    fake.close()


def ask(server, data, out, *more: str) -> None:
    command = bench if (data / "SpatialRGPT-Bench_v1.json").exists() else main
    how = ["--answerer", "openai", "--server", server.url, "--model", "other", "--server_retries", "2"]
    command([*how, "--data", str(data), "--out", str(out), *more])


def read(folder, name="predictions.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture
def first(warehouse):
    """The first val picture and its question about five regions, with a picture that is not all of one colour."""
    picture = read_warehouse(warehouse, "val")[0]
    return picture, next(question for question in picture.questions if question.category == "count")


def asked(**how) -> OtherModel:
    return OtherModel(ChatServer("http://127.0.0.1:9/v1", "--answerer openai"), "other", Prompt.read(PROMPT), **how)


def pictures_of(request: dict) -> list[np.ndarray]:
    parts = request["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    files = [io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))) for url in urls]
    return [np.asarray(Image.open(file).convert("RGB")).astype(int) for file in files]


def test_a_request_numbers_the_regions_as_its_picture_does(first):
    request = asked().request(*first)
    text = text_of(request)
    assert re.findall(r"\[Region (\d)\]", text) == list("01234") and "<mask>" not in text and "{" not in text
    (pixels,) = pictures_of(request)
    assert pixels.shape == (60, 96, 3)
    for index, (x, y) in enumerate([(6 + 12 * k, 10 + 5 * k) for k in range(5)]):
        row = pixels[y - 2 : y, x + 3 : x + 6].reshape(-1, 3)  # right above the region
        assert np.abs(row - colour_of(index)).max(1).min() < 40, index
    assert request["temperature"] == 0 and "max_tokens" not in request and request["model"] == "other"
    assert asked().request(*first, 50)["max_tokens"] == 50


def test_depth_is_a_second_picture_with_the_same_marks(first):
    request = asked(with_depth=True).request(*first)
    rgb, depth = pictures_of(request)
    assert rgb.shape == depth.shape and tuple(depth[55, 3]) == (128, 128, 128)
    assert np.abs(depth[9, 10] - colour_of(0)).max() < 40
    assert "second picture" in text_of(request) and "second picture" not in text_of(asked().request(*first))
    bare = dataclasses.replace(first[0], depth=None)
    with pytest.raises(DataError, match="record '000100-count': its picture has no depth"):
        asked(with_depth=True).request(bare, first[1])


def test_the_control_without_a_picture_says_the_same(first):
    for depth in (False, True):
        control = asked(no_picture=True, with_depth=depth).request(*first)
        assert control["messages"] == [{"role": "user", "content": text_of(asked(with_depth=depth).request(*first))}]


def test_further_fields_are_added_and_taken_out(first):
    request = asked(further={"temperature": None, "seed": 3}).request(*first)
    assert "temperature" not in request and request["extra_body"] == {"seed": 3}


def test_a_conversation_is_numbered_through(first):
    turns = (("Where is <mask>?", "There."), ("And <mask>?", "Here."))
    question = dataclasses.replace(first[1], prompt="How far is <mask> from <mask>?", earlier=turns)
    first_turn, answer, second, _, last = asked().request(first[0], question)["messages"]
    assert "Where is [Region 0]?" in first_turn["content"][-1]["text"]
    assert [answer["role"], second["content"], last["content"]] == [
        "assistant",
        "And [Region 1]?",
        "How far is [Region 2] from [Region 3]?",
    ]


@pytest.mark.parametrize("category", [*WAREHOUSE_CATEGORIES, *CATEGORIES])
def test_the_form_that_is_asked_for_is_read(category):
    prompt = (
        "Which pallet of <mask> <mask> <mask> can the transporter <mask> reach?" if category == "mcq" else "Is <mask>?"
    )
    form = Prompt.read(PROMPT).turns(Question("q", category, prompt, None, None), False)[0].splitlines()[-1]
    line, _, _ = form.partition("  (")
    said = re.sub(r"\b[NLDH]\b", "2", line)
    reasoned = f"The [Region 0] looks wider, 7 feet or so, but no: at 5 o'clock there is nothing to its right.\n{said}"
    if category in WAREHOUSE_CATEGORIES:
        expected = {"left_right": "left", "count": 2, "mcq": 2, "distance": 2.0}[category]
        assert normalized_answer(category, prompt, reasoned) == expected
    elif category.endswith("_predicate"):
        assert bench_answer(category, reasoned) is True
    else:
        assert bench_answer(category, reasoned) == (2 if category in QUANTITATIVE.values() else 0)


def test_answers_are_read_scored_and_their_tokens_added_up(server, warehouse, tmp_path, capsys):
    ask(server, warehouse, tmp_path / "out", "--server_workers", "3")
    found = read(tmp_path / "out")
    values = {item["category"]: item["normalized_answer"] for item in found}
    assert values == {"left_right": "left", "count": 2, "mcq": 1, "distance": 4.0}
    assert all(item["tokens"] == {"prompt": 700, "completion": 20} for item in found)
    assert found[0]["answer"] == "It stands to the left of it.\nAnswer: left"
    metrics, run = read(tmp_path / "out", "metrics.json"), read(tmp_path / "out", "run.json")
    assert metrics["left_right"] == 100 and metrics["unreadable"] == 0 and "blind_S1" in metrics
    assert metrics["tokens"]["prompt"] == {"sum": 19600, "mean": 700, "most": 700}
    assert run["checkpoint"] == "other" and run["prompt"].startswith("marks_prompt.toml, version 1 (")
    assert run["questions"] == 28 and run["seconds"] > 0 and run["pictures"] == "RGB, marked"
    report = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "19600 prompt (700.0 per question, 700 at most)" in report and run["prompt"] in report
    assert "tokens of 28 questions, as the server counts: 19600 prompt (700.0 per question)" in capsys.readouterr().out
    assert not list(tmp_path.glob(".out*"))


def test_the_bench_is_answered_too(server, bench_folder, tmp_path):
    def answer(number, body):
        form = text_of(body).splitlines()[-1]
        said = "Answer: yes" if "yes" in form else "Answer: Region [0]" if "Region" in form else "I cannot tell."
        return 200, {}, reply(said)

    server.reply = answer
    ask(server, bench_folder, tmp_path / "out")
    pictures = read_bench(bench_folder)
    asked = {question.id: question for picture in pictures for question in picture.questions}
    for item in read(tmp_path / "out"):
        form = item["category"].rpartition("_")[2]
        expected = {"predicate": True, "choice": 0}.get(form) if form in ("predicate", "choice") else None
        assert item["value"] is expected or item["value"] == expected
    metrics = read(tmp_path / "out", "metrics.json")
    assert metrics["tokens"]["questions"] == len(asked) and 0 < metrics["unreadable"] < len(asked)
    assert "700 at most" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "Region [0]" in text_of(server.requests[0]) and read(tmp_path / "out", "run.json")["checkpoint"] == "other"


def test_a_server_that_fails_or_is_busy_is_asked_again(server, warehouse, tmp_path):
    def fail(number, body):
        failures = [(500, {}, "boom"), (429, {"Retry-After": "0"}, "later")]
        return failures[number] if number < 2 else (200, {}, reply(answer_of(body)))

    server.reply = fail
    ask(server, warehouse, tmp_path / "out", "--limit", "4")
    assert len(read(tmp_path / "out")) == 4 and len(server.requests) == 12


def test_a_slow_reply_is_asked_for_again(server, warehouse, tmp_path):
    again = threading.Event()

    def slow(number, body):
        if number == 0 and not again.is_set():
            again.wait(60)
        again.set()
        return 200, {}, reply(answer_of(body))

    server.reply = slow
    ask(server, warehouse, tmp_path / "out", "--limit", "1", "--server_timeout", "0.5", "--server_retries", "20")
    assert len(read(tmp_path / "out")) == 1 and len(server.requests) >= 2


def test_what_cannot_be_read_or_does_not_end_is_counted_and_nothing_is_told_of_tokens(server, warehouse, tmp_path):
    def answer(number, body):
        if "How far" in text_of(body):
            return 200, {}, reply("I am sorry, I cannot judge distances.", usage=None)
        if "How many" in text_of(body):
            return 200, {}, reply("<think>One, two", "length", usage={"prompt_tokens": 10**400, "completion_tokens": 1})
        if "Which pallet" in text_of(body):
            return 200, {}, reply(None, usage=None, reasoning_content="Answer: 1")
        return 200, {}, reply([{"type": "text", "text": "Answer: "}, {"type": "text", "text": "left"}], usage=None)

    server.reply = answer
    ask(server, warehouse, tmp_path / "out")
    metrics = read(tmp_path / "out", "metrics.json")
    assert (metrics["unreadable"], metrics["cut_off"], metrics["left_right"]) == (21, 7, 100)
    assert "tokens" not in metrics and not any("tokens" in item for item in read(tmp_path / "out"))
    report = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "21 answers could not be read and count as wrong" in report and "as the server counts" not in report


def test_a_question_that_gets_no_answer_counts_as_wrong_and_is_named(server, warehouse, tmp_path, capsys):
    def answer(number, body):
        if "How many" in text_of(body):
            return 400, {}, '{"error": {"message": "content\\nfilter"}}'
        if "Which pallet" in text_of(body):
            return 200, {"Content-Type": "text/html"}, "<html>please log in</html>"
        return 200, {}, reply(answer_of(body))

    server.reply = answer
    ask(server, warehouse, tmp_path / "out", "--server_workers", "1")
    found = read(tmp_path / "out")
    assert {item["category"] for item in found if item["answer"] == ""} == {"count", "mcq"}
    printed = capsys.readouterr().out
    assert "14 bad records left out" in printed and "record '000100-count'" in printed and "HTTP 400" in printed
    assert "does not reply as a chat server but with <html>please log in</html>" in printed


@pytest.mark.parametrize(
    "status, text, sentence",
    [
        (404, '{"error": {"message": "no model other"}}', "refuses with HTTP 404: .*no model other"),
        (401, "wrong key", "refuses with HTTP 401: wrong key"),
        (400, "no vision", "answers none of the first questions: record '.*': .*HTTP 400: no vision"),
        (200, "<html>", "answers none of the first questions: .*does not reply as a chat server but with <html>"),
        (200, '{"error": "x"}', "answers none of the first questions"),
        (503, "", r"cannot be asked \(3 tries, the last one: HTTP 503\)"),
        (429, "later", r"cannot be asked \(3 tries, the last one: HTTP 429, Retry-After: 900\)"),
    ],
)
def test_a_server_that_answers_nothing_ends_with_one_sentence(server, warehouse, tmp_path, status, text, sentence):
    server.reply = lambda number, body: (status, {"Retry-After": "900"} if status == 429 else {}, text)
    with pytest.raises(SystemExit, match=sentence) as stop:
        ask(server, warehouse, tmp_path / "out", "--server_workers", "2")
    assert "\n" not in str(stop.value) and "nothing is answered" in str(stop.value)
    assert not (tmp_path / "out").exists() and len(server.requests) < 28 * 3


def test_a_single_picture_that_gets_no_answer_is_no_score_of_zero(server, warehouse, tmp_path):
    records = read(warehouse, "val.json")[:4]
    (warehouse / "val.json").write_text(json.dumps(records), encoding="utf-8")
    server.reply = lambda number, body: (400, {}, "no vision")
    with pytest.raises(SystemExit, match="answers no question: record '000100-left_right': .*HTTP 400: no vision"):
        ask(server, warehouse, tmp_path / "out", "--server_workers", "1")


def test_a_run_that_was_stopped_goes_on_with_what_it_took(server, warehouse, tmp_path):
    def answer(number, body):
        return (404, {}, "gone") if len(server.requests) > 10 else (200, {}, reply(answer_of(body)))

    server.reply = answer
    with pytest.raises(SystemExit, match=r"HTTP 404: gone; 10 of 28 answers are kept, the same command goes on"):
        ask(server, warehouse, tmp_path / "out", "--server_workers", "1")
    assert journal_path(tmp_path / "out").exists()
    server.reply = lambda number, body: (200, {}, reply(answer_of(body), "length", {**USAGE, "prompt_tokens": 100}))
    with pytest.raises(SystemExit, match="holds answers of another run .other pictures."):
        ask(server, warehouse, tmp_path / "out", "--with_depth")
    other = tmp_path / "prompt.toml"
    other.write_text(PROMPT.read_text().replace('version = "1"', 'version = "2"'))
    with pytest.raises(SystemExit, match="holds answers of another run .other prompt."):
        ask(server, warehouse, tmp_path / "out", "--prompt", str(other))
    asked = len(server.requests)
    ask(server, warehouse, tmp_path / "out")
    assert len(server.requests) == asked + 18
    metrics, run = read(tmp_path / "out", "metrics.json"), read(tmp_path / "out", "run.json")
    assert metrics["tokens"]["prompt"]["sum"] == 10 * 700 + 18 * 100 and metrics["cut_off"] == 18
    assert run["seconds"] is None  # of a part of the questions


def test_the_text_alone_is_sent_without_a_picture(server, warehouse, tmp_path):
    ask(server, warehouse, tmp_path / "out", "--no_picture", "--limit", "4")
    assert all(isinstance(body["messages"][0]["content"], str) for body in server.requests)
    assert read(tmp_path / "out", "run.json")["pictures"] == "none"


def test_a_key_goes_to_this_machine_and_further_fields_with_every_request(server, warehouse, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    ask(server, warehouse, tmp_path / "out", "--limit", "2", "--request", '{"reasoning_effort": "low"}')
    assert all(
        headers.get("Authorization", headers.get("authorization")) == "Bearer secret" for headers in server.headers
    )
    assert all(body["reasoning_effort"] == "low" for body in server.requests)
    assert read(tmp_path / "out", "run.json")["further fields"] == {"reasoning_effort": "low"}
    assert "secret" not in (tmp_path / "out/run.json").read_text()


def test_another_model_and_ours_are_compared_question_by_question(server, warehouse, tmp_path, capsys):
    ask(server, warehouse, tmp_path / "other")
    evaluate(read_warehouse(warehouse, "val"), lambda pictures: ["No idea."] * 28, tmp_path / "ours")
    # In another order: they are paired by their ids.
    shuffled = read(tmp_path / "ours")[::-1]
    (tmp_path / "ours/predictions.json").write_text(json.dumps(shuffled), encoding="utf-8")
    compare([str(tmp_path / "other"), str(tmp_path / "ours")])
    assert "| left_right | 7 | 100.00 | 0.00 | -100.00 | -100.00 to -100.00 | 7 | 0 |" in capsys.readouterr().out
    (tmp_path / "ours/predictions.json").write_text(json.dumps(shuffled[1:]), encoding="utf-8")
    with pytest.raises(SystemExit, match="the runs cannot be compared: only .*/other has 1 of its 28 ids"):
        compare([str(tmp_path / "other"), str(tmp_path / "ours")])


@pytest.mark.parametrize(
    "listed, sentence",
    [
        ("no list", "lists no models"),
        ('{"data": []}', "has 0 models"),
        ('{"data": [{"id": "a"}, {"id": "b"}]}', "has 2"),
    ],
)
def test_a_server_of_other_models_is_not_served(server, warehouse, tmp_path, listed, sentence):
    server.listed = listed
    with pytest.raises(SystemExit, match=f"{server.url} {sentence}") as stop:
        main(["--served", server.url, "--data", str(warehouse), "--out", str(tmp_path / "out")])
    assert "\n" not in str(stop.value) and not server.requests


@pytest.mark.parametrize(
    "more, sentence",
    [
        (["--answerer", "openai", "--server", "http://127.0.0.1:9/v1"], "needs --server URL and --model NAME"),
        (["--answerer", "openai", "--model", "other"], "needs --server URL and --model NAME"),
        (["--answerer", "openai", "--server", "u", "--model", "m", "--checkpoint", "c"], "give none of --checkpoint"),
        (["--checkpoint", "c", "--no_picture"], "--no_picture is of --answerer openai"),
        (["--checkpoint", "c", "--request", "{}x"], "is not valid JSON"),
        (["--checkpoint", "c", "--request", "[]"], "is no JSON object"),
        ([], "give one of --checkpoint, --exported and --served, or --answerer openai"),
    ],
)
@pytest.mark.parametrize("command", [main, bench])
def test_options_that_do_not_fit_are_told(tmp_path, capsys, command, more, sentence):
    with pytest.raises(SystemExit, match="2"):
        command(["--data", str(tmp_path), "--out", str(tmp_path / "out"), *more])
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "old, new, sentence",
    [
        ('version = "1"', "version = 1", "version is missing or no str"),
        ("{form}", "form", "its text has no {form}"),
        ("[bench]", "[other]", "bench is missing or no dict"),
        ("mcq =", "which =", r"\[warehouse\] mcq is missing or no str"),
        ("text =", "text", "is not valid TOML"),
    ],
)
def test_a_prompt_that_lacks_something_is_told(tmp_path, old, new, sentence):
    (tmp_path / "prompt.toml").write_text(PROMPT.read_text().replace(old, new))
    with pytest.raises(DataError, match=sentence) as error:
        Prompt.read(tmp_path / "prompt.toml")
    assert str(error.value).startswith(str(tmp_path / "prompt.toml")) and "\n" not in str(error.value)
