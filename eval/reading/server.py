"""Values of free-text answers by a language model behind an OpenAI-compatible server (Ollama, vLLM, ...).

The published pipeline asks Qwen2.5-14B in Ollama for the value of each answer, in a JSON schema of the
question's category. So does this, with prompts of its own. What the server said is kept in a SQLite file
under a hash of model, prompt and schema, so that an interrupted run goes on where it was and a repeated
one asks nothing.

The protocol: POST {url}/chat/completions with {model, messages, temperature, response_format:
{type: "json_schema", json_schema: {name, strict, schema}}}, answered with
{choices: [{message: {content: JSON text}}]}.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import requests
from tqdm import tqdm

from eval.reading.rules import Answer, question_category
from smolrgpt_jax.data.records import normalize_answer
from smolrgpt_jax.errors import DataError

KEY_VARIABLE = "OPENAI_API_KEY"
T = TypeVar("T")
LONGEST_PAUSE = 60.0  # seconds between two tries
_INSTRUCTIONS = (
    "You are given a question about numbered regions of a picture of a warehouse, and somebody's answer to it. "
    "Report the value that the answer states as JSON. Do not answer the question yourself and do not correct "
    "the answer. The value is null if the answer states none. "
)
_VALUES = {
    "left_right": "The value is the side, left or right, on which the answer puts the question's first object.",
    "count": "The value is the number of objects that the answer arrives at.",
    "mcq": "The value is the number of the region that the answer chooses: 7 for [Region 7].",
    "distance": "The value is the distance that the answer arrives at, in metres; 0 if one thing is inside of the other.",
}
_TYPES = {
    "left_right": {"type": ["string", "null"], "enum": ["left", "right", None]},
    "count": {"type": ["integer", "null"]},
    "mcq": {"type": ["integer", "null"]},
    "distance": {"type": ["number", "null"]},
}


class ServerError(DataError):
    """The server cannot be used; the message names its URL."""


class _Refused(ServerError):
    """The server answers, but not to this; status: its HTTP status."""

    def __init__(self, reason: str, status: int):
        super().__init__(reason)
        self.status = status


class _Stopped(Exception):
    """Another request found that the server cannot be used, or the run was interrupted."""


class _Violation(Exception):
    """A reply that does not follow the protocol or the schema."""


class _Transient(Exception):
    """Another try may help; pause: seconds that the server asked for."""

    def __init__(self, reason: str, retry_after: str = ""):
        super().__init__(reason)
        self.pause = float(retry_after) if retry_after.isdecimal() else 0.0


@dataclass(frozen=True)
class ServerConfig:
    """How to ask.

    Attributes:
      url: the API's base, "http://localhost:11434/v1" for Ollama on this machine.
      model: the server's name of the model.
      cache: SQLite file of the answers so far; made if it is not there.
      workers: requests under way at once.
      retries: tries after the first one, for a server that does not answer, is busy (429), fails (5xx) or
        answers with something else than the schema.
      timeout: seconds to wait for an answer.
      pause: seconds before the first retry, twice as long before each further one.
    """

    url: str
    model: str
    cache: Path
    workers: int = 4
    retries: int = 5
    timeout: float = 120.0
    pause: float = 1.0

    def __post_init__(self):
        if self.workers < 1 or self.retries < 0 or not 0 < self.timeout < float("inf"):
            raise ValueError(
                f"{self.workers} requests at once, {self.retries} retries and {self.timeout:g} seconds to wait for an "
                "answer are no way to ask a server"
            )


def value_schema(category: str) -> dict:
    """Returns the JSON schema {"value": ...} of a category's value."""
    return {
        "type": "object",
        "properties": {"value": _TYPES[category]},
        "required": ["value"],
        "additionalProperties": False,
    }


def make_request(model: str, category: str, question: str, answer: str, attempt: int = 0) -> dict:
    """Returns the body of the request for one answer's value.

    The first attempt is greedy; later ones are drawn, as a greedy answer would only come out the same again.
    """
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": _INSTRUCTIONS + _VALUES[category]},
            {"role": "user", "content": f"Question: {question}\n\nAnswer: {answer}"},
        ],
        "temperature": 0.7 if attempt else 0,
        "seed": attempt,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": category, "strict": True, "schema": value_schema(category)},
        },
    }


def parse_reply(category: str, reply: object) -> Answer:
    """Returns the value of a server's reply, None for a stated null.

    Raises:
      ValueError: the reply is none of the protocol's, or its content does not follow the schema.
    """
    try:
        content = reply["choices"][0]["message"]["content"]
        value = json.loads(content)["value"]
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the server's reply holds no value ({type(error).__name__}: {error})") from error
    return normalize_answer(category, value)


class AnswerCache:
    """Values by the hash of what was asked, in a SQLite file; each is on disk once ``put`` returns."""

    def __init__(self, file: Path):
        """Opens or makes the file; raises DataError if it is something else."""
        self._file, self._lock = file, threading.Lock()
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(file, timeout=60, check_same_thread=False)
            with self._connection:
                self._connection.execute(
                    "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
                )
        except sqlite3.Error as error:
            raise DataError(f"{file}: cannot be used as a cache of answers ({error})") from error

    def get(self, key: str) -> tuple[Answer] | None:
        """Returns the value in a tuple, None if it is not known."""
        row = self._execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else (json.loads(row[0]),)

    def put(self, key: str, value: Answer) -> None:
        self._execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(value)))

    def close(self) -> None:
        self._connection.close()

    def _execute(self, statement: str, values: tuple) -> sqlite3.Cursor:
        try:
            with self._lock, self._connection:
                return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise DataError(f"{self._file}: the cache of answers fails ({error})") from error


