"""Days that are only in the archive: known, read beside the database, never half.

What a statement answers counts only if its evidence is that of the days that were looked for in
the archive; else a day was dropped or restored meanwhile, and the page is made again.
"""

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from itertools import accumulate, groupby
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import structlog

from api.database import ReadDatabase
from api.errors import Unavailable
from kalshi_platform.archive.reading import ArchivedFile, ArchiveReader, ArchiveUnreadable
from kalshi_platform.storage.reads.archived import (
    ARCHIVED_DAYS,
    MARKET_DAYS,
    ArchivedRows,
    days_of,
    evidence_of,
)

_log = structlog.get_logger(__name__)
_Found = TypeVar("_Found")
_Position = TypeVar("_Position", bound=tuple[Any, ...], contravariant=True)

Row = tuple[bytes | None, ...]
Statement = tuple[str, Mapping[str, Any]]


class PageStatement(Protocol[_Position]):
    """`trades_page`, `quotes_page` or `deltas_page` of the reads."""

    def __call__(
        self,
        market_ticker: str,
        *,
        start: datetime | None,
        end: datetime | None,
        after: _Position | None,
        limit: int,
        archived: ArchivedRows | None,
    ) -> Statement: ...


THREADS = 4
"""Files that are read at a time."""
MOST_WAITING = 64
"""Requests that may wait for a thread; more are sent away."""
LONGEST_SECONDS = 5.0
"""For the archived part of one page."""
# To open a file that has nothing of the market costs more than to ask for its days.
_WORTH_ASKING = 2
# Each time a day must have been dropped or restored within milliseconds.
_ATTEMPTS = 5


class _Day(msgspec.Struct, frozen=True):
    """One row of ARCHIVED_DAYS."""

    table: str
    day: date
    path: str
    rows: int
    bytes: int
    sha256: str
    dropped: bool
    version: int

    @property
    def file(self) -> ArchivedFile:
        return ArchivedFile(self.table, self.day, self.path, self.rows, self.bytes, self.sha256)


class _Table:
    """The archived days of one table, oldest first, so that a window's are found at once."""

    def __init__(self, days: Sequence[_Day]) -> None:
        self._days = [day.day for day in days]
        self._sums = [0, *accumulate(day.version for day in days)]
        self._dropped = [day.file for day in days if day.dropped]
        self._dropped_days = [file.day for file in self._dropped]

    def dropped(self, first: date, last: date) -> list[ArchivedFile]:
        begins = bisect_left(self._dropped_days, first)
        return self._dropped[begins : bisect_right(self._dropped_days, last)]

    def count_and_sum(self, first: date, last: date) -> tuple[int, int]:
        begins, ends = bisect_left(self._days, first), bisect_right(self._days, last)
        return ends - begins, self._sums[ends] - self._sums[begins]


_Known = Mapping[str, _Table]


class Days(NamedTuple):
    """The archived days of a window.

    Attributes:
        dropped: those whose rows are only in the archive, oldest first, by table.
        evidence: what a statement over this window must answer with.
    """

    dropped: Mapping[str, Sequence[ArchivedFile]]
    evidence: str


