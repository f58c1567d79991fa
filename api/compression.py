"""Compressed answers for clients that take them: zstd, else gzip, at the levels that cost least.

A page of 1,000 trades repeats itself: the quickest level takes it to a tenth in well under a
millisecond of the event loop with zstd; gzip is made in a thread, where it holds up nobody.
"""

import asyncio
import re
import zlib
from functools import lru_cache
from typing import Literal, get_args

import zstandard
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Encoding = Literal["zstd", "gzip"]
SMALLEST_BYTES = 1_024
_ZSTD_LEVEL = 1
_GZIP_LEVEL = 1
_GZIP_FORMAT = 31  # zlib's window bits: 15, and 16 for gzip's head and tail
_TEXT = ("application/json", "application/problem+json", "text/")
_CODING = re.compile(r"\s*([\w*-]+)\s*(?:;\s*q\s*=\s*(\d(?:\.\d{0,3})?)\s*)?", re.ASCII)
_ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

# A compressor is an object of a few hundred kilobytes; the event loop needs one.
_zstd = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)


@lru_cache(maxsize=256)
def encoding_for(accept_encoding: str) -> Encoding | None:
    """What to compress with for an Accept-Encoding header; None: as it is.

    Of what is accepted, the one with the highest weight; zstd before gzip where they are equal.
    """
    weights: dict[str, float] = {}
    for part in accept_encoding.split(",")[:20]:
        if coding := _CODING.fullmatch(part):
            weights[coding[1].lower()] = float(coding[2] or 1)
    others = weights.get("*", 0.0)
    best = max(_ENCODINGS, key=lambda encoding: weights.get(encoding, others))
    return best if weights.get(best, others) > 0 else None


async def compressed(body: bytes, encoding: Encoding) -> bytes:
    """The body in that encoding; the event loop goes on while gzip is made."""
    if encoding == "zstd":
        return _zstd.compress(body)
    return await asyncio.to_thread(_gzip, body)


def _gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    return compressor.compress(body) + compressor.flush()


class Compression:
    """ASGI middleware: compresses texts of 1 KB and more that come in one piece."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        encoding = encoding_for(Headers(scope=scope).get("accept-encoding", ""))
        start: Message | None = None

        async def send_compressed(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message  # held until the size is known
                return
            if start is not None:
                head, start = start, None
                headers = MutableHeaders(scope=head)
                body = message.get("body", b"")
                if not message.get("more_body") and _is_worth_it(headers, body):
                    headers.add_vary_header("Accept-Encoding")
                    if encoding is not None:
                        body = await compressed(body, encoding)
                        headers["Content-Encoding"] = encoding
                        headers["Content-Length"] = str(len(body))
                        message = {**message, "body": body}
                await send(head)
            await send(message)

        await self._app(scope, receive, send_compressed)


def _is_worth_it(headers: MutableHeaders, body: bytes) -> bool:
    return (
        len(body) >= SMALLEST_BYTES
        and headers.get("content-type", "").startswith(_TEXT)
        and "content-encoding" not in headers
    )
