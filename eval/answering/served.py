"""Questions asked of a running `smolrgpt serve`, as any client of OpenAI's API would ask them."""

import base64
import dataclasses
import json
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.answering.asking import Answered, journal_path
from eval.answering.http_answers import Said, ask_all, read_reply, refused_question
from eval.reading.chat_server import ChatServer, RequestRefused, ServerError
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import BadRecords, Picture, Question
from smolrgpt_jax.errors import DataError

KEY_VARIABLE = "SMOLRGPT_API_KEY"
_RETRIES, _SECONDS = 8, 300.0


class Served:
    """The model behind a URL."""

    def __init__(self, url: str, key_in_clear: bool = False):
        """Raises ServerError where no `smolrgpt serve` answers there, or the extra "server" is not installed."""
        how = {"retries": _RETRIES, "timeout": _SECONDS, "key_in_clear": key_in_clear, "key_variable": KEY_VARIABLE}
        self.url, self._server = url, ChatServer(url, "--served", **how)
        listed = self._server.models()
        if len(listed) != 1:
            raise ServerError(f"{url} has {len(listed)} models, expected the one of `smolrgpt serve`")
        (self.about,) = listed

    def answer(
        self, pictures: Sequence[Picture], out: Path, at_once: int, max_new_tokens: int | None, bad: BadRecords
    ) -> list[Answered]:
        """As `asking.answer_questions`, so many requests at once; finished answers are kept beside `out`, too.

        Raises ServerError where the server fails.
        """
        from eval.answering.journal import Journal, asked_digest

        model = {name: value for name, value in self.about.items() if name != "created"}
        identity = {"server": model, "decoding": max_new_tokens, "data": asked_digest(pictures)}

        def ask(picture: Picture, question: Question) -> Said:
            return self._ask(picture, question, max_new_tokens)

        return ask_all(pictures, ask, Journal(journal_path(out), identity), at_once, bad, self.url)

    def _ask(self, picture: Picture, question: Question, longest: int | None) -> Said:
        try:
            request = chat_request(picture, question)
        except OSError as error:
            raise DataError(f"picture {error.filename} cannot be read ({error.strerror})") from None
        if longest is not None:
            request["max_tokens"] = longest
        try:
            said = read_reply(self._server.reply({"model": self.about["id"], **request}))
        except RequestRefused as refused:
            raise refused_question(question, refused, _reason(refused.reply)) from None
        except ServerError:
            raise
        except ValueError:
            raise ServerError(f"{self.url} does not reply as `smolrgpt serve`") from None
        return dataclasses.replace(said, tokens=None)  # what it takes is no cost


def _reason(reply: str) -> str:
    try:
        return json.loads(reply)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return ""


def chat_request(picture: Picture, question: Question) -> dict[str, Any]:
    """A question about a picture in files as arguments of OpenAI's client; raises OSError for files that cannot be read."""
    files = [picture.image] + ([] if picture.depth is None else [picture.depth])
    parts = [{"type": "image_url", "image_url": {"url": data_url(file)}} for file in files]
    turns = chat_turns(question, question.turns)
    turns[0]["content"] = [*parts, {"type": "text", "text": turns[0]["content"]}]
    masks = [region.as_coco() for region in question.regions if isinstance(region, RLE)]
    return {"messages": turns, "extra_body": {"regions": masks} if masks else {}}


def chat_turns(question: Question, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Messages of user and assistant in turn with these texts of `Question.turns`, up to the question itself."""
    asked = texts[: 2 * len(question.earlier) + 1]  # without the answer
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(asked)]


def data_url(file: str | Path) -> str:
    kind = mimetypes.guess_type(file)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(Path(file).read_bytes()).decode()}"