class Archive:
    """Answers pages from database and archive together.

    Args:
        url: of the archive; None where there is none, so that no day may be dropped.
        seconds: longest time that reading files for one page may take.
    """

    def __init__(
        self, database: ReadDatabase, url: str | None, *, seconds: float = LONGEST_SECONDS
    ) -> None:
        self._database = database
        self._reader = None if url is None else ArchiveReader(url)
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(THREADS, "archive")
        self._waiting = 0
        self._known: _Known | None = None
        self._looking = asyncio.Lock()

    def close(self) -> None:
        """Begin no more reading; what is being read ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def row(
        self,
        tables: Sequence[str],
        first: date | None,
        last: date | None,
        look: Callable[[Days], Awaitable[Statement]],
    ) -> Row:
        """The row of a statement whose last column is evidence; that column is left out.

        Args:
            tables, first, last: the days that the statement speaks of.
            look: finds the archived rows of the dropped days, and makes the statement of them.

        Raises:
            Unavailable: a file cannot be read, or not in time.
        """
        for _ in range(_ATTEMPTS):
            known = self._known or await self._look()
            days = _days_of(known, tables, first, last)
            try:
                statement = await look(days)
            except ArchiveUnreadable as error:
                # Perhaps the day was restored, and its file is not needed any more.
                if _days_of(await self._look(known), tables, first, last) == days:
                    raise _unreadable(error) from error
                continue
            row = await self._database.row(*statement)
            assert row is not None, "a statement with evidence answers one row"
            *answer, evidence = row
            if evidence == days.evidence.encode():
                return tuple(answer)
            await self._look(known)
        raise Unavailable(
            "Days are being moved between database and archive right now; try again.",
            headers={"Retry-After": "2"},
        )

    async def files_of(
        self, table: str, market_ticker: str, files: Sequence[ArchivedFile]
    ) -> Sequence[ArchivedFile]:
        """Those of the files, oldest first, that can have rows of the market."""
        if table not in MARKET_DAYS or len(files) < _WORTH_ASKING:
            return files
        days = await self.market_days(table, market_ticker, files[0].day, files[-1].day)
        return [file for file in files if file.day in days]

    async def market_days(
        self, table: str, market_ticker: str, first: date, last: date
    ) -> Sequence[date]:
        """The days on which a market has rows of a table, in database or archive, oldest first.

        As of this instant: the evidence of the page tells that no day came or went around it.
        """
        row = await self._database.row(
            MARKET_DAYS[table],
            {"market_ticker": market_ticker, "first_day": first, "last_day": last},
        )
        assert row is not None and row[0] is not None, "an aggregate answers one row"
        return msgspec.json.decode(row[0], type=list[date])

    async def read(self, find: Callable[[ArchiveReader, float], _Found]) -> _Found:
        """Let a thread find something in the archive.

        Args:
            find: is told until when it may take (monotonic).

        Raises:
            ArchiveUnreadable: see `ArchiveReader`.
            Unavailable: too many are waiting, or it takes too long.
        """
        if self._reader is None:
            _log.error("archive_not_configured")
            raise Unavailable("This day is archived, and the archive is not configured here.")
        if self._waiting >= THREADS + MOST_WAITING:
            raise Unavailable(
                "Too many requests for archived days; try again in a few seconds.",
                headers={"Retry-After": "2"},
            )
        self._waiting += 1
        loop, until = asyncio.get_running_loop(), time.monotonic() + self._seconds
        try:
            return await asyncio.wait_for(
                loop.run_in_executor(self._threads, find, self._reader, until), self._seconds
            )
        except TimeoutError:
            _log.warning("archive_slow", seconds=self._seconds)
            raise Unavailable(
                "The archive takes too long; try again, or ask for a narrower window.",
                headers={"Retry-After": "5"},
            ) from None
        finally:
            self._waiting -= 1

    async def _look(self, outdated: _Known | None = None) -> _Known:
        """What is archived; read anew unless somebody else did since it was `outdated`."""
        async with self._looking:
            if self._known is None or self._known is outdated:
                row = await self._database.row(ARCHIVED_DAYS)
                assert row is not None and row[0] is not None, "an aggregate answers one row"
                days = msgspec.json.decode(row[0], type=list[_Day])
                self._known = {
                    table: _Table(list(of_table))
                    for table, of_table in groupby(days, key=lambda day: day.table)
                }
            return self._known


async def archived_page(
    archive: Archive,
    table: str,
    columns: Sequence[str],
    statement_of: PageStatement[_Position],
    market_ticker: str,
    *,
    start: datetime | None,
    end: datetime | None,
    after: _Position | None,
    limit: int,
) -> Row:
    """The row of a page's statement, wherever its rows are.

    Args:
        columns: of the table, that a record is made of.
        after: the position that the page follows, its time first.

    Raises:
        Unavailable: a file of the archive is needed and cannot be read.
    """
    lower = start if after is None else after[0]

    async def look(days: Days) -> Statement:
        archived = None
        if files := await archive.files_of(table, market_ticker, days.dropped[table]):
            archived = await archive.read(
                lambda reader, until: reader.rows(
                    files,
                    market_ticker,
                    columns,
                    start=lower,
                    end=end,
                    after=after or (),
                    limit=limit + 1,
                    until=until,
                )
            )
        return statement_of(
            market_ticker, start=start, end=end, after=after, limit=limit, archived=archived
        )

    return await archive.row((table,), *days_of(lower, end), look)


def _days_of(known: _Known, tables: Sequence[str], first: date | None, last: date | None) -> Days:
    first, last = first or date.min, last or date.max
    found = {table: known.get(table) or _Table([]) for table in tables}
    counted = [table.count_and_sum(first, last) for table in found.values()]
    return Days(
        {name: table.dropped(first, last) for name, table in found.items()},
        evidence_of(sum(count for count, _ in counted), sum(versions for _, versions in counted)),
    )


def _unreadable(error: ArchiveUnreadable) -> Unavailable:
    file = error.file
    _log.error(
        "archive_unreadable",
        table=file.table,
        day=str(file.day),
        path=file.path,
        reason=error.reason,
    )
    return Unavailable(
        f"{file.table} of {file.day} are archived, and their file cannot be read right now;"
        " other days are not affected.",
        headers={"Retry-After": "60"},
    )
