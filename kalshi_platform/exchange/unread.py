"""What may still be known of a frame that cannot be read as what it is.

Its number is used up all the same, and what was lost concerns one channel, perhaps one market.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from kalshi_platform.exchange.numbers import Seq, Sid, ticker

_UNREADABLE = (ValueError, RecursionError)


class Numbers(Struct):
    """Its subscription, its number there, and when it was sent."""

    sid: Sid | UnsetType = UNSET
    seq: Seq | UnsetType = UNSET
    sending_ts_ms: int | UnsetType = UNSET


class Subject(NamedTuple):
    """What it is and which market it speaks of; None where that cannot be told."""

    kind: str | None
    market_ticker: str | None


class _Typed(Struct):
    type: str


class _Message(Struct):
    market_ticker: str


class _Named(Struct):
    msg: _Message


_decode_numbers = msgspec.json.Decoder(Numbers).decode
_decode_typed = msgspec.json.Decoder(_Typed).decode
_decode_named = msgspec.json.Decoder(_Named).decode
# What a text that is no JSON may show: a frame that was cut short, or has words around it.
_type_within = re.compile(r'"type"\s*:\s*"(\w{1,64})"').search
_ticker_within = re.compile(r'"market_ticker"\s*:\s*"([!-~]{1,200}?)"').search


def read_numbers(frame: msgspec.Raw | bytes) -> Numbers:
    """The numbers of a frame; none of them where one is absurd."""
    try:
        return _decode_numbers(frame)
    except _UNREADABLE:
        return Numbers()


def subject_of(frame: msgspec.Raw | bytes) -> Subject:
    """What a frame of JSON speaks of."""
    return Subject(
        _if_readable(lambda: _decode_typed(frame).type),
        _if_readable(lambda: ticker(_decode_named(frame).msg.market_ticker)),
    )


def subject_within(text: str) -> Subject:
    """What a text that is no JSON seems to speak of."""
    kind, market = _type_within(text), _ticker_within(text)
    return Subject(kind and kind[1], market and market[1])


def _if_readable(read: Callable[[], str]) -> str | None:
    try:
        return read()
    except _UNREADABLE:
        return None
