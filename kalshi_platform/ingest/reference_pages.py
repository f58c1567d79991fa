"""One page of markets, events or series → tables: a transaction with the position it brings.

A page that the database refuses is written in halves, until the one object that it cannot hold is
found: that goes to `rejected_messages`, the others are kept.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, TypeVar

import msgspec
import psycopg
from psycopg import errors as postgres_errors

from kalshi_platform.exchange.answers import Page
from kalshi_platform.exchange.reference import EventFacts, MarketFacts, SeriesFacts
from kalshi_platform.exchange.rest import Tier
from kalshi_platform.ingest.rejections import reject
from kalshi_platform.storage.writes.events import write_events
from kalshi_platform.storage.writes.feed import add_to_counters
from kalshi_platform.storage.writes.markets import write_markets
from kalshi_platform.storage.writes.series import write_series
from kalshi_platform.storage.writes.told import Changes

Source = Literal["rest", "historical"]
# The source as the tables name it.
SOURCES: dict[Tier, Source] = {"live": "rest", "historical": "historical"}
NOTHING = Changes(0, 0, 0)
_ATTEMPTS = 5
_UNHOLDABLE = (psycopg.DataError, postgres_errors.ProgramLimitExceeded)


class _Facts(Protocol):
    @property
    def metadata(self) -> bytes: ...


F = TypeVar("F", bound=_Facts)
Write = Callable[[Sequence[F]], Changes]


@dataclass
class Tally:
    """What some pages brought, table by table."""

    markets: Changes = NOTHING
    events: Changes = NOTHING
    series: Changes = NOTHING
    rejected: int = 0
    """Objects that could not be read or held."""
    missing: int = 0
    """Names that the exchange had nothing under, each time it was asked."""

    @property
    def changed(self) -> int:
        """Rows added or changed in all three tables."""
        return sum(one.added + one.changed for one in (self.markets, self.events, self.series))

    def add(self, other: "Tally") -> None:
        self.markets = plus(self.markets, other.markets)
        self.events = plus(self.events, other.events)
        self.series = plus(self.series, other.series)
        self.rejected += other.rejected
        self.missing += other.missing


@dataclass
class Pages:
    """Lands pages and keeps the tally.

    Args:
        connection: not in a transaction; each page is committed.
    """

    connection: psycopg.Connection
    tally: Tally = field(default_factory=Tally)

    def land_markets(
        self,
        page: Page[MarketFacts],
        source: Source = "rest",
        also: Callable[[Changes], None] | None = None,
    ) -> Changes:
        """Write one page of markets; `also` writes more in the same transaction."""

        def write(items: Sequence[MarketFacts]) -> Changes:
            return write_markets(self.connection, items, source=source, read_at=page.received_at)

        changes = self._land("markets", page, write, source, also)
        self.tally.markets = plus(self.tally.markets, changes)
        return changes

    def land_events(
        self, page: Page[EventFacts], also: Callable[[Changes], None] | None = None
    ) -> Changes:
        """Write one page of events."""

        def write(items: Sequence[EventFacts]) -> Changes:
            return write_events(self.connection, items, source="rest", read_at=page.received_at)

        changes = self._land("events", page, write, "rest", also)
        self.tally.events = plus(self.tally.events, changes)
        return changes

    def land_series(
        self, page: Page[SeriesFacts], also: Callable[[Changes], None] | None = None
    ) -> Changes:
        """Write series."""

        def write(items: Sequence[SeriesFacts]) -> Changes:
            return write_series(self.connection, items, source="rest", read_at=page.received_at)

        changes = self._land("series", page, write, "rest", also)
        self.tally.series = plus(self.tally.series, changes)
        return changes

    def _land(
        self,
        kind: str,
        page: Page[F],
        write: Write[F],
        source: Source,
        also: Callable[[Changes], None] | None,
    ) -> Changes:
        for attempt in range(_ATTEMPTS):
            refused: list[tuple[bytes, str]] = []
            try:
                with self.connection.transaction():
                    changes = _write(self.connection, page.items, write, refused)
                    rejected = [*page.rejected, *refused]
                    self._reject(kind, rejected, source, page.received_at)
                    if also is not None:
                        also(changes)
                break
            except postgres_errors.DeadlockDetected:
                if attempt + 1 == _ATTEMPTS:
                    raise
        self.tally.rejected += len(rejected)
        return changes

    def _reject(
        self,
        kind: str,
        rejected: Sequence[tuple[bytes, str]],
        source: Source,
        received_at: datetime,
    ) -> None:
        if rejected:
            # `reads.status` counts them by the first word.
            told = [(raw, f"{kind}: {reason}") for raw, reason in rejected]
            reject(self.connection, told, source, received_at)
            counter = ("reference_rejected_total", f'source="{source}"')
            add_to_counters(self.connection, {counter: len(rejected)})


def plus(first: Changes, second: Changes) -> Changes:
    """The two together."""
    return Changes(
        first.added + second.added,
        first.changed + second.changed,
        first.unchanged + second.unchanged,
    )


def names_in(rejected: Collection[tuple[bytes, str]], key: str) -> set[str]:
    """The names of objects that could not be read, as far as those can be."""
    names = set()
    for raw, _ in rejected:
        try:
            told = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
            names.add(msgspec.json.decode(told.get(key, msgspec.Raw(b"null")), type=str))
        except (ValueError, RecursionError):
            continue  # it has none; the object itself is kept with its bytes
    return names


def _write(
    connection: psycopg.Connection,
    items: Sequence[F],
    write: Write[F],
    refused: list[tuple[bytes, str]],
) -> Changes:
    if not items:
        return NOTHING
    try:
        with connection.transaction():
            return write(items)
    except _UNHOLDABLE as error:
        if len(items) == 1:
            refused.append((items[0].metadata, f"the database cannot hold it: {error}"))
            return NOTHING
    middle = len(items) // 2
    first = _write(connection, items[:middle], write, refused)
    return plus(first, _write(connection, items[middle:], write, refused))
