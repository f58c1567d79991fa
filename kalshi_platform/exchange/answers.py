"""Answers of the REST API as typed structures: what we rely on is required.

Markets, events and series are read in `reference`; here are the lists that bring them. Candlesticks
are read in `candlesticks`.
Source: docs.kalshi.com/api-reference, read 2026-10-15 (OpenAPI 3.31).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

from kalshi_platform.exchange.errors import UnreadableAnswer
from kalshi_platform.exchange.messages import Trade, Unreadable

T = TypeVar("T")

_Instant = Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some objects of a list; one that cannot be read never spoils the others.

    `rejected` holds the bytes of each such object and why; `cursor` is None on the last page.
    """

    items: list[T]
    rejected: list[tuple[bytes, str]]
    cursor: str | None
    received_at: datetime


@dataclass(frozen=True)
class TradesPage:
    """One page of trades, newest first; `cursor` is None on the last page."""

    trades: list[Trade]
    rejected: list[tuple[bytes, str]]
    cursor: str | None
    received_at: datetime


class ExchangeStatus(Struct):
    exchange_active: bool
    trading_active: bool
    exchange_estimated_resume_time: str | None = None


class Cutoff(Struct):
    """Before these instants only the historical endpoints answer, after them only the live ones."""

    market_settled_ts: _Instant
    trades_created_ts: _Instant


def read_answer(body: bytes, kind: type[T]) -> T:
    """`body` as `kind`.

    Raises:
        UnreadableAnswer: not JSON, or a required field is missing or of another type.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableAnswer(f"The exchange's answer is not what we know: {error}.") from error


def read_page(body: bytes, envelope: str, read: Callable[[bytes], T]) -> Page[T]:
    """The objects of the list under `envelope`, read one by one.

    Args:
        read: makes one of an object's bytes, or raises Unreadable.

    Raises:
        UnreadableAnswer: the answer is no such list.
    """
    received_at = datetime.now(UTC)
    fields = _fields(body, envelope)
    # A list without any is null in some answers.
    listed = read_answer(bytes(fields[envelope]), list[Raw] | None) or []  # type: ignore[arg-type]
    cursor = read_answer(bytes(fields.get("cursor", Raw(b"null"))), str | None)  # type: ignore[arg-type]
    items, rejected = _read_each([bytes(raw) for raw in listed], read)
    return Page(items, rejected, cursor or None, received_at)


def read_single(body: bytes, envelope: str, read: Callable[[bytes], T]) -> Page[T]:
    """The one object under `envelope`, as a page of its own."""
    received_at = datetime.now(UTC)
    fields = _fields(body, envelope)
    items, rejected = _read_each([bytes(fields[envelope])], read)
    return Page(items, rejected, None, received_at)


def _fields(body: bytes, envelope: str) -> dict[str, Raw]:
    fields = read_answer(body, dict[str, Raw])
    if envelope not in fields:
        raise UnreadableAnswer(f"The exchange's answer has no `{envelope}`.")
    return fields


def _read_each(
    objects: Iterable[bytes], read: Callable[[bytes], T]
) -> tuple[list[T], list[tuple[bytes, str]]]:
    items: list[T] = []
    rejected: list[tuple[bytes, str]] = []
    for raw in objects:
        try:
            items.append(read(raw))
        except Unreadable as error:
            rejected.append((raw, str(error)))
    return items, rejected
