"""A database with a row of everything: the market that the documentation speaks of, and its kin."""

from datetime import timedelta

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.keys import create_key
from kalshi_platform_tests.api.feed_rows import delta, heard, quote, snapshot, told, watch
from kalshi_platform_tests.api.reference_rows import event, market, outcome, put, series, version
from kalshi_platform_tests.api.rows import at, land, trade

TICKER = "KXHIGHNY-26NOV20-T50"
EVENT = "KXHIGHNY-26NOV20"
SERIES = "KXHIGHNY"
_PENDING = "KXHIGHNY-26NOV20-T60"
"""Closed and without an outcome; never recorded a book."""
_OPEN = "KXHIGHNY-26NOV20-T70"


def populate(url: str) -> str:
    """Fill a migrated database; returns a key."""
    titles = {"title": "Highest temperature in New York", "category": "Climate and Weather"}
    of_event = {"event_ticker": EVENT, "series_ticker": SERIES}
    first = {
        "status": "determined",
        "settlement_value_micros": 1_000_000,
        "effective_at": at("23:10:00"),
        "source": "lifecycle",
        "recorded_at": at("23:10:00.412345"),
    }
    amended = first | {"status": "amended", "result": "no", "settlement_value_micros": 0}
    put(
        url,
        series(series_ticker=SERIES, tags=["Daily temperature"], **titles),
        event(EVENT, series_ticker=SERIES, **titles),
        market(TICKER, **of_event, outcome_status="amended"),
        market(_PENDING, **of_event, closes_at=at("18:00:00")),
        market(_OPEN, **of_event, title="Will the high temperature be above 70° on Nov 20, 2026?"),
        outcome(TICKER, **amended, determined_at=at("23:10:00"), settled_at=None),
        version(1, market_ticker=TICKER, **first),
        version(2, market_ticker=TICKER, **amended),
    )
    start = at("18:00:00")
    land(
        url,
        *(
            trade(
                (start + timedelta(seconds=9 * number)).replace(tzinfo=None).isoformat(),
                market_ticker=TICKER,
                yes_price_micros=350_000 + 2_500 * (number % 13),
                count_centis=50 + 25 * number,
                taker_side=("yes", "no")[number % 2],
                feed_order=None if number % 5 else number + 1,
            )
            for number in range(500)
        ),
    )
    yes, no = {350_000: 4_000, 360_000: 12_000}, {610_000: 1_000, 620_000: 7_550}
    told(
        url,
        *(quote(f"18:00:{second:02}.123", second, market_ticker=TICKER) for second in range(60)),
        snapshot("17:50:00.100", 1, yes=yes, no=no, market=TICKER),
        watch("17:50:00.100", market=TICKER),
        *(
            delta(f"18:00:{second:02}.310", 10 + second, "no", 610_000, 100, market=TICKER)
            for second in range(60)
        ),
    )
    heard(url, at("18:30:00"))
    with connect(url) as connection:
        return create_key(connection, "documentation")
