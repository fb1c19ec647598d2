"""A client of OpenAI-compatible servers: where a key goes, what is tried again, how failures are told."""

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from eval.command_line import is_loopback
from smolrgpt_jax.errors import DataError

KEY_VARIABLE = "OPENAI_API_KEY"
_EVERYWHERE = ("0.0.0.0", "::")  # as servers print where they listen


class ServerError(DataError):
    """The server cannot be used; the message names its URL."""


class RequestRefused(ServerError):
    """The server refuses a request, whoever asks again; `status` is HTTP's, `reply` what it said."""

    def __init__(self, url: str, status: int, reply: str):
        super().__init__(f"{url} refuses with HTTP {status}: {quoted(reply)}")
        self.status, self.reply = status, reply


class ChatServer:
    """A server at the base URL of its API, "http://localhost:11434/v1" for Ollama on this machine."""

    def __init__(
        self,
        url: str,
        option: str,
        *,
        retries: int = 5,
        timeout: float = 120.0,
        key_in_clear: bool = False,
        key_variable: str = KEY_VARIABLE,
    ):
        """Raises ValueError for settings that no request can have, and where the extra "server" is not installed.

        Args:
          option: of the command line that wants the server.
          retries: where the server does not answer, is busy or fails.
          timeout: seconds to wait for a reply to begin or go on.
          key_in_clear: the key goes to other machines without https too.
          key_variable: of the environment, which holds the key.
        """
        if retries < 0 or not 0 < timeout < float("inf"):
            raise ValueError(
                f"{retries} retries and {timeout:g} seconds to wait for an answer are no way to ask a server"
            )
        address, key = urlsplit(url), os.environ.get(key_variable, "")
        if address.scheme not in ("http", "https") or not address.hostname or address.port == 0:
            raise ServerError(f"{url!r} cannot be asked, expected a URL such as http://localhost:11434/v1")
        if not (key.isascii() and key.isprintable()):  # the message must not tell it
            raise ServerError(f"{key_variable} holds a character that no key has, expected printable ASCII alone")
        try:
            import openai
        except ImportError as error:
            raise ServerError(f'{option} needs an extra: pip install -e ".[server]"') from error
        own = is_loopback(address.hostname) or address.hostname in _EVERYWHERE
        self.url, self.retries = url, retries
        self.key = key if own or address.scheme == "https" or key_in_clear else ""
        self._headers = {} if self.key else {"Authorization": openai.omit}
        # A proxy would look for a loopback address on its own machine.
        http = openai.DefaultHttpxClient(trust_env=not own)
        how = {"timeout": timeout, "max_retries": retries, "http_client": http}
        self._client = openai.OpenAI(base_url=url, api_key=self.key or "none", **how)

    def check(self) -> None:
        """Raises ServerError if nothing answers there or the key is refused; for the time before other work."""
        with self._told(self.retries, ignored=(400, 404, 405)):  # not every server lists its models
            self._client.models.with_raw_response.list(extra_headers=self._headers)

    def models(self) -> list[dict[str, Any]]:
        """What the server says of its models, asked once; raises ServerError as `check`."""
        with self._told(0):
            try:
                listed = self._client.with_options(max_retries=0).models.list(extra_headers=self._headers)
                return [model.model_dump() for model in listed]
            except (ValueError, AttributeError, TypeError) as error:
                raise ServerError(f"{self.url} lists no models ({quoted(str(error))})") from None

    def reply(self, request: Mapping[str, Any]) -> str:
        """The body of the reply to a request of chat completions.

        request: as arguments of OpenAI's client. Raises RequestRefused, and ServerError where the server cannot be reached
        or keeps failing after all retries.
        """
        with self._told(self.retries):
            completions = self._client.chat.completions.with_raw_response
            return completions.create(**request, extra_headers=self._headers).text

    @contextlib.contextmanager
    def _told(self, retries: int, ignored: Collection[int] = ()) -> Iterator[None]:
        """Turns what fails after all retries into a ServerError."""
        import openai

        try:
            yield
        except openai.APIError as error:
            status, reply = getattr(error, "status_code", 0), getattr(error, "response", None)
            if status in ignored:
                return
            if 0 < status < 500 and status != 429:
                raise RequestRefused(self.url, status, reply.text) from None
            last = f"HTTP {status}" if status else quoted(str(error.__cause__ or error))
            if wait := status and reply.headers.get("Retry-After"):
                last += f", Retry-After: {quoted(wait)}"  # longer than is waited for
            tries = f"{retries + 1} tries, the last one: " if retries else ""
            raise ServerError(f"{self.url} cannot be asked ({tries}{last})") from None


def said_message(reply: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A reply's message and the whole reply; raises ValueError where it is none of the protocol's."""
    try:
        whole = json.loads(reply)
        message = whole["choices"][0]["message"]
        return dict(message), whole
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise ValueError("the reply is none of the protocol's") from error


def without_thoughts(text: str) -> str:
    """What follows the thoughts that some models write first, which may be cut off."""
    return text.rpartition("</think>")[2].partition("<think>")[0]


def quoted(reply: str) -> str:
    """A reply for people, one line of at most 200 characters."""
    return " ".join(reply.split())[:200] or "an empty reply"
