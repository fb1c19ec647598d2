"""The endpoints, as OpenAI's API has them: answers, whole or as they are written, models, health and metrics."""

import asyncio
import contextlib
import hmac
import json
import math
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import prometheus_client as prometheus
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image
from starlette.requests import ClientDisconnect

from eval.answering.confidences import Confidences
from eval.answering.one_picture import read_answer
from eval.assist.estimated_depth import ESTIMATE, DepthModel
from eval.assist.segmented import Segmenter
from eval.reading.rules import question_category
from eval.scoring.confidence import in_words
from eval.serving.request_body import ChatRequest, Refused, TooLargeError, read_request
from eval.serving.worker import Busy, Job, Stopping, Worker, free_text
from smolrgpt_jax.data.chat import read_closing
from smolrgpt_jax.data.images import read_depth, read_rgb
from smolrgpt_jax.errors import DataError
from smolrgpt_jax.generation.engine import question_key
from smolrgpt_jax.generation.online import Asked

CHAT = "/v1/chat/completions"
_COLDEST = 0.01  # a lower temperature is greedy
_READERS = 4  # requests whose pictures are decoded at once
_LARGE = 2**24  # pixels of a picture from which on it is decoded alone: the largest take gigabytes meanwhile
_DRAINED_BYTES = 2**28  # of a body that is too large, before the connection is closed on it
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_KINDS = {401: "authentication_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class Limits:
    """What a request may take."""

    body_bytes: int
    seconds: float  # of the whole request
    most_requests: int  # at once, those that wait included


class Metrics:
    """What GET /metrics tells."""

    def __init__(self, worker: Worker):
        self.registry = kept = prometheus.CollectorRegistry()
        self.requests = prometheus.Counter("smolrgpt_requests", "Answered requests.", ["status"], registry=kept)
        self.seconds = prometheus.Histogram("smolrgpt_request_seconds", "Time of a chat request.", registry=kept)
        self.tokens = prometheus.Counter("smolrgpt_tokens", "Tokens read and written.", ["kind"], registry=kept)
        for name, text, value in (
            ("smolrgpt_queue_length", "Answers that wait for a slot.", lambda: worker.waiting),
            ("smolrgpt_slots_taken", "Answers being written.", lambda: worker.answering),
            ("smolrgpt_pictures_kept", "Pictures in the cache.", lambda: len(worker.pictures)),
        ):
            prometheus.Gauge(name, text, registry=kept).set_function(value)


def refusal(refused: Refused) -> JSONResponse:
    kind = _KINDS.get(refused.status, "invalid_request_error" if refused.status < 500 else "server_error")
    error = {"message": refused.message, "type": kind, "param": None, "code": refused.code}
    headers = {name.replace("_", "-"): value for name, value in refused.headers.items()}
    return JSONResponse({"error": error}, refused.status, headers)


class Gate:
    """What comes before every endpoint: the key, how many requests there are at once; and counts them."""

    def __init__(self, app: Any, metrics: Metrics, limits: Limits, key: str | None):
        self._app, self._metrics, self._limits = app, metrics, limits
        self._key, self._running = key, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, chat = time.monotonic(), scope["path"] == CHAT

        async def count(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(message["status"]).inc()
            await send(message)

        self._running += chat
        try:
            self._check(scope)
            await self._app(scope, receive, count)
        except Refused as refused:
            await refusal(refused)(scope, receive, count)
        except Exception:  # told to the client outside of this
            self._metrics.requests.labels(500).inc()
            raise
        finally:
            self._running -= chat
            if chat:
                self._metrics.seconds.observe(time.monotonic() - began)

    def _check(self, scope: Any) -> None:
        sent = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        if self._key and scope["path"] != "/health" and not hmac.compare_digest(sent, self._key.encode()):
            raise Refused(401, "invalid_api_key", "the API key is missing or wrong", WWW_Authenticate="Bearer")
        if scope["path"] == CHAT and self._running > self._limits.most_requests:
            raise busy()


def busy() -> Refused:
    return Refused(429, "queue_full", "too many questions wait already, ask again later", Retry_After="1")


def stopping() -> Refused:
    return Refused(503, "stopping", "the server is being stopped", Retry_After="5")


def make_app(
    worker: Worker,
    name: str,
    fingerprint: str,
    limits: Limits,
    key: str | None = None,
    depth_model: DepthModel | None = None,
    segmenter: Segmenter | None = None,
    confidences: Confidences | None = None,
) -> FastAPI:
    """The application over a worker that runs.

    name: of the model; fingerprint: of its parameters; key: that requests have to bring; depth_model, segmenter: of requests that ask for
    estimated depth, or for masks of clicks and boxes; confidences: to tell how sure answers are.
    """
    app, metrics, created = FastAPI(openapi_url=None), Metrics(worker), int(time.time())
    app.add_middleware(Gate, metrics=metrics, limits=limits, key=key)
    chat = _Chat(worker, name, fingerprint, limits, metrics, depth_model, segmenter, confidences)
    app.add_api_route(CHAT, chat.answer, methods=["POST"], response_model=None)
    app.add_exception_handler(Refused, lambda _, refused: refusal(refused))
    app.add_exception_handler(ClientDisconnect, lambda *_: Response(status_code=499))
    model = {"id": name, "object": "model", "created": created, "owned_by": "smolrgpt_jax", "fingerprint": fingerprint}
    model["tells_confidence"] = confidences is not None

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def nothing_there(request: Request, error: HTTPException) -> JSONResponse:
        return refusal(Refused(error.status_code, "not_found", f"there is no {request.method} {request.url.path}"))

    @app.exception_handler(500)
    async def failed(*_: Any) -> JSONResponse:
        return refusal(Refused(500, "failed", "the server failed, its log says why"))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/health")
    async def health() -> JSONResponse:
        ready = worker.is_alive() and not worker.stopping
        return JSONResponse({"status": "ok" if ready else "stopping"}, 200 if ready else 503)

    @app.get("/metrics")
    async def tell_metrics() -> Response:
        return Response(prometheus.generate_latest(metrics.registry), media_type=prometheus.CONTENT_TYPE_LATEST)

    return app


class _Chat:
    """POST /v1/chat/completions."""

    def __init__(
        self,
        worker: Worker,
        name: str,
        fingerprint: str,
        limits: Limits,
        metrics: Metrics,
        depth_model: DepthModel | None,
        segmenter: Segmenter | None,
        confidences: Confidences | None,
    ):
        self._worker, self._name, self._fingerprint = worker, name, fingerprint
        self._limits, self._metrics = limits, metrics
        self._depth_model, self._segmenter, self._confidences = depth_model, segmenter, confidences
        self._reading, self._reading_large = asyncio.Semaphore(_READERS), asyncio.Semaphore(1)

    async def answer(self, request: Request) -> Response:
        until = asyncio.get_running_loop().time() + self._limits.seconds
        body = await self._body(request, until)
        told: asyncio.Queue[tuple[int, np.ndarray | Exception, bool]] = asyncio.Queue()
        asked, jobs = await self._read(body, told)
        del body
        try:
            self._worker.submit(jobs)
        except Busy:
            raise busy() from None
        except Stopping:
            raise stopping() from None
        answers = self._answers(request, jobs, told, until)
        if asked.stream:
            return StreamingResponse(self._chunks(asked, jobs, answers), media_type="text/event-stream")
        ended = {}
        async with contextlib.aclosing(answers):
            async for number, ids, _ in answers:
                ended[number] = ids
        choices = []
        for number, job in enumerate(jobs):
            text, finish = self._text(asked, job, ended[number])
            message = {"role": "assistant", "content": text, "refusal": None}
            choice = {"index": number, "message": message, "logprobs": None, "finish_reason": finish}
            choices.append(choice | self._confidence(asked, job, ended[number]))
        usage = self._usage(jobs, sum(ids.size for ids in ended.values()))
        return JSONResponse(self._head("chat.completion") | {"choices": choices, "usage": usage})

    async def _body(self, request: Request, until: float) -> bytes:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "content_type", "the body's Content-Type is not application/json")
        most, body = self._limits.body_bytes, bytearray()
        received = 0
        try:
            async with asyncio.timeout_at(until):
                async for chunk in request.stream():
                    received += len(chunk)
                    if received <= most:
                        body += chunk
                    elif received > _DRAINED_BYTES:  # some clients read nothing before all is sent
                        break
        except TimeoutError:
            raise Refused(408, "timeout", "the body did not come in time", Connection="close") from None
        if received > most:
            told = f"the body has more than {most / 2**20:g} MiB"
            raise Refused(413, "body_too_large", told, Connection="close")
        return bytes(body)

    async def _read(self, body: bytes, told: asyncio.Queue) -> tuple[ChatRequest, list[Job]]:
        """Reads a request with its pictures; those with a large one wait for each other, and nobody else for them."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TooLargeError):
            async with self._reading:
                return await asyncio.to_thread(self._jobs, body, told, loop, _LARGE)
        async with self._reading_large:
            return await asyncio.to_thread(self._jobs, body, told, loop, math.inf)

    def _jobs(
        self, body: bytes, told: asyncio.Queue, loop: asyncio.AbstractEventLoop, most_pixels: float
    ) -> tuple[ChatRequest, list[Job]]:
        """Reads the request and its pictures; in a thread of its own."""
        engine = self._worker.engine
        asked = read_request(body, engine.most_regions, self._segmenter, most_pixels)
        if asked.model != self._name:
            raise Refused(404, "model_not_found", f"there is no model {asked.model[:80]!r} here, only {self._name!r}")
        longest = asked.max_tokens or engine.answer_tokens
        if longest > engine.answer_tokens:
            raise Refused(400, "invalid_request", f"answers take at most {engine.answer_tokens} tokens, not {longest}")
        if asked.depth == ESTIMATE and self._depth_model is None:
            raise Refused(400, "unsupported_parameter", "this server estimates no depth, it runs without --depth_model")
        prefix, image, depth = self._worker.pictures.get(asked.picture), None, None
        try:
            ids = engine.question_ids(asked.question)
            if prefix is None:
                size = engine.config.vision.image_size
                image = read_rgb(asked.image, size)
                given = self._depth_model.estimate(asked.image) if asked.depth == ESTIMATE else asked.depth
                depth = None if given is None else read_depth(given, size, beside=asked.image)
            for picture in (asked.image, asked.depth):
                if isinstance(picture, Image.Image):
                    picture.close()  # what it was decoded to; the request is kept until its answer is written
        except DataError as error:
            raise Refused(400, "invalid_input", str(error)) from None

        def tell(number: int) -> Any:
            def put(ids: np.ndarray | Exception, ended: bool) -> None:
                with contextlib.suppress(RuntimeError):  # a loop that has ended, as its server has
                    loop.call_soon_threadsafe(told.put_nowait, (number, ids, ended))

            return put

        greedy = asked.temperature < _COLDEST or asked.top_p == 0
        how = (0.0, 1.0) if greedy else (asked.temperature, asked.top_p)
        kind, seed = asked.shape and asked.shape.kind, uuid.uuid4().int if asked.seed is None else asked.seed
        read_along = asked.stream and asked.shape is None
        sure = self._confidences and question_category(asked.question.prompt) in self._confidences.fits
        jobs = []
        for number in range(asked.choices):
            key = question_key(seed, str(number))
            one = Asked(ids, asked.question.regions, longest, kind, *how, key)
            jobs.append(Job(one, asked.picture, prefix, image, depth, tell(number), read_along))
            jobs[-1].question = asked.question if sure else None
        return asked, jobs

    async def _answers(
        self, request: Request, jobs: list[Job], told: asyncio.Queue, until: float
    ) -> AsyncIterator[tuple[int, np.ndarray, bool]]:
        """Yields (job's number, its ids so far, whether they have ended) until all have; after this nobody works on any of them."""
        gone, left, loop = asyncio.ensure_future(_disconnected(request)), len(jobs), asyncio.get_running_loop()
        try:
            while left:
                coming = asyncio.ensure_future(told.get())
                wait = max(0.0, until - loop.time())
                await asyncio.wait({coming, gone}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    if gone.done():
                        raise ClientDisconnect
                    raise Refused(504, "timeout", f"there was no answer within {self._limits.seconds:g} seconds")
                number, ids, ended = coming.result()
                if isinstance(ids, Stopping):
                    raise stopping()
                if isinstance(ids, Exception):
                    raise Refused(500, "failed", "the server failed, its log says why")
                left -= ended
                yield number, ids, ended
        finally:
            gone.cancel()
            for job in jobs:
                self._worker.leave(job)

    async def _chunks(self, asked: ChatRequest, jobs: list[Job], answers: Any) -> AsyncIterator[str]:
        """The answers as server-sent events."""
        head = self._head("chat.completion.chunk")
        sent, sizes = [""] * len(jobs), [0] * len(jobs)

        def event(choices: list[Mapping[str, Any]], **more: Any) -> str:
            return f"data: {json.dumps(head | {'choices': choices} | more)}\n\n"

        def chunk(number: int, delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> str:
            return event([{"index": number, "delta": delta, "logprobs": None, "finish_reason": finish} | more])

        try:
            for number in range(len(jobs)):
                yield chunk(number, {"role": "assistant", "content": ""})
            async with contextlib.aclosing(answers):
                async for number, ids, ended in answers:
                    sizes[number] = ids.size
                    text, finish = self._text(asked, jobs[number], ids)
                    if not ended:
                        # A character of several tokens is not there before its last one.
                        text = text.rstrip(_UNFINISHED)
                    if new := text[len(sent[number]) :]:
                        sent[number] = text
                        yield chunk(number, {"content": new})
                    if ended:
                        yield chunk(number, {}, finish, **self._confidence(asked, jobs[number], ids))
            usage = self._usage(jobs, sum(sizes))
            if asked.include_usage:
                yield event([], usage=usage)
            yield "data: [DONE]\n\n"
        except Refused as refused:
            yield f"data: {refusal(refused).body.decode()}\n\n"

    def _text(self, asked: ChatRequest, job: Job, ids: np.ndarray) -> tuple[str, str]:
        """What is written into the reply, and why it ends there."""
        engine = self._worker.engine
        finish, text = "length" if engine.is_cut(job.asked, ids) else "stop", engine.tokenizer.decode(ids)
        if asked.shape is None:
            return text, finish
        text, value = read_closing(asked.shape.kind[0], text)
        if not engine.tokenizer.format.closing_answer:
            read = read_answer(asked.question.prompt, text)
            if asked.shape.fits(read.normalized_answer):
                value = read.normalized_answer
        # The object is whole also where its text is not; the value of such a text is a guess.
        return asked.shape.write(text, value), finish

    def _confidence(self, asked: ChatRequest, job: Job, ids: np.ndarray) -> dict[str, Any]:
        """How sure an answer that has ended is, {} where it has no value or that is not known."""
        if self._confidences is None or job.likelihood is None:
            return {}
        read = read_answer(asked.question.prompt, free_text(self._worker.engine, job.asked, ids))
        sure = self._confidences(read.category, job.likelihood)
        if sure is None or read.normalized_answer is None:
            return {}
        return {"confidence": sure, "confidence_word": in_words(sure)}

    def _usage(self, jobs: list[Job], written: int) -> dict[str, int]:
        read = self._worker.engine.prefix.size + jobs[0].asked.ids.size
        self._metrics.tokens.labels("prompt").inc(read)
        self._metrics.tokens.labels("completion").inc(written)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def _head(self, kind: str) -> dict[str, Any]:
        about = {"created": int(time.time()), "model": self._name, "system_fingerprint": self._fingerprint}
        return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, **about}


async def _disconnected(request: Request) -> None:
    """Returns once the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
