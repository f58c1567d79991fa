"""Connections that cannot be held for nothing: limits around each, and statements of the gone.

uvicorn reads a request for as long as its client likes to send it, keeps what a client does not
read, and lets a question run to its end when nobody waits for the answer. Here

- a request must have arrived within REQUEST_SECONDS of its first byte, its head within HEAD_BYTES;
- a client that takes nothing of an answer, or too little, is let go after SEND_SECONDS, and sooner
  where all such clients together hold more than MOST_UNSENT_BYTES: who has dawdled longest, first;
- whoever hangs up ends the statement of his question in the database;
- beyond MOST_CONNECTIONS only the operators' pages are answered, beyond HARD_CONNECTIONS nobody.
"""

import asyncio
import re
import uuid
from typing import Any, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from api.errors import Busy, problem_response

REQUEST_SECONDS = 15.0
SEND_SECONDS = 30.0
MOST_UNSENT_BYTES = 128 * 2**20
HEAD_BYTES = 32_768
MOST_CONNECTIONS = 3_000
HARD_CONNECTIONS = MOST_CONNECTIONS + 200
OPERATORS_PATHS = frozenset({"/health", "/metrics"})

# Clients offer to speak HTTP/2 or WebSocket (Java's with each first request); we go on as if they
# had not. The parser would leave the body unread, and then take it for the next request.
_UPGRADE = re.compile(rb"(\r\n)upgrade:", re.IGNORECASE)


class _Unsent:
    """What clients have not taken yet, those who dawdle longest first."""

    def __init__(self) -> None:
        self._bytes: dict[GuardedProtocol, int] = {}
        self._total = 0

    def add(self, connection: "GuardedProtocol", size: int) -> None:
        self.remove(connection)
        self._bytes[connection] = size
        self._total += size
        while self._total > MOST_UNSENT_BYTES:
            longest = next(iter(self._bytes))
            self.remove(longest)
            longest.transport.abort()

    def remove(self, connection: "GuardedProtocol") -> None:
        self._total -= self._bytes.pop(connection, 0)


_unsent = _Unsent()


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with deadlines; one object a connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answer = self.app
        self.app = cast("Any", self._answer_while_connected)
        self._running: asyncio.Task[Any] | None = None
        self._gone = False
        self._head_bytes = 0
        self._in_head = True
        self._in_message = False
        self._request_deadline: asyncio.TimerHandle | None = None
        self._send_deadline: asyncio.TimerHandle | None = None

    # What comes in -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > HARD_CONNECTIONS:
            transport.abort()
            return
        # Whoever connects has something to ask.
        self._await_request()

    def data_received(self, data: bytes) -> None:
        # No JSON has such a line; the length stays, for bodies are counted.
        super().data_received(_UPGRADE.sub(rb"\1x-offer:", data))
        if self.transport.is_closing():
            return
        if self._in_head:
            # What came before the last empty line was of other requests.
            self._head_bytes += len(data) - max(0, data.rfind(b"\r\n\r\n"))
            if self._head_bytes > HEAD_BYTES:
                self._refuse(431, f"The head of a request may have {HEAD_BYTES:,} bytes.")
                return
        if self._in_message or self.cycle is None or self.cycle.response_complete:
            self._await_request()  # whatever came was no whole request
        else:
            self._stop_awaiting_request()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _unsupported_upgrade_warning(self) -> None:
        # Its header came in pieces: where the next request begins is anybody's guess.
        self._refuse(400, "Send no Upgrade header.")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer what never became a request, and close."""
        self._stop_awaiting_request()
        answer = problem_response(
            uuid.uuid4().hex,
            status,
            name="not_http" if status == 400 else "head_too_long",
            title="This is no HTTP request" if status == 400 else "The head is too long",
            detail=detail,
        )
        lines = [b"%b: %b\r\n" % header for header in answer.raw_headers]
        self.transport.write(
            b"".join([STATUS_LINE[status], *lines, b"connection: close\r\n\r\n", answer.body])
        )
        self.transport.close()
        self._await_the_rest()

    def _await_request(self) -> None:
        if self._request_deadline is None:
            # Should an answer be on its way, it is to a client that has not finished asking.
            self._request_deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_awaiting_request(self) -> None:
        if self._request_deadline is not None:
            self._request_deadline.cancel()
            self._request_deadline = None

    # What goes out -----------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        _unsent.add(self, self.transport.get_write_buffer_size())
        self._await_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        _unsent.remove(self)
        if self._send_deadline is not None and not self.transport.is_closing():
            self._send_deadline.cancel()
            self._send_deadline = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_the_rest()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._await_the_rest()

    def _await_the_rest(self) -> None:
        # A connection that closes sends what is left first, however slowly it is taken.
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._await_taking()

    def _await_taking(self) -> None:
        if self._send_deadline is None:
            self._send_deadline = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    # The answer --------------------------------------------------------------------------------

    async def _answer_while_connected(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self.connections) > MOST_CONNECTIONS and scope["path"] not in OPERATORS_PATHS:
            await _too_many(scope, receive, send)
            return
        self._running = task = asyncio.current_task()
        try:
            await self._answer(scope, cast("Any", receive), cast("Any", send))
        except asyncio.CancelledError:
            if not self._gone:
                raise
            # uvicorn knows it of the newest question of a connection alone.
            cast("RequestResponseCycle", send.__self__).disconnected = True  # type: ignore[attr-defined]
        finally:
            if self._running is task:  # else the next question of this connection runs by now
                self._running = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        _unsent.remove(self)
        self._stop_awaiting_request()
        super().connection_lost(exc)
        if self._send_deadline is not None:
            self._send_deadline.cancel()
        if self._running is not None:
            self._running.cancel()


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    answer = problem_response(
        uuid.uuid4().hex,
        Busy.status,
        name=Busy.name,
        title=Busy.title,
        detail="Too many connections; try again in a few seconds.",
        headers={"Retry-After": "5", "Connection": "close"},
    )
    await answer(scope, receive, send)
