"""What must hold for one UTC day of quotes, as queries.

In the manner of `quality.py`: every query returns one row, `passed` first, then figures; where rows
are worth naming, the last figure is `examples`: a JSON list of at most twenty of them.

A day of quotes is too many rows to read each hour, so what is looked at is drawn by lot, and the
figures say how much it was. A day whose partition has been dropped passes with zeros.
"""

from datetime import date
from typing import Any

from sqlalchemy import Select

from kalshi_platform.transform.quality import Check
from kalshi_platform.transform.questions import EXAMPLES, as_examples, one_row

# Rows that are looked at, about: a second or two of work.
_QUOTES = 2_000_000
_MARKETS = 1_000
# The smallest step of prices on the exchange: 0.0001 dollar.
_TICK_MICROS = 100
# A ticker may be sent just before or just after a trade of the same moment is told.
_BORDER = "interval '1 second'"


def quotes_in_range(day: date) -> Select[Any]:
    """Whether prices of the day's quotes are on the grid within [0, 1] dollar, counts not negative.

    Of a large day, pages drawn by lot are read.
    """
    prices = ("yes_bid_micros", "yes_ask_micros", "price_micros")
    counts = (
        "yes_bid_size_centis",
        "yes_ask_size_centis",
        "last_trade_size_centis",
        "volume_centis",
        "open_interest_centis",
    )
    off_grid = " OR ".join(
        f"{name} NOT BETWEEN 0 AND 1000000 OR {name} % {_TICK_MICROS} <> 0" for name in prices
    )
    negative = " OR ".join(f"{name} < 0" for name in counts)
    return one_row(
        f"""\
WITH looked_at AS (
    SELECT count(*) AS quotes, count(*) FILTER (WHERE {off_grid}) AS off_grid,
           count(*) FILTER (WHERE {negative}) AS negative
    FROM quotes TABLESAMPLE SYSTEM ({_percentage()}) REPEATABLE (1)
    WHERE quoted_at >= :start AND quoted_at < :end
)
SELECT off_grid = 0 AND negative = 0 AS passed, off_grid AS prices_off_the_grid,
       negative AS counts_negative, quotes AS quotes_looked_at
FROM looked_at""",  # noqa: S608
        day,
        "prices_off_the_grid",
        "counts_negative",
        "quotes_looked_at",
        examples=False,
    )


def quotes_not_crossed(day: date) -> Select[Any]:
    """Whether the bid is below the ask in the day's quotes; a side without orders has neither.

    Of a large day, pages drawn by lot are read.
    """
    return one_row(
        f"""\
WITH looked_at AS MATERIALIZED (
    SELECT count(*) AS quotes,
           count(*) FILTER (WHERE yes_bid_micros >= yes_ask_micros) AS crossed,
           count(DISTINCT market_ticker) FILTER (WHERE yes_bid_micros >= yes_ask_micros) AS markets,
           (array_agg(jsonb_build_object(
                'market_ticker', market_ticker, 'quoted_at', quoted_at,
                'yes_bid_micros', yes_bid_micros, 'yes_ask_micros', yes_ask_micros)
            ORDER BY quoted_at, market_ticker)
            FILTER (WHERE yes_bid_micros >= yes_ask_micros))[1:{EXAMPLES}] AS examples
    FROM quotes TABLESAMPLE SYSTEM ({_percentage()}) REPEATABLE (1)
    WHERE quoted_at >= :start AND quoted_at < :end
)
SELECT crossed = 0 AS passed, crossed AS quotes_crossed, markets AS markets_crossed,
       quotes AS quotes_looked_at, coalesce(to_jsonb(examples), '[]') AS examples
FROM looked_at""",  # noqa: S608
        day,
        "quotes_crossed",
        "markets_crossed",
        "quotes_looked_at",
    )


def quoted_volume_never_falls(day: date) -> Select[Any]:
    """Whether the cumulative volume of each market only grows from quote to quote.

    Markets are drawn by lot until their quotes are two million.
    """
    return one_row(
        f"""\
WITH drawn AS (
    SELECT market_ticker,
           sum(quote_count) OVER (ORDER BY hashtext(market_ticker), market_ticker) - quote_count
               AS before
    FROM candles_1d
    WHERE starts_at = :start AND quote_count > 1
), walked AS (
    SELECT quotes.market_ticker, quoted_at, volume_centis,
           lag(volume_centis) OVER (PARTITION BY quotes.market_ticker
                                    ORDER BY quoted_at, feed_order) AS volume_centis_before
    FROM drawn JOIN quotes ON quotes.market_ticker = drawn.market_ticker
    WHERE drawn.before < {_QUOTES} AND quoted_at >= :start AND quoted_at < :end
), looked_at AS (
    SELECT count(*) AS quotes, count(DISTINCT market_ticker) AS markets,
           count(*) FILTER (WHERE volume_centis < volume_centis_before) AS falls,
           (array_agg(to_jsonb(walked) ORDER BY quoted_at, market_ticker)
            FILTER (WHERE volume_centis < volume_centis_before))[1:{EXAMPLES}] AS examples
    FROM walked
)
SELECT falls = 0 AS passed, falls, markets AS markets_looked_at, quotes AS quotes_looked_at,
       coalesce(to_jsonb(examples), '[]') AS examples
FROM looked_at""",  # noqa: S608
        day,
        "falls",
        "markets_looked_at",
        "quotes_looked_at",
    )