def _cache_key(request: Mapping) -> str:
    asked = {name: request[name] for name in ("model", "messages", "response_format")}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class AnswerServer:
    """Asks one server.

    violations: how many answers of the last ``values`` got no reply that follows the schema.
    """

    def __init__(self, config: ServerConfig):
        self.config, self.violations = config, 0
        self._stop = threading.Event()
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=config.workers))
        key = os.environ.get(KEY_VARIABLE)
        if key:
            # What a header cannot carry; the message must not tell the key.
            if not (key.isascii() and key.isprintable()):
                raise ServerError(f"{KEY_VARIABLE} holds a character that no key has, expected printable ASCII alone")
            self._session.headers["Authorization"] = f"Bearer {key}"

    def check(self) -> None:
        """Raises ServerError if nothing answers there or the key is refused; for the time before hours of other work."""
        try:
            self._retried(lambda attempt: self._send("GET", "models", None))
        except _Refused as error:
            # Not every server lists its models.
            if error.status in (401, 403):
                raise

    def values(self, items: Sequence[Mapping], *, progress: bool = True) -> list[Answer]:
        """The value of each answer, None where it states none or no reply followed the schema.

        Args:
          items: with category (taken from the question's wording where it is empty), question, answer.
          progress: whether to show a bar.

        Raises:
          ServerError: the server cannot be reached, refuses, or keeps failing after all retries. What it
            said before is in the cache.
        """
        keys: list[str | None] = []
        asked: dict[str, tuple[str, str, str]] = {}
        for item in items:
            category = item["category"] or question_category(item["question"])
            if category is None or not item["answer"].strip():
                keys.append(None)
                continue
            texts = (category, item["question"], item["answer"])
            keys.append(_cache_key(make_request(self.config.model, *texts)))
            asked[keys[-1]] = texts
        with contextlib.closing(AnswerCache(self.config.cache)) as cache:
            values = {key: known[0] for key in asked if (known := cache.get(key)) is not None}
            with tqdm(total=len(asked), initial=len(values), desc="server", unit="answer", disable=not progress) as bar:
                missing = {key: texts for key, texts in asked.items() if key not in values}
                self._ask_all(missing, values, cache, bar)
        return [None if key is None else values.get(key) for key in keys]

    def _ask_all(
        self, missing: Mapping[str, tuple[str, str, str]], values: dict, cache: AnswerCache, bar: tqdm
    ) -> None:
        """Puts what is missing into the cache and into ``values``."""

        def ask(key: str, texts: tuple[str, str, str]) -> None:
            try:
                value = self._ask(*texts)
            except ServerError:
                self._stop.set()
                raise
            cache.put(key, value)
            values[key] = value

        self._stop.clear()
        self.violations = 0
        pool = ThreadPoolExecutor(self.config.workers)
        known = len(values)
        try:
            for future in as_completed([pool.submit(ask, *entry) for entry in missing.items()]):
                try:
                    future.result()
                except _Violation:
                    self.violations += 1
                except _Stopped:
                    continue  # the request that found the server unusable is still to come
                bar.update()
        except BaseException as error:
            self._stop.set()
            # Requests under way still bring their answers into the cache.
            pool.shutdown(cancel_futures=True)
            if isinstance(error, ServerError):
                raise ServerError(
                    f"{error}; {len(values) - known} of {len(missing)} new answers are kept in "
                    f"{self.config.cache}, from where the same command goes on"
                ) from None
            raise
        pool.shutdown()

    def _ask(self, category: str, question: str, answer: str) -> Answer:
        def attempt(number: int) -> Answer:
            request = make_request(self.config.model, category, question, answer, number)
            response = self._send("POST", "chat/completions", request)
            try:
                return parse_reply(category, response.json())
            except ValueError as error:
                raise _Violation(str(error)) from error

        return self._retried(attempt)

    def _retried(self, attempt: Callable[[int], T]) -> T:
        """Calls ``attempt`` with 0, 1, ... until it neither is transient nor violates the schema."""
        pause = 0.0
        for number in range(self.config.retries + 1):
            if self._stop.wait(pause):
                raise _Stopped
            try:
                return attempt(number)
            except (_Transient, _Violation) as error:
                problem = error
                wanted = max(self.config.pause * 2**number, getattr(error, "pause", 0.0))
                pause = min(wanted, LONGEST_PAUSE)
        if isinstance(problem, _Violation):
            raise problem
        raise ServerError(
            f"{self.config.url} cannot be asked ({self.config.retries + 1} tries, the last one: {problem})"
        )

    def _send(self, method: str, path: str, request: dict | None) -> requests.Response:
        """One request. Raises _Transient where another try may help, _Refused where it will not."""
        url = f"{self.config.url.rstrip('/')}/{path}"
        try:
            response = self._session.request(method, url, json=request, timeout=self.config.timeout)
        except requests.Timeout as error:
            raise _Transient(f"no answer within {self.config.timeout:g} s") from error
        except requests.RequestException as error:
            reason = " ".join(str(error).split())
            if isinstance(error, ValueError):  # not a URL
                raise ServerError(f"{url} cannot be asked ({reason})") from error
            # "HTTPConnectionPool(...): ... (Caused by NewConnectionError('...: [Errno 111] Connection refused'))"
            raise _Transient(reason.rsplit(": ", 1)[-1].strip("'\")")) from error
        if response.status_code == 429 or response.status_code >= 500:
            raise _Transient(f"HTTP {response.status_code}", response.headers.get("Retry-After", ""))
        if not response.ok:
            said = " ".join(response.text.split())[:200]
            raise _Refused(f"{url} refuses with HTTP {response.status_code}: {said}", response.status_code)
        return response
