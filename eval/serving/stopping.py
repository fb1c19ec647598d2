"""The server runs until it is asked to stop, and then until what was asked before is answered."""

import asyncio
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from eval.serving.worker import Worker

_LINGER = 1.0  # seconds in which requests under way to a server that stops get a reply, which says so


class Server(uvicorn.Server):
    """Stops once its worker has ended, or the grace is over: seconds for what was asked before."""

    def __init__(self, app: FastAPI, worker: Worker, grace: float):
        quiet = {"log_level": "warning", "access_log": False, "server_header": False, "lifespan": "off"}
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=5, **quiet))
        self._worker, self._grace = worker, grace
        self._asked_to_stop: float | None = None
        self._answered: float | None = None  # when the last question was

    def answer(self, listening: socket.socket, told: str = "") -> None:
        """Serves at a listening socket until SIGTERM or SIGINT; `told` is printed once these can come."""
        self._told = told
        self._worker.start()
        self.run(sockets=[listening])
        self._worker.join(timeout=5)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        print(self._told, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets answers be finished, the second one does not."""
        self._worker.stop()
        if self._asked_to_stop is None:
            self._asked_to_stop = time.monotonic()
        else:
            self._grace = 0.0

    async def on_tick(self, counter: int) -> bool:
        if self._asked_to_stop is not None:
            waited = time.monotonic() - self._asked_to_stop
            if waited >= self._grace:
                self._worker.give_up()
                await asyncio.sleep(0.1)  # the replies that say so
                return True
            if not self._worker.is_alive():
                self._answered = self._answered or time.monotonic()
                if time.monotonic() - self._answered >= _LINGER:
                    return True
        return await super().on_tick(counter)
