"""Reading a recording: frames of a WebSocket, one JSON object a line.

A line holds `received_at_ns` and `frame` (the message as an object; its bytes are sent as they
stand) or `text` (a frame that was not JSON), and may name the `connection` it came over. Lines
with an `event` instead are notes of the recorder and are passed over.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zstandard


class RecordingError(Exception):
    """The recording cannot be read; the message names file and line."""


class _Line(msgspec.Struct):
    received_at_ns: int = 0
    frame: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    connection: int | msgspec.UnsetType = msgspec.UNSET


class _Reply(msgspec.Struct):
    """What of a frame tells that a new connection has begun."""

    type: str = ""
    sid: int | None = None
    seq: int | None = None
    msg: msgspec.Raw = msgspec.Raw(b"")


class _Subscribed(msgspec.Struct):
    channel: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, when it was received, and whether it is the first of a connection."""

    received_at_ns: int
    data: bytes
    starts_connection: bool


def frames_of(path: Path) -> Iterator[Frame]:
    """The frames of a recording (.ndjson, .ndjson.gz or .ndjson.zst), in order.

    Raises:
        RecordingError: a line is not what it should be, or the file ends in the middle of one.
    """
    decoder = msgspec.json.Decoder(_Line)
    connections = _Connections()
    try:
        with _opened(path) as stream:
            for number, text in enumerate(stream, 1):
                if not text.strip():
                    continue
                try:
                    line = decoder.decode(text)
                except msgspec.DecodeError as error:
                    raise RecordingError(f"{path}, line {number}: {error}") from error
                if line.frame is not msgspec.UNSET:
                    data = bytes(line.frame)
                elif line.text is not msgspec.UNSET:
                    data = line.text.encode()
                elif line.event is not msgspec.UNSET:
                    continue
                else:
                    raise RecordingError(f"{path}, line {number}: neither frame, text nor event")
                yield Frame(line.received_at_ns, data, connections.begins(line, data))
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise RecordingError(f"{path}: {error}") from error


def count_frames(path: Path) -> int:
    """How many frames a recording has; also proves that all of it can be read."""
    return sum(1 for _ in frames_of(path))


@contextmanager
def _opened(path: Path) -> Iterator[Iterable[bytes]]:
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as unpacked:
            yield unpacked
    elif path.suffix == ".zst":
        # A tape is many zstd frames one after another.
        with (
            path.open("rb") as packed,
            zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader,
        ):
            yield io.BufferedReader(reader)
    else:
        with path.open("rb") as plain:
            yield plain


class _Connections:
    """Finds where a connection ends and the next begins.

    By the number on the line where there is one; else by a channel that is subscribed to again,
    or a sequence that starts again at 1.
    """

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_Reply)
        self._number: int | None = None
        self._channels: set[str] = set()
        self._numbered: set[int] = set()
        self._any = False

    def begins(self, line: _Line, data: bytes) -> bool:
        """Whether this frame is the first of a connection; the first of all is."""
        if line.connection is not msgspec.UNSET:
            fresh = line.connection != self._number
            self._number = line.connection
            return fresh
        try:
            reply = self._decoder.decode(data)
            subscribed = (
                msgspec.json.decode(reply.msg, type=_Subscribed)
                if reply.type == "subscribed"
                else None
            )
        except msgspec.DecodeError:
            return self._note(fresh=False)
        if subscribed is not None:
            fresh = subscribed.channel in self._channels
            if fresh:
                self._forget()
            self._channels.add(subscribed.channel)
            return self._note(fresh=fresh)
        if reply.sid is None or reply.seq is None:
            return self._note(fresh=False)
        fresh = reply.seq == 1 and reply.sid in self._numbered
        if fresh:
            self._forget()
        self._numbered.add(reply.sid)
        return self._note(fresh=fresh)

    def _forget(self) -> None:
        self._channels.clear()
        self._numbered.clear()

    def _note(self, *, fresh: bool) -> bool:
        first = not self._any
        self._any = True
        return fresh or first
