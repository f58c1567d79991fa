"""Whether a market is known at all, and what is known of it."""

from datetime import UTC, date, datetime, time

from api.archive import Archive, Days, Statement
from api.database import ReadDatabase
from api.errors import UnknownMarket
from kalshi_platform.storage.reads.markets import MARKET_BY_TICKER
from kalshi_platform.storage.reads.trades import MARKET_KNOWN, TRADE_COLUMNS


async def require_market(database: ReadDatabase, market_ticker: str, *, field: str) -> None:
    """Raise UnknownMarket, naming `field`, unless some message has named this market."""
    if await database.row(MARKET_KNOWN, {"market_ticker": market_ticker}) is None:
        raise UnknownMarket(f"{field}: no market {market_ticker!r} is known.", field=field)


async def market_record(archive: Archive, ticker: str) -> bytes | None:
    """A market as JSON text; None where it is not known.

    Raises:
        Unavailable: its first or last trade is archived, and the file cannot be read.
    """

    async def look(days: Days) -> Statement:
        first, last = await _archived_span(archive, days, ticker)
        return MARKET_BY_TICKER, {
            "ticker": ticker,
            "first_archived": first,
            "last_archived": last,
        }

    [record] = await archive.row(("trades",), None, None, look)
    return record


async def _archived_span(
    archive: Archive, days: Days, ticker: str
) -> tuple[datetime | None, datetime | None]:
    """First and last trade on dropped days, as far as none in the database is beyond them."""
    dropped = days.dropped["trades"]
    if not dropped:
        return None, None
    traded = await archive.market_days("trades", ticker, dropped[0].day, _LAST_DAY)
    files = [file for file in dropped if file.day in traded]
    if not files:
        return None, None
    columns = [*TRADE_COLUMNS]
    first = await archive.read(
        lambda reader, until: reader.oldest_at(files, ticker, columns, until=until)
    )
    if files[-1].day < traded[-1]:
        return first, None
    end = datetime.combine(files[-1].day, time.max, UTC)
    last = await archive.read(
        lambda reader, until: reader.newest_at(files, ticker, columns, end, until=until)
    )
    return first, last


# A day before the last that a date can be: the statement adds one.
_LAST_DAY = date(9999, 12, 30)
