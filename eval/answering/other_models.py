"""Questions about numbered marks on a picture, asked of any model with vision behind an OpenAI-compatible server.

Such a model knows no region tokens. So each region of a question is outlined and numbered on the picture, the question
names the numbers, and the answer is free text, read by the rules that read our own answers.
"""

import dataclasses
import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.answering.asking import Answered, asked_category, journal_path
from eval.answering.http_answers import NoAnswer, Said, ask_all, read_reply, refused_question
from eval.answering.served import chat_turns
from eval.reading.bench_rules import CATEGORIES, QUANTITATIVE
from eval.reading.chat_server import ChatServer, RequestRefused, quoted
from eval.report.marks import draw_marks
from eval.report.overlay import jpeg_data_uri
from smolrgpt_jax.data.images import upright_depth, upright_rgb
from smolrgpt_jax.data.records import MASK, BadRecords, Picture, Question
from smolrgpt_jax.errors import DataError

PROMPT = Path(__file__).with_name("marks_prompt.toml")
QUALITY = 95  # of the pictures sent: outlines keep their colours


@dataclass(frozen=True)
class Prompt:
    """What the model is told, see marks_prompt.toml."""

    name: str
    digest: str
    texts: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Prompt":
        """Raises DataError for a file that is no prompt."""
        try:
            content = path.read_bytes()
            texts = tomllib.loads(content.decode())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise DataError(f"{path}: is not valid TOML ({error})") from None
        wanted = tomllib.loads(PROMPT.read_text(encoding="utf-8"))
        for section, own in (
            (None, wanted),
            *((name, part) for name, part in wanted.items() if isinstance(part, dict)),
        ):
            found = texts if section is None else texts.get(section, {})
            for name, value in own.items():
                if not isinstance(found, dict) or type(found.get(name)) is not type(value):
                    where = f"[{section}] " if section else ""
                    raise DataError(f"{path}: {where}{name} is missing or no {type(value).__name__}, see {PROMPT}")
        for place in ("{question}", "{form}"):
            if place not in texts["text"]:
                raise DataError(f"{path}: its text has no {place}")
        return cls(path.name, hashlib.sha256(content).hexdigest()[:12], texts)

    def __str__(self) -> str:
        return f"{self.name}, version {self.texts['version']} ({self.digest})"

    def turns(self, question: Question, with_depth: bool) -> list[str]:
        """The texts of a question's turns: every "<mask>" named by its number, the first one with what the model is told."""
        kind, form = _kind(question)
        asked, numbers = [], iter(range(question.mask_marks))
        for place, text in enumerate(question.turns[: 2 * len(question.earlier) + 1]):
            if place % 2 == 0:
                first, *rest = text.split(MASK)
                mark = self.texts[kind]["mark"]
                text = first + "".join(mark.replace("{number}", str(next(numbers))) + part for part in rest)
            asked.append(text.strip())
        told = {"{depth}": self.texts["depth"] if with_depth else "", "{form}": self.texts[kind][form]}
        # The question last: what it says is no place to put something else.
        told["{question}"] = asked[0]
        asked[0] = self.texts["text"].strip("\n")
        for place, words in told.items():
            asked[0] = asked[0].replace(place, words)
        return asked


def _kind(question: Question) -> tuple[str, str]:
    """A question's section and entry of the prompt."""
    if question.category in CATEGORIES:
        if question.category == "direction":
            return "bench", "direction"
        return "bench", "length" if question.category in QUANTITATIVE.values() else question.category.rsplit("_", 1)[1]
    return "warehouse", asked_category(question) or "other"


@dataclass(frozen=True)
class OtherModel:
    """A model by its name at a server, and how it is asked."""

    server: ChatServer
    model: str
    prompt: Prompt
    with_depth: bool = False
    no_picture: bool = False  # the text alone
    further: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # fields of every request, None takes one out

    @property
    def details(self) -> dict[str, Any]:
        """What a run's report says of it."""
        sent = "none" if self.no_picture else "RGB and depth, marked" if self.with_depth else "RGB, marked"
        details = {"server": self.server.url, "prompt": str(self.prompt), "pictures": sent}
        return details | ({"further fields": dict(self.further)} if self.further else {})

    def answer(
        self, pictures: Sequence[Picture], out: Path, at_once: int, longest: int | None, bad: BadRecords
    ) -> list[Answered]:
        """As `asking.answer_questions`, so many requests at once; finished answers are kept beside `out`, too.

        Raises ServerError where the server fails.
        """
        from eval.answering.journal import Journal, asked_digest

        decoding = {"longest": longest, "further": self.further}
        identity = {"model": self.model, **self.details, "decoding": decoding, "data": asked_digest(pictures)}

        def ask(picture: Picture, question: Question) -> Said:
            return self._ask(question, self.request(picture, question, longest))

        return ask_all(pictures, ask, Journal(journal_path(out), identity), at_once, bad, self.server.url)

    def request(self, picture: Picture, question: Question, longest: int | None = None) -> dict[str, Any]:
        """The request of a question, as arguments of OpenAI's client; raises DataError where a picture cannot be read."""
        if self.with_depth and picture.depth is None:
            raise DataError(f"record {question.id!r}: its picture has no depth, which --with_depth sends")
        turns = chat_turns(question, self.prompt.turns(question, self.with_depth))
        if not self.no_picture:
            try:
                sent = [upright_rgb(picture.image)]
                sent += [upright_depth(picture.depth, beside=picture.image)] if self.with_depth else []
                urls = [jpeg_data_uri(draw_marks(shown, question.regions), QUALITY) for shown in sent]
            except (OSError, SyntaxError, ValueError) as error:
                raise DataError(f"record {question.id!r}: {error}") from None
            parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            turns[0]["content"] = [*parts, {"type": "text", "text": turns[0]["content"]}]
        request: dict[str, Any] = {"model": self.model, "messages": turns, "temperature": 0}
        if longest is not None:
            request["max_tokens"] = longest
        kept = {name: value for name, value in request.items() if name not in self.further}
        return kept | {"extra_body": {name: value for name, value in self.further.items() if value is not None}}

    def _ask(self, question: Question, request: Mapping[str, Any]) -> Said:
        reply = ""
        for _ in range(self.server.retries + 1):
            try:
                reply = self.server.reply(request)
            except RequestRefused as refused:
                raise refused_question(question, refused) from None
            try:
                said = read_reply(reply)
            except ValueError:
                continue
            # How sure `smolrgpt serve` is was never fitted to questions about marks.
            return dataclasses.replace(said, text=said.text.strip(), confidence=None)
        raise NoAnswer(
            f"record {question.id!r}: {self.server.url} does not reply as a chat server but with {quoted(reply)}"
        )
