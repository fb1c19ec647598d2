"""Questions asked of a running `smolrgpt serve`, as any client of OpenAI's API would ask them."""

import base64
import dataclasses
import json
import mimetypes
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from eval.answering.asking import Answered, journal_path
from eval.command_line import is_loopback
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import BadRecords, Picture, Question
from smolrgpt_jax.errors import DataError, RunError

KEY_VARIABLE = "SMOLRGPT_API_KEY"
_RETRIES, _SECONDS = 8, 300.0


class Served:
    """The model behind a URL."""

    def __init__(self, url: str):
        """Raises RunError where nothing answers there, or the extra "server" is not installed."""
        try:
            import openai
        except ImportError:
            raise RunError('--served needs an extra: pip install ".[server]"') from None
        self.url, self._failed = url, openai.APIError
        key = os.environ.get(KEY_VARIABLE) or "none"
        try:
            # A proxy would look for a loopback address on its own machine.
            http = openai.DefaultHttpxClient(trust_env=not is_loopback(urlsplit(url).hostname or ""))
            how = {"timeout": _SECONDS, "max_retries": _RETRIES, "http_client": http}
            self._client = openai.OpenAI(base_url=url, api_key=key, **how)
            (self.about,) = (model.model_dump() for model in self._client.with_options(max_retries=0).models.list())
        except (openai.APIError, ValueError) as error:
            raise RunError(f"{url} cannot be asked ({' '.join(str(error.__cause__ or error).split())})") from None

    def answer(
        self, pictures: Sequence[Picture], out: Path, at_once: int, max_new_tokens: int | None, bad: BadRecords
    ) -> list[Answered]:
        """As `asking.answer_questions`, so many requests at once; finished answers are kept beside `out`, too.

        Raises RunError where the server fails.
        """
        from eval.answering.journal import Journal
        from smolrgpt_jax.checkpoint.fingerprint import digest

        every = [(picture, question) for picture in pictures for question in picture.questions]
        bare = [(p.id, dataclasses.replace(q, answer=None, normalized_answer=None)) for p, q in every]
        model = {name: value for name, value in self.about.items() if name != "created"}
        kept = Journal(journal_path(out), {"server": model, "decoding": max_new_tokens, "data": digest(repr(bare))})
        missing = [(picture, question) for picture, question in every if question.id not in kept.answers]
        with ThreadPoolExecutor(at_once) as pool:
            replies = pool.map(lambda asked: self._ask(*asked, max_new_tokens), missing)
            try:
                for (_, question), reply in tqdm(
                    zip(missing, replies), total=len(missing), desc="answers", unit="question"
                ):
                    if isinstance(reply, DataError):
                        bad.reject(reply)
                        continue
                    text, cut = reply
                    kept.append({question.id: text}, [question.id] if cut else [])
                    kept.answers[question.id] = text
                    kept.cut_off |= {question.id} if cut else set()
            except BaseException as error:
                pool.shutdown(cancel_futures=True)
                if not isinstance(error, self._failed):
                    raise
                reason = " ".join(str(error.__cause__ or error).split())
                raise RunError(f"{self.url} failed ({reason}); the same command goes on from there") from None
        answers: list[Answered] = []
        for _, question in every:
            text = kept.answers.get(question.id, "")
            answers.append({"answer": text, "cut_off": True} if question.id in kept.cut_off else text)
        return answers

    def _ask(self, picture: Picture, question: Question, longest: int | None) -> tuple[str, bool] | DataError:
        import openai

        try:
            request = chat_request(picture, question)
        except OSError as error:
            return DataError(f"picture {error.filename} cannot be read ({error.strerror})")
        if longest is not None:
            request["max_tokens"] = longest
        try:
            reply = self._client.chat.completions.create(model=self.about["id"], **request)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            said = json.loads(error.response.text)["error"]["message"]
            return DataError(f"record {question.id!r}: {said}")
        (choice,) = reply.choices
        return choice.message.content, choice.finish_reason == "length"


def chat_request(picture: Picture, question: Question) -> dict[str, Any]:
    """A question about a picture in files as arguments of OpenAI's client; raises OSError for files that cannot be read."""
    files = [picture.image] + ([] if picture.depth is None else [picture.depth])
    parts = [{"type": "image_url", "image_url": {"url": data_url(file)}} for file in files]
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(question.turns)]
    del turns[2 * len(question.earlier) + 1 :]  # the answer
    turns[0] = {"role": "user", "content": [*parts, {"type": "text", "text": turns[0]["content"]}]}
    masks = [
        {"size": [region.height, region.width], "counts": region.counts.decode()}
        for region in question.regions
        if isinstance(region, RLE)
    ]
    return {"messages": turns, "extra_body": {"regions": masks} if masks else {}}


def data_url(file: str | Path) -> str:
    kind = mimetypes.guess_type(file)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(Path(file).read_bytes()).decode()}"
