"""Frames that concern order books, told to the book subscription of their connection."""

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from kalshi_platform.exchange.book_subscription import CHANNEL, BookSubscription
from kalshi_platform.exchange.messages import ErrorFrame, SubscribedFrame, UnsubscribedFrame

_AUTHENTICATION_REQUIRED = 9
_ANSWERS = {"subscribed", "unsubscribed", "ok", "error"}
# Malformed JSON and bytes that are no UTF-8; nesting without end.
_UNREADABLE = (ValueError, RecursionError)

Value = TypeVar("Value")


class _Market(Struct, gc=False):
    market_ticker: str


class _Snapshot(Struct, gc=False):
    """Of a book it matters here whose it is."""

    msg: _Market


class _Listed(Struct):
    market_tickers: list[str] | UnsetType = UNSET


class _Ok(Struct):
    """The answer to a change of a subscription."""

    sid: int
    seq: int
    msg: _Listed
    id: int | UnsetType = UNSET


_read_snapshot = msgspec.json.Decoder(_Snapshot).decode
_read_ok = msgspec.json.Decoder(_Ok).decode
_read_subscribed = msgspec.json.Decoder(SubscribedFrame).decode
_read_unsubscribed = msgspec.json.Decoder(UnsubscribedFrame).decode
_read_error = msgspec.json.Decoder(ErrorFrame).decode


class BookFrames:
    """Picks out what concerns books.

    Args:
        books: the subscription that is told.
        tell_error: notes an error about books.
    """

    def __init__(self, books: BookSubscription, tell_error: Callable[[ErrorFrame], None]) -> None:
        self._books = books
        self._tell_error = tell_error

    def take(self, kind: str, sid: int | UnsetType, seq: int | UnsetType, data: bytes) -> bool:
        """Whether a frame was about books alone.

        Answers are followed at once: the snapshots that they announce may have come with them.
        """
        of_books = sid == self._books.sid
        if of_books:
            self._follow(kind, seq, data)
        return (kind in _ANSWERS and self._answers(kind, data)) or of_books

    def _follow(self, kind: str, seq: int | UnsetType, data: bytes) -> None:
        """Follow the numbers of the subscription, and see whose snapshot has come."""
        now = time.monotonic()
        self._books.seen_at = now
        if kind == CHANNEL:
            self._books.moved_at = now
        if seq is not UNSET:
            self._books.numbered(seq, now)
        if kind == "orderbook_snapshot":
            # One that cannot be read is asked for again, as if it had not come.
            with contextlib.suppress(*_UNREADABLE):
                self._books.snapshot(_read_snapshot(data).msg.market_ticker)

    def _answers(self, kind: str, data: bytes) -> bool:
        """Whether an answer is about books; one that cannot be read is not."""
        try:
            if kind == "subscribed":
                return self._subscribed(_read_subscribed(data))
            if kind == "ok":
                return self._changed(_read_ok(data))
            if kind == "unsubscribed":
                sid = _read_unsubscribed(data).sid
                return sid is not UNSET and self._books.unsubscribed(sid)
            return self._failed(_read_error(data))
        except _UNREADABLE:
            return False

    def _subscribed(self, frame: SubscribedFrame) -> bool:
        if frame.msg.channel != CHANNEL:
            return False
        return self._books.subscribed(_known(frame.id), frame.msg.sid, time.monotonic())

    def _changed(self, frame: _Ok) -> bool:
        tickers = _known(frame.msg.market_tickers)
        return self._books.listed(_known(frame.id), frame.sid, frame.seq, tickers, time.monotonic())

    def _failed(self, frame: ErrorFrame) -> bool:
        code, words = frame.msg.code, frame.msg.msg
        if code == _AUTHENTICATION_REQUIRED:
            return False  # that ends more than the books
        known = self._books.error(
            _known(frame.id), _known(frame.sid), code, words, time.monotonic()
        )
        if known:
            self._tell_error(frame)
        return known


def _known(value: Value | UnsetType) -> Value | None:
    return None if value is UNSET else value
