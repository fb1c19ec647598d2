"""Values of free-text answers by a language model behind an OpenAI-compatible server (Ollama, vLLM, ...).

The published pipeline asks Qwen2.5-14B in Ollama for the value of each answer, in a JSON schema of the question's
category. So does this, with prompts of its own. What the server said is kept in a folder under a hash of address,
model, prompt and schema, so that an interrupted run goes on where it was and a repeated one asks nothing.
"""

import contextlib
import hashlib
import json
import re
import sqlite3
import threading
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.reading.chat_server import ChatServer, ServerError, quoted, said_message, without_thoughts
from eval.reading.rules import Answer, question_category
from smolrgpt_jax.data.records import normalize_answer
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.files import read_json

OPTION = "--answers server"
FIRST_ANSWERS = 3  # to get an unusable reply each: then no other is asked for
_PROMPTS = read_json(Path(__file__).with_suffix(".json"), dict)


class _Unusable(Exception):
    """No reply to a request follows the schema; the message is the first one."""


def make_request(model: str, category: str, question: str, answer: str, attempt: int = 0) -> dict:
    """The request for one answer's value: greedy first, then drawn, as a greedy reply would only come out the same."""
    asked = _PROMPTS["categories"][category]
    schema = {"type": "object", "properties": {"value": asked["value"]}, "required": ["value"]}
    schema["additionalProperties"] = False
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": _PROMPTS["instructions"] + asked["instructions"]},
            {"role": "user", "content": f"Question: {question}\n\nAnswer: {answer}"},
        ],
        "temperature": 0.7 if attempt else 0,
        "seed": attempt,
        "response_format": {"type": "json_schema", "json_schema": {"name": category, "strict": True, "schema": schema}},
    }


def parse_reply(category: str, reply: str) -> Answer:
    """The value in a server's reply, None for a stated null.

    The message is JSON, alone or in a fence or prose, behind thoughts or in place of them (`reasoning_content`). Raises
    ValueError for a reply that is none of the protocol's or holds no such value.
    """
    message, _ = said_message(reply)
    try:
        texts = [message.get(name) or "" for name in ("content", "reasoning_content", "reasoning")]
        found = [value for text in texts for value in _stated_values(without_thoughts(text))]
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError("the reply is none of the protocol's") from error
    if not found:
        raise ValueError("the reply holds no value")
    return normalize_answer(category, found[0])


def _stated_values(text: str) -> list[Any]:
    """The "value" of each JSON object in a text, the last one first."""
    values, end = [], 0
    for brace in re.finditer(r"\{", text):
        if brace.start() >= end:
            with contextlib.suppress(ValueError):
                found, end = json.JSONDecoder().raw_decode(text, brace.start())
                values += [found["value"]] if "value" in found else []
    return values[::-1]


@dataclass
class AnswerServer:
    """Asks one server; `unusable` holds a reply to each answer of the last `values` that got none in the schema."""

    url: str  # the API's base, "http://localhost:11434/v1" for Ollama on this machine
    model: str  # the server's name of it
    cache: Path  # folder of the answers so far
    workers: int = 4  # requests under way at once
    retries: int = 5  # where the server does not answer, is busy, fails or breaks the schema
    timeout: float = 120.0  # seconds to wait for an answer to begin or go on
    key_in_clear: bool = False  # the key goes to other machines without https too
    unusable: list[str] = field(default_factory=list, init=False)

    def __post_init__(self):
        """Raises ValueError for settings that no request can have, and where the extra "server" is not installed."""
        if self.workers < 1:
            raise ValueError(f"{self.workers} requests at once are no way to ask a server")
        how = {"retries": self.retries, "timeout": self.timeout, "key_in_clear": self.key_in_clear}
        self._server = ChatServer(self.url, OPTION, **how)
        try:
            import diskcache
        except ImportError as error:
            raise ServerError(f'{OPTION} needs an extra: pip install -e ".[server]"') from error

        class JSONRows(diskcache.JSONDisk):
            """Values of JSON alone, as a pickled one of somebody's file could run code: JSONDisk writes none, but would load it."""

            def fetch(self, mode: int, *where: Any) -> Any:
                if mode == diskcache.core.MODE_PICKLE:
                    raise sqlite3.DataError("it holds a pickle, which is never loaded")
                try:
                    return super().fetch(mode, *where)
                except (zlib.error, ValueError) as error:
                    raise sqlite3.DataError(f"an answer in it is damaged: {error}") from error

        self._cache = lambda: diskcache.Cache(self.cache, disk=JSONRows, eviction_policy="none")

    def check(self) -> None:
        """Raises ServerError if nothing answers there or the key is refused; for the time before other work."""
        self._server.check()

    def values(self, items: Sequence[Mapping], *, progress: bool = True) -> list[Answer]:
        """The value of each item's answer, None where it states none or no reply followed the schema.

        Raises DataError where the cache fails, ServerError where the server cannot be reached, refuses, keeps failing
        after all retries, or follows the schema in none of its first replies; what it said before is in the cache.
        """
        categories = [item["category"] or question_category(item["question"]) for item in items]
        texts = [(category, item["question"], item["answer"]) for category, item in zip(categories, items)]
        keys = [self._key(*asked) if asked[0] and asked[2].strip() else None for asked in texts]
        try:
            with self._cache() as cache:
                missing = {key: asked for key, asked in zip(keys, texts) if key and key not in cache}
                self._ask_all(missing, cache, progress)
                return [cache.get(key) if key else None for key in keys]
        except (OSError, sqlite3.Error) as error:
            raise DataError(f"{self.cache}: cannot be used as a cache of answers ({error})") from error

    def _key(self, *texts: str) -> str:
        request = make_request(self.model, *texts)
        asked = [self.url.rstrip("/"), *(request[name] for name in ("model", "messages", "response_format"))]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def _ask_all(self, missing: Mapping[str, tuple[str, str, str]], cache: Any, progress: bool) -> None:
        self.unusable, kept, failed = [], [], threading.Event()

        def ask(key: str) -> None:
            if failed.is_set():
                return
            try:
                cache[key] = self._ask(*missing[key])
                kept.append(key)
            except _Unusable as reply:
                self.unusable.append(str(reply))
            except ServerError:
                failed.set()
                raise
            if len(self.unusable) >= FIRST_ANSWERS and not kept:
                failed.set()
                raise ServerError(f"{self.url} does not reply in the schema but with {self.unusable[0]}")

        # After an error requests under way still bring their answers into the cache; the others are cancelled.
        with ThreadPoolExecutor(self.workers) as pool:
            said = pool.map(ask, missing)
            try:
                for _ in tqdm(said, total=len(missing), desc="server", unit="answer", disable=not progress):
                    pass
            except BaseException as error:
                pool.shutdown(cancel_futures=True)
                if not isinstance(error, ServerError):
                    raise
                many = f"{len(kept)} of {len(missing)} new answers are kept in {self.cache}"
                raise ServerError(f"{error}; {many}, from where the same command goes on") from None

    def _ask(self, category: str, question: str, answer: str) -> Answer:
        first = ""
        for attempt in range(self.retries + 1):
            request = make_request(self.model, category, question, answer, attempt)
            reply = self._server.reply(request)
            try:
                return parse_reply(category, reply)
            except ValueError:
                first = first or quoted(reply)
        raise _Unusable(first)
