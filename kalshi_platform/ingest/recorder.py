"""The recorder: socket to tape, and nothing else.

It never waits for the database. Two guards keep it alone: a file lock on the tape's folder (one
writer a tape, even while the database is down) and the lease in the database (one recorder of this
database, wherever it runs). A recorder whose lease went to another stops.
"""

import asyncio
import fcntl
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import psycopg
import structlog

from kalshi_platform.exchange.books import Books
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.exchange.stream import Stream
from kalshi_platform.ingest.tape import TapeWriter
from kalshi_platform.storage.leases import RECORDER, Lease
from kalshi_platform.storage.texts import storable

log = structlog.get_logger()

PUBLIC_CHANNELS = ("trade", "ticker", "market_lifecycle_v2", "multivariate_market_lifecycle")
_LEASE_SECONDS = 0.5
# Some 12,000 frames of three pieces: so many wait no longer, for the loader works on blocks whole.
_MANY_PIECES = 36_000
_encode = msgspec.json.Encoder().encode


class LeaseHeld(RuntimeError):
    """Another recorder is at work."""


class Recorder:
    """Records the public channels until it is told to stop.

    Args:
        database_url: where the lease lives.
        tape_folder: where frames go.
        ws_url, signer: the exchange.
        flush_seconds: longest time a frame waits in memory before it is handed to the disk.
        segment_seconds: a new tape file every so often.
        silence_seconds: see `exchange.stream.Stream`.
        flushed: set whenever something new is on the tape.
        books: which order books are wanted, handed over while it runs; none, if not given.
    """

    def __init__(
        self,
        *,
        database_url: str,
        tape_folder: Path,
        ws_url: str,
        signer: Signer,
        flush_seconds: float,
        segment_seconds: float,
        silence_seconds: float,
        channels: Sequence[str] = PUBLIC_CHANNELS,
        flushed: threading.Event | None = None,
        books: Books | None = None,
    ) -> None:
        self._tape_folder = tape_folder
        self._flush_seconds = flush_seconds
        self._writer = TapeWriter(tape_folder, segment_seconds)
        self._lease = Lease(database_url, RECORDER)
        self._lines: list[bytes] = []
        """Pieces of the lines that are not on the tape yet."""
        self._many = asyncio.Event()
        self._opening = b""
        self._received_at_ns = self._connection = 0
        self._flushed = flushed or threading.Event()
        # One thread each, so that what is begun is over before anything else is done with them,
        # even if nobody waits for it any more.
        self._tape_thread = ThreadPoolExecutor(1, "tape")
        self._lease_thread = ThreadPoolExecutor(1, "lease")
        self._stream = Stream(ws_url, signer, channels, self, silence_seconds, books)

    # What the stream hands over (exchange.stream.Sink) ----------------------------------------

    def frame(self, connection: int, received_at_ns: int, data: bytes) -> None:
        if received_at_ns != self._received_at_ns or connection != self._connection:
            # Frames that came together share their first fields.
            self._received_at_ns, self._connection = received_at_ns, connection
            self._opening = b'{"received_at_ns":%d,"connection":%d,"frame":' % (
                received_at_ns,
                connection,
            )
        if b"\n" in data or b"\r" in data:
            # Blanks between its parts, which a JSON text may hold.
            try:
                data = msgspec.json.format(data, indent=-1)
            except (ValueError, RecursionError):
                self.text(connection, received_at_ns, data)
                return
        self._lines += (self._opening, data, b"}\n")
        if len(self._lines) > _MANY_PIECES:
            self._many.set()

    def text(self, connection: int, received_at_ns: int, data: bytes) -> None:
        line = {
            "received_at_ns": received_at_ns,
            "connection": connection,
            "text": data.decode(errors="backslashreplace"),
        }
        self._lines.append(_encode(line) + b"\n")

    def event(self, connection: int, event: str, **fields: str | int) -> None:
        line = {"received_at_ns": time.time_ns(), "connection": connection, "event": event}
        kept = {
            name: storable(value) if isinstance(value, str) else value
            for name, value in fields.items()
        }
        self._lines.append(_encode(line | kept) + b"\n")

    # The run ------------------------------------------------------------------------------------

    async def run(self, stop: threading.Event) -> None:
        """Record until `stop` is set; what was received is on the tape when this returns.

        Raises:
            LeaseHeld: another recorder runs, or has taken over.
            TapeFull: the disk is full.
            ExchangeError: the exchange refuses us for good.
        """
        lock = self._lock_folder()
        tasks: list[asyncio.Task[None]] = []
        try:
            await _in(self._lease_thread, self._take_lease)
            tasks = [
                asyncio.create_task(self._stream.run()),
                asyncio.create_task(self._flush_regularly()),
                asyncio.create_task(self._keep_lease()),
                asyncio.create_task(_wait_for(stop)),
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            try:
                await _in(self._tape_thread, self._end_tape, self._take_lines())
            finally:
                await _in(self._lease_thread, self._lease.release)
                self._tape_thread.shutdown()
                self._lease_thread.shutdown()
                os.close(lock)

    def _lock_folder(self) -> int:
        lock = os.open(self._tape_folder / "recorder.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise LeaseHeld(
                f"Another recorder writes to the tape at {self._tape_folder}."
            ) from None
        return lock

    def _take_lease(self) -> None:
        """Take the lease, keep it, or go on without it while the database is away."""
        try:
            if not self._lease.still_held() and not self._lease.acquire():
                raise LeaseHeld("Another recorder holds the lease of this database.")
        except psycopg.OperationalError as error:
            log.warning("lease_unknown", error=str(error).strip())

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(_LEASE_SECONDS)
            await _in(self._lease_thread, self._take_lease)

    async def _flush_regularly(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._flush_seconds):
                    await self._many.wait()
            self._many.clear()
            if lines := self._take_lines():
                # In a thread: neither compression nor a slow disk may hold up the reader.
                await _in(self._tape_thread, self._flush, lines)

    def _take_lines(self) -> list[bytes]:
        lines, self._lines = self._lines, []
        return lines

    def _flush(self, lines: list[bytes]) -> None:
        self._writer.write(b"".join(lines))
        self._flushed.set()

    def _end_tape(self, lines: list[bytes]) -> None:
        try:
            if not self._writer.broken:
                self._flush(lines)
        finally:
            self._writer.close()


async def _in(thread: ThreadPoolExecutor, work: Callable[..., None], *arguments: object) -> None:
    """Wait for work in a thread of its own; who is cancelled meanwhile leaves the work be."""
    await asyncio.shield(asyncio.get_running_loop().run_in_executor(thread, work, *arguments))


async def _wait_for(stop: threading.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(0.1)
