"""Questions asked of a server, several at once, and finished answers kept as those of a checkpoint are."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from eval.answering.asking import Answered
from eval.reading.chat_server import RequestRefused, ServerError, said_message, without_thoughts
from smolrgpt_jax.data.records import BadRecords, Picture, Question
from smolrgpt_jax.errors import DataError

if TYPE_CHECKING:
    from eval.answering.journal import Journal

OF_ONE_REQUEST = (400, 413, 422)  # refusals that tell nothing about the other questions
MOST_REFUSED = 3  # pictures of which every question is refused, before anything was answered


@dataclass(frozen=True)
class Said:
    """A server's answer; cut_off: it did not end within its tokens.

    tokens, {"prompt", "completion"}, and confidence, the probability that the answer is right, are None where it does not tell.
    """

    text: str
    cut_off: bool = False
    tokens: Mapping[str, int] | None = None
    confidence: float | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What the server told beside the text."""
        told = {"tokens": self.tokens, "confidence": self.confidence}
        return {name: value for name, value in told.items() if value is not None}


class NoAnswer(DataError):
    """The server has no answer to a question that was asked as all others are; the message names the record."""


Ask = Callable[[Picture, Question], Said]


def ask_all(
    pictures: Sequence[Picture], ask: Ask, kept: "Journal", at_once: int, bad: BadRecords, url: str
) -> list[Answered]:
    """What is said to each question, in their order, "" where there is no answer; such questions go to `bad`.

    Args:
      ask: one question; raises DataError for a question that cannot be asked, NoAnswer for one without an answer, and
        ServerError where nothing more can be asked.
      kept: finished answers; those in it are not asked for again.
      at_once: requests under way at once.

    Raises:
      ServerError: as `ask`, or no answer at all was got from the first pictures. What was answered stays in `kept`, from
        where another call goes on.
    """
    every = [(picture, question) for picture in pictures for question in picture.questions]
    missing = [asked for asked in every if asked[1].id not in kept.answers]
    lock, stop = threading.Lock(), threading.Event()
    left_out: dict[str, DataError] = {}
    silent: dict[str, NoAnswer] = {}  # by picture

    def one(picture: Picture, question: Question) -> None:
        if stop.is_set():
            return
        try:
            said = ask(picture, question)
        except ServerError:
            stop.set()
            raise
        except DataError as error:
            with lock:
                left_out[question.id] = error
                if isinstance(error, NoAnswer):
                    silent.setdefault(picture.id, error)
                if len(silent) >= MOST_REFUSED and not kept.answers:
                    stop.set()
                    raise ServerError(f"{url} answers none of the first questions: {error}") from None
            return
        with lock:
            cut = [question.id] if said.cut_off else []
            told = {question.id: said.told} if said.told else {}
            kept.append({question.id: said.text}, cut, told)
            kept.answers[question.id] = said.text
            kept.cut_off.update(cut)
            kept.told.update(told)

    # After an error requests under way still bring their answers into the journal; the others are cancelled.
    with ThreadPoolExecutor(at_once) as pool:
        done = pool.map(lambda asked: one(*asked), missing)
        try:
            for _ in tqdm(done, total=len(missing), desc="answers", unit="question"):
                pass
            if silent and not kept.answers:
                raise ServerError(f"{url} answers no question: {next(iter(silent.values()))}")
        except BaseException as error:
            stop.set()
            pool.shutdown(cancel_futures=True)
            if not isinstance(error, ServerError):
                raise
            many = f"{len(kept.answers)} of {len(every)} answers are kept" if kept.answers else "nothing is answered"
            raise ServerError(f"{error}; {many}, the same command goes on from there") from None
    for _, question in every:
        if question.id in left_out:
            bad.reject(left_out[question.id])
    return [_answered(question.id, kept) for _, question in every]


def _answered(name: str, kept: "Journal") -> Answered:
    said: dict[str, Any] = {"answer": kept.answers.get(name, "")}
    if name in kept.cut_off:
        said["cut_off"] = True
    said |= kept.told.get(name, {})
    return said if len(said) > 1 else said["answer"]


def refused_question(question: Question, refused: RequestRefused, reason: str = "") -> DataError:
    """What becomes of a request that was refused: NoAnswer where the refusal is of it alone, else the refusal."""
    if refused.status not in OF_ONE_REQUEST:
        return refused
    return NoAnswer(f"record {question.id!r}: {reason or refused}")


def read_reply(reply: str) -> Said:
    """The answer in the body of a reply, without the thoughts before it; raises ValueError where it is none of the protocol's."""
    message, whole = said_message(reply)
    content = message.get("content")
    if isinstance(content, list):  # of parts
        content = "".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    if not isinstance(content, str | None):
        raise ValueError("the reply is none of the protocol's")
    choice = whole["choices"][0]
    cut, sure = choice.get("finish_reason") == "length", choice.get("confidence")
    known = type(sure) in (int, float) and 0 <= sure <= 1
    return Said(without_thoughts(content or ""), cut, _tokens(whole.get("usage")), float(sure) if known else None)


def _tokens(usage: object) -> dict[str, int] | None:
    told = usage if isinstance(usage, dict) else {}
    found = {name: told.get(f"{name}_tokens") for name in ("prompt", "completion")}
    return found if all(type(number) is int and 0 <= number < 2**53 for number in found.values()) else None
