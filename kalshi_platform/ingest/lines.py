"""Lines of the tape: read as what they are, or told apart from what cannot be read.

Whatever bytes a tape holds, this module answers; it decides what a line that does not fit still
says of itself (when it was received, over which connection, under which number).
"""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from kalshi_platform.exchange.messages import Frame
from kalshi_platform.exchange.unread import Numbers, Subject, read_numbers, subject_of

# What decoding raises: malformed or ill-typed JSON and bytes that are no UTF-8 are ValueErrors,
# nesting without end is the other.
UNREADABLE = (ValueError, RecursionError)

# Until the year 2100, and what fits beside a sequence number in a database integer.
_ReceivedAt = Annotated[int, msgspec.Meta(ge=0, lt=4_102_444_800_000_000_000)]
_Connection = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]


class TapeLine(Struct, gc=False):
    """One line of the tape, its frame read as the message that it is."""

    received_at_ns: _ReceivedAt
    connection: _Connection
    frame: Frame | UnsetType = UNSET
    text: str | UnsetType = UNSET
    event: str | UnsetType = UNSET
    cause: str | UnsetType = UNSET
    channel: str | UnsetType = UNSET
    use_yes_price: int | bool | UnsetType = UNSET
    """Of an event: how a subscription of books is asked to tell prices of the no side."""


class _RawLine(Struct):
    """The same, its frame as bytes."""

    received_at_ns: _ReceivedAt
    connection: _Connection
    frame: Raw


class UnreadFrame(NamedTuple):
    """A frame that is not what its type promises, and what can be said of it."""

    received_at_ns: int
    connection: int
    message: bytes
    numbers: Numbers
    subject: Subject


_FRAME = b'"frame":'
_decoder = msgspec.json.Decoder(TapeLine)
_decode_raw = msgspec.json.Decoder(_RawLine).decode


def read_lines(data: bytes) -> list[TapeLine] | None:
    """All lines of a block, one an element; None if any of them cannot be read."""
    try:
        lines = _decoder.decode_lines(data)
    except UNREADABLE:
        return None
    # A blank line, or two values in one, would shift the numbers of all that follow.
    return lines if len(lines) == data.count(b"\n") else None


def read_line(raw: bytes) -> TapeLine:
    """One line; raises one of `UNREADABLE`."""
    return _decoder.decode(raw)


def split_lines(data: bytes) -> list[bytes]:
    """The lines of a block; a line ends with a newline and with nothing else."""
    return [line for line in data.split(b"\n") if line]


class BlockLines:
    """The lines of a block that `read_lines` could read; taken apart once one is asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._lines: list[bytes] | None = None

    def all(self) -> list[bytes]:
        """Every line, and the nothing after the last newline."""
        if self._lines is None:
            self._lines = self._data.split(b"\n")
        return self._lines

    def at(self, number: int) -> bytes:
        """One line, by its index."""
        return self.all()[number]


def frame_bytes(raw: bytes) -> int:
    """Bytes of the frame that a line carries, as it was received."""
    return len(raw) - around_frame(raw)


def around_frame(raw: bytes) -> int:
    """Bytes of a line that are not its frame; all of it where it has none.

    The same for each line of a recorder: its times and connections have as many digits.
    """
    start = raw.find(_FRAME)
    return len(raw) if start < 0 else start + len(_FRAME) + len(b"}")


def unread_frame(raw: bytes) -> UnreadFrame | None:
    """What is left of a line that `read_line` refused; None if it is no line of ours at all."""
    try:
        line = _decode_raw(raw)
    except UNREADABLE:
        return None
    return UnreadFrame(
        line.received_at_ns,
        line.connection,
        bytes(line.frame),
        read_numbers(line.frame),
        subject_of(line.frame),
    )


def message_of(raw: bytes) -> bytes:
    """The message that a line carries, as received where it was JSON; else the whole line."""
    try:
        return bytes(_decode_raw(raw).frame)
    except UNREADABLE:
        return raw
