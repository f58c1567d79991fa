"""A webhook on this machine that prints the alerts it is sent: to see them without a Slack."""

import html
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec

_LARGEST_BYTES = 65_536
_QUIET_SECONDS = 5


class _Sent(msgspec.Struct):
    """A message in Slack's format; the text stands for the whole of it."""

    text: str


def listener(port: int, show: Callable[[str], None]) -> HTTPServer:
    """A server on 127.0.0.1 that shows the text of each message posted to it.

    Args:
        port: 0 takes a free one.
        show: called with one message at a time.

    Raises:
        OSError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _QUIET_SECONDS

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > _LARGEST_BYTES:
                self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                return
            try:
                sent = msgspec.json.decode(self.rfile.read(length), type=_Sent)
            except msgspec.DecodeError as error:
                self.send_error(HTTPStatus.BAD_REQUEST, explain=f"no message for Slack: {error}")
                return
            # Slack is told `&amp;`, and shows an ampersand.
            show(html.unescape(sent.text))
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (theirs)
            """What is shown is all that is printed."""

    return HTTPServer(("127.0.0.1", port), Handler)
