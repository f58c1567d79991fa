"""The WebSocket stream: one connection at a time, opened again through all that may pass.

What it receives goes to a sink at once, as bytes (see `connection`).

Source: docs.kalshi.com, WebSocket connection and keep-alive (read 2026-10).
"""

import asyncio
import random
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

from kalshi_platform.exchange import errors
from kalshi_platform.exchange.books import Books
from kalshi_platform.exchange.connection import Connection, Sink
from kalshi_platform.exchange.receiver import LARGEST_FRAME, Receiver
from kalshi_platform.exchange.signing import Signer

log = structlog.get_logger()

_OPEN_SECONDS = 10
_LONGEST_PAUSE_SECONDS = 30.0
_FIRST_CONTACT_SECONDS = 60  # an exchange never reached for so long is a wrong address


class Stream:
    """Keeps one signed connection open and its channels subscribed.

    Args:
        url: WebSocket URL.
        signer: signs each handshake afresh, since the signature carries the time.
        channels: public channels, subscribed without a filter.
        sink: takes the frames.
        silence_seconds: a channel quieter than this is subscribed again; a socket on which all
            are quiet is opened again (a socket can answer pings while its data has stopped).
        books: which order books are wanted; none, if not given.
    """

    def __init__(
        self,
        url: str,
        signer: Signer,
        channels: Sequence[str],
        sink: Sink,
        silence_seconds: float,
        books: Books | None = None,
    ) -> None:
        self._books = books or Books()
        self._url = url
        self._signer = signer
        self._channel_names = tuple(channels)
        self._sink = sink
        self._silence_seconds = silence_seconds
        self._accepted = False
        self._started_at = 0.0
        self._last_connection = 0

    async def run(self) -> None:
        """Stream until cancelled, through every interruption that may pass.

        Raises:
            errors.ExchangeError: what will not pass by itself: a refused key, a wrong clock, an
                exchange never reached. A key that was accepted before may be refused for a while
                without ending the stream.
        """
        pause = 0.0
        self._started_at = time.monotonic()
        while True:
            connection = max(int(time.time()), self._last_connection + 1)
            self._last_connection = connection
            started = time.monotonic()
            try:
                websocket = await self._open()
            except (OSError, TimeoutError, InvalidHandshake, errors.ExchangeError) as error:
                cause = self._why_not_opened(error)
                self._sink.event(connection, "connect_failed", cause=str(cause))
                log.warning("connect_failed", error=str(cause), retry_seconds=round(pause, 1))
            else:
                self._accepted = True
                cause_text = await Connection(
                    websocket,
                    connection,
                    self._channel_names,
                    self._sink,
                    self._silence_seconds,
                    self._books,
                ).follow()
                self._sink.event(connection, "close", cause=cause_text)
                log.warning("disconnected", cause=cause_text, connection=connection)
            lasted = time.monotonic() - started
            # A connection that worked for a while earns an immediate new one.
            pause = 0.1 if lasted > 10 else min(_LONGEST_PAUSE_SECONDS, max(0.2, pause * 2))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    async def _open(self) -> Receiver:
        path = urlsplit(self._url).path
        websocket = await connect(
            self._url,
            create_connection=Receiver,
            additional_headers=self._signer.headers("GET", path),
            max_size=LARGEST_FRAME,
            # Inflating would cost the reader more than loopback or a data centre's link saves.
            compression=None,
            open_timeout=_OPEN_SECONDS,
            close_timeout=2,
            ping_interval=10,
            ping_timeout=20,
        )
        assert isinstance(websocket, Receiver), "connect makes what it is told to"
        return websocket

    def _why_not_opened(self, error: Exception) -> errors.ExchangeError:
        """The error in the exchange's terms; raised where trying again cannot help."""
        if isinstance(error, InvalidStatus):
            response = error.response
            error = errors.from_response(
                response.status_code,
                bytes(response.body or b""),
                date=response.headers.get("Date"),
                retry_after=response.headers.get("Retry-After"),
            )
        elif not isinstance(error, errors.ExchangeError):
            error = errors.Unreachable(
                f"The exchange cannot be reached at {self._url} ({error}). "
                "Check KALSHI_WS_URL and the network."
            )
        if not self._accepted:
            lasted = time.monotonic() - self._started_at
            if not errors.is_transient(error) or lasted > _FIRST_CONTACT_SECONDS:
                raise error
        return error