def odometer_agrees(day: date) -> Select[Any]:
    """Whether the volume of each market grew from its first to its last quote by what we hold.

    Each trade adds its count to the volume that quotes tell: where that grew by more, a trade is
    missing here; by less, one was made up. Trades within a second of either quote may count or not.
    A thousand markets are drawn by lot.
    """
    return one_row(
        f"""\
WITH drawn AS (
    SELECT market_ticker FROM candles_1d
    WHERE starts_at = :start AND quote_count > 1
    ORDER BY trade_count > 0 DESC, hashtext(market_ticker), market_ticker
    LIMIT {_MARKETS}
), grown AS (
    SELECT drawn.market_ticker, first.quoted_at AS starts_at, last.quoted_at AS ends_at,
           last.volume_centis - first.volume_centis AS quoted_centis
    FROM drawn
    CROSS JOIN LATERAL (
        SELECT quoted_at, volume_centis FROM quotes WHERE quotes.market_ticker = drawn.market_ticker
          AND quoted_at >= :start AND quoted_at < :end
        ORDER BY quoted_at, feed_order LIMIT 1
    ) AS first
    CROSS JOIN LATERAL (
        SELECT quoted_at, volume_centis FROM quotes WHERE quotes.market_ticker = drawn.market_ticker
          AND quoted_at >= :start AND quoted_at < :end
        ORDER BY quoted_at DESC, feed_order DESC LIMIT 1
    ) AS last
), counted AS (
    SELECT grown.*,
           coalesce(sum(count_centis) FILTER (
               WHERE traded_at > starts_at + {_BORDER} AND traded_at <= ends_at - {_BORDER}
           ), 0)::bigint AS least_centis,
           coalesce(sum(count_centis), 0)::bigint AS most_centis
    FROM grown
    LEFT JOIN trades ON trades.market_ticker = grown.market_ticker
        AND traded_at > starts_at - {_BORDER} AND traded_at <= ends_at + {_BORDER}
        AND traded_on BETWEEN CAST(:start AS date) - 1 AND CAST(:end AS date)
    GROUP BY grown.market_ticker, starts_at, ends_at, quoted_centis
), wrong AS (
    SELECT market_ticker, starts_at, ends_at, quoted_centis, most_centis AS held_centis,
           greatest(quoted_centis - most_centis, 0) AS missing_centis,
           greatest(least_centis - quoted_centis, 0) AS surplus_centis
    FROM counted WHERE quoted_centis NOT BETWEEN least_centis AND most_centis
), example AS (
    SELECT * FROM wrong
    ORDER BY greatest(missing_centis, surplus_centis) DESC, market_ticker LIMIT {EXAMPLES}
)
SELECT NOT EXISTS (SELECT FROM wrong) AS passed,
       (SELECT count(*) FROM wrong) AS markets_that_differ,
       (SELECT count(*) FROM counted) AS markets_compared,
       (SELECT coalesce(sum(quoted_centis), 0)::bigint FROM counted) AS quoted_centis,
       (SELECT coalesce(sum(missing_centis), 0)::bigint FROM wrong) AS missing_centis,
       (SELECT coalesce(sum(surplus_centis), 0)::bigint FROM wrong) AS surplus_centis,
       {as_examples("example")}""",  # noqa: S608
        day,
        "markets_that_differ",
        "markets_compared",
        "quoted_centis",
        "missing_centis",
        "surplus_centis",
    )


CHECKS = (
    Check(
        "quotes_in_range",
        "Quoted prices are on the exchange's grid within [0, 1] dollar, counts not negative.",
        quotes_in_range,
    ),
    Check("quotes_not_crossed", "The bid that is quoted is below the ask.", quotes_not_crossed),
    Check(
        "quoted_volume_never_falls",
        "The volume that quotes tell of a market only grows.",
        quoted_volume_never_falls,
    ),
    Check(
        "odometer_agrees",
        "The volume that quotes tell grew by the trades that are held.",
        odometer_agrees,
    ),
)


def _percentage() -> str:
    """SQL: how much of the day's partition is read to meet about two million rows."""
    return f"""\
(SELECT least(100, 100.0 * {_QUOTES} / greatest(1, max(pg_stat_get_live_tuples(oid))))
 FROM pg_class WHERE relname = 'quotes_' || to_char(CAST(:start AS date), 'YYYYMMDD')
   AND relnamespace = current_schema()::regnamespace)"""  # noqa: S608
