"""Cursors: where a page ended, bound to the question that it answered.

A cursor is base64url of two short hashes and the position. The first covers the position and
reveals a cursor that was cut or changed, the second covers the query and reveals one that belongs
to another question. Neither is a secret: a position says nothing that the rows do not say, and
every part of it is checked and bound like any other input.
"""

import base64
import binascii
import hashlib
from typing import Annotated, TypeVar

import msgspec

Position = TypeVar("Position")

# A ticker at which a page ended: anybody can make a cursor, and Postgres takes no zero characters.
TickerPlace = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]+$")]

_DIGEST_BYTES = 6


class BadCursor(ValueError):
    """A cursor that cannot be continued from; the message says why."""


def encode_cursor(query: tuple[object, ...], position: object) -> str:
    """The cursor for the page of `query` that follows `position`."""
    place = msgspec.json.encode(position)
    return (
        base64.urlsafe_b64encode(_digest(place) + _digest(msgspec.json.encode(query)) + place)
        .rstrip(b"=")
        .decode()
    )


def decode_cursor(cursor: str, query: tuple[object, ...], shape: type[Position]) -> Position:
    """The position in a cursor that was made for `query`.

    Raises:
        BadCursor: it was not made by `encode_cursor`, or for another query.
    """
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = data[2 * _DIGEST_BYTES :]
        position = msgspec.json.decode(place, type=shape)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise BadCursor("is not a cursor; send next_cursor back as it came") from error
    if data[:_DIGEST_BYTES] != _digest(place):
        raise BadCursor("is damaged; send next_cursor back as it came")
    if data[_DIGEST_BYTES : 2 * _DIGEST_BYTES] != _digest(msgspec.json.encode(query)):
        raise BadCursor("belongs to another query; send the same fields with it, or no cursor")
    return position


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
