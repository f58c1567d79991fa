"""A webhook that listens: a real HTTP server that keeps what it is sent and answers as told."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep, time
from typing import Any, NamedTuple


class Heard(NamedTuple):
    """One POST: its Slack body and when it came (Unix seconds)."""

    body: dict[str, Any]
    at: float

    @property
    def title(self) -> str:
        """`ERROR stale feed`."""
        return str(self.body["text"]).partition(":")[0]


class Webhook:
    """Where it listens, what it has heard, and what it answers from now on."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/services/T0/B0/a-secret-token"
        self.heard: list[Heard] = []
        self.answer: tuple[int, bytes] = (200, b"ok")
        self.headers: dict[str, str] = {}
        self.refused: list[dict[str, Any]] = []
        # A server that takes a request and says nothing until it is told to.
        self.go_on = threading.Event()
        self.go_on.set()
        self.takes_seconds = 0.0

    @property
    def titles(self) -> list[str]:
        return [heard.title for heard in self.heard]

    def take(self, body: dict[str, Any]) -> tuple[int, bytes]:
        self.go_on.wait(30)
        sleep(self.takes_seconds)
        if self.answer[0] < 300:
            self.heard.append(Heard(body, time()))
        else:
            self.refused.append(body)
        return self.answer


@contextmanager
def listening(port: int = 0) -> Iterator[Webhook]:
    """A webhook on 127.0.0.1, gone afterwards."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            code, text = webhook.take(body)
            try:
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                for name, value in webhook.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)
            except BrokenPipeError:
                return  # the caller has hung up

        def log_message(self, *_: Any) -> None:
            """Tests say what they need to."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    webhook = Webhook(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield webhook
    finally:
        webhook.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()
