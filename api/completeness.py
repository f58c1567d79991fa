"""How complete an answer is: open gaps and proven days, a second old at most."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from api.database import ReadDatabase
from kalshi_platform.storage.reads.books import HEARD_SECONDS
from kalshi_platform.storage.reads.completeness import COMPLETENESS
from kalshi_platform.storage.reads.deltas import BOOK_WATCHED
from kalshi_platform.storage.reads.quotes import QUOTES_MISSING

DataStatus = Literal["complete", "unverified", "gaps"]
_REMEMBERED_SECONDS = 1.0


class _Gap(msgspec.Struct):
    starts_at: datetime
    ends_at: datetime


class _Day(msgspec.Struct):
    traded_on: str
    status: str
    swept_until: datetime | None


class _Evidence(msgspec.Struct):
    first_day: str | None
    gaps: list[_Gap]
    days: list[_Day]


class Completeness:
    """Answers for X-Data-Status from a small picture of the evidence, read once a second."""

    def __init__(self, database: ReadDatabase) -> None:
        self._database = database
        self._evidence: _Evidence | None = None
        self._until = 0.0
        self._reading = asyncio.Lock()

    async def of(self, start: datetime | None, end: datetime | None) -> DataStatus:
        """The status of trades in `[start, end)`.

        Returns:
            `gaps` where something is known to be missing or still being fetched, `complete` where
            every day was compared with the exchange's own record up to the window's end, else
            `unverified`.
        """
        evidence = await self._read()
        now = datetime.now(UTC)
        if start is None:
            if evidence.first_day is None:
                return "unverified"
            start = datetime.fromisoformat(evidence.first_day).replace(tzinfo=UTC)
        # What has not happened yet is not missing.
        end = now if end is None or end > now else end
        if any(gap.starts_at < end and gap.ends_at >= start for gap in evidence.gaps):
            return "gaps"
        return _status_of_days(evidence, start, end)

    async def of_quotes(
        self, market_ticker: str, start: datetime | None, end: datetime | None
    ) -> DataStatus:
        """The status of a market's quotes in `[start, end)`.

        Returns:
            `gaps` where some were lost, or the window begins before the first day that is held;
            else `unverified`: nothing numbers or repeats ticker messages, so nothing proves them.
        """
        now = datetime.now(UTC)
        row = await self._database.row(
            QUOTES_MISSING,
            {"market_ticker": market_ticker, "start": start, "end": min(end or now, now)},
        )
        assert row is not None, "a question without FROM has an answer"
        return "gaps" if row[0] == b"t" else "unverified"

    async def of_book(
        self, market_ticker: str, start: datetime | None, end: datetime | None
    ) -> DataStatus | None:
        """The status of the changes of a market's book in `[start, end)`; None: never watched.

        Returns:
            `complete` where the book was watched throughout and the sequence numbers show that
            nothing was lost, `unverified` where that holds so far but nothing at all was received
            lately, else `gaps`.
        """
        now = datetime.now(UTC)
        end = min(end or now, now)
        row = await self._database.row(
            BOOK_WATCHED, {"market_ticker": market_ticker, "start": start, "end": end}
        )
        assert row is not None, "an aggregate answers one row"
        first_at, unbroken, received_until = row
        if first_at is None:
            return None
        if unbroken != b"t":
            return "gaps"
        if received_until is None:
            return "unverified"
        heard = datetime.fromisoformat(received_until.decode()) + timedelta(seconds=HEARD_SECONDS)
        return "complete" if end <= heard else "unverified"

    def forget(self) -> None:
        """Read the evidence anew for the next answer."""
        self._until = 0.0

    async def _read(self) -> _Evidence:
        if self._evidence is None or self._until < time.monotonic():
            async with self._reading:
                if self._evidence is None or self._until < time.monotonic():
                    row = await self._database.row(COMPLETENESS)
                    assert row is not None and row[0] is not None
                    self._evidence = msgspec.json.decode(row[0], type=_Evidence)
                    self._until = time.monotonic() + _REMEMBERED_SECONDS
        return self._evidence


def _status_of_days(evidence: _Evidence, start: datetime, end: datetime) -> DataStatus:
    days = {day.traded_on: day for day in evidence.days}
    known = min([*days, *([evidence.first_day] if evidence.first_day else [])], default=None)
    if known is None:
        return "unverified"
    # Of earlier days nothing is known, however many are asked for.
    first = datetime.fromisoformat(known).replace(tzinfo=UTC)
    complete = start >= first
    midnight = max(start, first).replace(hour=0, minute=0, second=0, microsecond=0)
    while midnight < end:
        day = days.get(midnight.date().isoformat())
        midnight += timedelta(days=1)
        if day is None or day.status not in ("proven", "healed"):
            if day is not None and day.status == "degraded":
                return "gaps"
            complete = False
        elif day.swept_until is None or day.swept_until < min(end, midnight):
            complete = False
    return "complete" if complete else "unverified"
