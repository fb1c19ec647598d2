"""A stand-in for servers of other models."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeServer:
    """A real HTTP server on a free port; `reply(number, body)` gives (status, headers, body) for the
    number-th request of the same question, counted from 0."""

    def __init__(self):
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.reply: Callable[[int, dict], tuple[int, dict, str]] = lambda number, body: (404, {}, "no reply is set")
        self.models, self.listed = 200, "no list"
        self._seen: Counter = Counter()
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send(fake.models if self.path == "/v1/models" else 404, {}, fake.listed)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/v1/chat/completions":
                    self.send(404, {}, "no")
                    return
                with fake._lock:
                    fake.requests.append(body)
                    fake.headers.append(dict(self.headers))
                    asked = json.dumps(body["messages"])
                    number = fake._seen[asked]
                    fake._seen[asked] += 1
                self.send(*fake.reply(number, body))

            def send(self, status, headers, text):
                data = text.encode()
                self.send_response(status)
                given = {"Content-Type": "application/json", **headers, "Content-Length": str(len(data))}
                for name, value in given.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that waited long enough
                    self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @staticmethod
    def content(value) -> str:
        return json.dumps({"choices": [{"message": {"content": json.dumps({"value": value})}}]})

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
