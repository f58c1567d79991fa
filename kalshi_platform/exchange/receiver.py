"""Frames as they lie in what the socket gave: the hot end of the stream."""

import time
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection

LARGEST_FRAME = 64 << 20  # the exchange's own limit
# First byte of a text frame that is not fragmented; second byte of longer frames.
_WHOLE_TEXT = 0x81
_LENGTH_OF_2_BYTES = 126


class Receiver(ClientConnection):
    """A connection that hands whole text frames over as they lie in what the socket gave.

    The library parses a frame in six steps of generators and passes it through a queue that slows
    the sender down when its reader is late: 4 µs a frame, and the exchange cuts slow readers off.
    Here its framing is read in place (RFC 6455, section 5.2), and every frame that is not a whole
    text message (pings, closes, fragments) goes to the library, one at a time, to be judged there.
    """

    take: Callable[[int, bytes], None] | None = None
    _rest = b""

    def data_received(self, data: bytes) -> None:
        take = self.take
        if take is None:
            super().data_received(data)
            return
        received_at_ns = time.time_ns()
        if self._rest:
            data = self._rest + data
        start, end = 0, len(data)
        while end - start >= 2:
            size, body = data[start + 1], start + 2
            if size >= _LENGTH_OF_2_BYTES:
                body += 2 if size == _LENGTH_OF_2_BYTES else 8
                size = int.from_bytes(data[start + 2 : body], "big")
            stop = body + size
            if stop > end and size <= LARGEST_FRAME:
                break
            if data[start] == _WHOLE_TEXT and size <= LARGEST_FRAME:
                take(received_at_ns, data[body:stop])
            else:
                super().data_received(data[start:stop])
            start = stop
        self._rest = data[start:]
