"""Order books whose snapshot or changes are, in part or all, only in the archive."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from api.archive import Archive, Days, Row, Statement
from api.errors import Unavailable
from kalshi_platform.archive.reading import ArchivedFile, ArchiveReader
from kalshi_platform.storage.reads.books import (
    BOOK_HELD,
    SNAPSHOT_COLUMNS,
    TABLES,
    ArchivedBook,
    book_at,
)
from kalshi_platform.storage.reads.deltas import DELTA_COLUMNS
from kalshi_platform.transform.books import CLOCK_SECONDS

MOST_CHANGES = 200_000
"""From a snapshot to the instant asked for; the platform keeps a snapshot every few thousand."""

_SNAPSHOTS, _DELTAS = TABLES
_CLOCK = timedelta(seconds=CLOCK_SECONDS)
_MICROSECOND = timedelta(microseconds=1)


class Held(NamedTuple):
    """Since when a book is held, and since when it was ever watched; ISO instants or None."""

    held_since: str | None
    watched_since: str | None


async def archived_book(
    archive: Archive, market_ticker: str, at: datetime, *, depth: int | None
) -> Row:
    """The row of `book_at` without its evidence, wherever snapshot and changes are.

    Raises:
        Unavailable: a file of the archive is needed and cannot be read.
    """
    found = Days({}, "")

    async def look(days: Days) -> Statement:
        nonlocal found
        found = days
        return book_at(market_ticker, at, depth=depth)

    row = await archive.row(TABLES, None, at.date(), look)
    _, _, base_at, watch_at = row
    begun = base_at or watch_at
    if begun is None:
        return row
    # The book is built on a snapshot that is no older, and on changes that are hardly older.
    since = datetime.fromisoformat(begun.decode()).astimezone(UTC)
    if not any(_from(found, table, since) for table in TABLES):
        return row

    async def look_further(days: Days) -> Statement:
        archived = await archive.read(
            lambda reader, until: _read(
                reader,
                _from(days, _SNAPSHOTS, since),
                _from(days, _DELTAS, since),
                market_ticker,
                since,
                at,
                until,
            )
        )
        return book_at(market_ticker, at, depth=depth, archived=archived)

    return await archive.row(TABLES, None, at.date(), look_further)


async def book_held(archive: Archive, market_ticker: str) -> Held:
    """Since when a market's book is held and was watched, archived days included.

    Raises:
        Unavailable: a file of the archive is needed and cannot be read.
    """
    parameters: dict[str, str | datetime | None] = {
        "market_ticker": market_ticker,
        "archived_at": None,
    }

    async def look(days: Days) -> Statement:
        if watched_since is not None:
            files = _from(days, _SNAPSHOTS, datetime.fromisoformat(watched_since))
            if files:
                parameters["archived_at"] = await archive.read(
                    lambda reader, until: reader.oldest_at(
                        files, market_ticker, [*SNAPSHOT_COLUMNS], until=until
                    )
                )
        return BOOK_HELD, parameters

    watched_since: str | None = None
    for _ in range(2):  # a watch tells where to look
        held_since, watched_since = (
            None if value is None else value.decode()
            for value in await archive.row(TABLES, None, None, look)
        )
    return Held(held_since, watched_since)


def _from(days: Days, table: str, since: datetime) -> Sequence[ArchivedFile]:
    """The dropped days that can matter of a book that begins at `since`."""
    first = (since - 2 * _CLOCK).date()
    return [file for file in days.dropped[table] if file.day >= first]


def _read(
    reader: ArchiveReader,
    snapshots: Sequence[ArchivedFile],
    deltas: Sequence[ArchivedFile],
    market_ticker: str,
    since: datetime,
    at: datetime,
    until: float,
) -> ArchivedBook:
    """The snapshots that the last one can be, and the changes that can follow it."""
    columns = [*SNAPSHOT_COLUMNS]
    newest = reader.newest_at(snapshots, market_ticker, columns, at, until=until)
    begins = since if newest is None else max(since, newest)
    end = at + _MICROSECOND
    found = ArchivedBook(
        reader.rows(
            snapshots,
            market_ticker,
            columns,
            start=begins - _CLOCK,
            end=end,
            limit=MOST_CHANGES,
            until=until,
        ),
        reader.rows(
            deltas,
            market_ticker,
            [*DELTA_COLUMNS],
            start=begins - 2 * _CLOCK,
            end=end,
            limit=MOST_CHANGES,
            until=until,
        ),
    )
    if found.deltas["seq"].count(",") + 1 >= MOST_CHANGES:
        raise Unavailable(
            f"More than {MOST_CHANGES:,} changes lead to this book; ask for an earlier instant."
        )
    return found
