"""Whether a market is known at all."""

from api.database import ReadDatabase
from api.errors import UnknownMarket
from kalshi_platform.storage.reads.trades import MARKET_KNOWN


async def require_market(database: ReadDatabase, market_ticker: str, *, field: str) -> None:
    """Raise UnknownMarket, naming `field`, unless some message has named this market."""
    if await database.row(MARKET_KNOWN, {"market_ticker": market_ticker}) is None:
        raise UnknownMarket(f"{field}: no market {market_ticker!r} is known.", field=field)
