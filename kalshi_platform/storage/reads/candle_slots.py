"""Rows that stand for intervals without a candle, and the last price before each row, as SQL text.

Text for psycopg, with the parameters `market_ticker`, `start`, `end` and `limit`.
"""

from enum import Enum

from kalshi_platform.transform.candles import MEASURES, PRICES, SIDES, Interval


class Fill(Enum):
    """What stands for an interval without a candle: no record, nulls, or what stood before."""

    NONE = "none"
    NULL = "null"
    CARRY = "carry"


_SUMS = ("volume_centis", "notional_micro_centis", "trade_count")
_STOOD = (*(f"{side}_close_micros" for side in SIDES), "open_interest_centis", "quoted_at")

_UTC_DAY = "({} AT TIME ZONE 'UTC')::date"
_START_DAY = _UTC_DAY.format("%(start)s::timestamptz")
_LAST_TRADE = "ORDER BY traded_at DESC, feed_order DESC NULLS FIRST, trade_id DESC LIMIT 1"
# The trades of a day that is only in the archive: its candles are final, and know the last price.
_DROPPED = """EXISTS (SELECT FROM archives WHERE table_name = 'trades' AND day = {}
                              AND dropped_at IS NOT NULL)"""
# Of the day of `start` in the trades, or in its minutes once they are archived; of earlier days in
# their candles unless those are stale: each names few partitions.
LAST_PRICE_BEFORE = f"""
SELECT price FROM (
    (SELECT {_START_DAY} AS traded_on, yes_price_micros AS price FROM trades
     WHERE market_ticker = %(market_ticker)s AND traded_on = {_START_DAY}
       AND traded_at < %(start)s {_LAST_TRADE})
    UNION ALL
    (SELECT {_START_DAY}, close_micros FROM candles_1m
     WHERE {_DROPPED.format(_START_DAY)}
       AND market_ticker = %(market_ticker)s AND close_micros IS NOT NULL
       AND starts_at >= {_START_DAY}::timestamp AT TIME ZONE 'UTC' AND starts_at < %(start)s
     ORDER BY starts_at DESC LIMIT 1)
    UNION ALL
    (SELECT {_UTC_DAY.format("starts_at")}, close_micros FROM candles_1d
     WHERE market_ticker = %(market_ticker)s AND close_micros IS NOT NULL
       AND starts_at < {_START_DAY}::timestamp AT TIME ZONE 'UTC'
       AND NOT EXISTS (SELECT FROM stale_candles AS stale
                       WHERE stale.market_ticker = %(market_ticker)s
                         AND {_UTC_DAY.format("stale.starts_at")}
                             = {_UTC_DAY.format("candles_1d.starts_at")}
                         AND NOT {_DROPPED.format(_UTC_DAY.format("stale.starts_at"))})
     ORDER BY starts_at DESC LIMIT 1)
    UNION ALL
    (SELECT stale_days.traded_on, last.yes_price_micros
     FROM (SELECT DISTINCT {_UTC_DAY.format("starts_at")} AS traded_on FROM stale_candles
           WHERE market_ticker = %(market_ticker)s) AS stale_days,
     LATERAL (SELECT yes_price_micros FROM trades
              WHERE market_ticker = %(market_ticker)s AND traded_on = stale_days.traded_on
              {_LAST_TRADE}) AS last
     WHERE stale_days.traded_on < {_START_DAY})
) AS last_prices ORDER BY traded_on DESC LIMIT 1"""  # noqa: S608 -- made of constants alone


def with_previous(rows: str, last_price: str) -> str:
    """The rows with `previous_micros`: the last price before each, as of all earlier trades.

    Args:
        rows: query of candle columns.
        last_price: query of one price, the last one before the window (or no row).
    """
    # The greatest of (time, price) packed in one number is the latest: 21 bits hold any price.
    packed = (
        "CASE WHEN close_micros IS NOT NULL THEN"
        " (extract(epoch FROM starts_at)::bigint << 21) | close_micros END"
    )
    return f"""
    SELECT *, coalesce((max({packed}) OVER (ORDER BY starts_at ROWS BETWEEN UNBOUNDED PRECEDING
                                                                 AND 1 PRECEDING) & 2097151)::int,
                       ({last_price})) AS previous_micros
    FROM ({rows}) AS candles_in_order"""  # noqa: S608 -- made of constants alone; values are bound


def slots(interval: Interval, candles: str) -> str:
    """A row for each interval of the window that has begun: its candle, or nulls and `is_empty`.

    `run` tells apart the stretches that follow one candle; 0 comes before the first.
    """
    width = f"interval '{interval.seconds} seconds'"
    first = (
        f"date_bin({width}, %(start)s::timestamptz + {width} - interval '1 microsecond',"
        " timestamptz '2000-01-01 00:00:00+00')"
    )
    columns = ", ".join(f"candles.{name}" for name in MEASURES)
    return f"""
    SELECT slot AS starts_at, {columns}, candles.starts_at IS NULL AS is_empty,
           count(candles.starts_at) OVER (ORDER BY slot) AS run
    FROM (SELECT slot FROM generate_series({first}, least(%(end)s::timestamptz, now()), {width})
              AS slot
          WHERE slot < %(end)s::timestamptz ORDER BY slot LIMIT %(limit)s::int + 1) AS slots
    LEFT JOIN ({candles}) AS candles ON candles.starts_at = slot"""  # noqa: S608 -- constants


def filled(interval: Interval, fill: Fill, slots: str, standing: str) -> str:
    """The slots with `filled`, and with what stood before where `fill` says so.

    Args:
        slots: query as of `slots`, with `previous_micros`.
        standing: query of the candle columns of an empty interval where the window begins.
    """
    if fill is not Fill.CARRY:
        return f"SELECT *, is_empty AS filled FROM ({slots}) AS s"  # noqa: S608 -- constants
    # Only the first slot of a run has a candle; what it ends with stands until the next one.
    carried = ", ".join(
        f"coalesce(max(s.{name}) OVER (PARTITION BY s.run), stood.{name}) AS last_{name}"
        for name in _STOOD
    )
    prices = ", ".join(f"coalesce({name}, previous_micros) AS {name}" for name in PRICES)
    sums = ", ".join(f"coalesce({name}, 0) AS {name}" for name in _SUMS)
    quotes = ", ".join(
        f"coalesce({side}_{price}, last_{side}_close_micros) AS {side}_{price}"
        for side in SIDES
        for price in PRICES
    )
    lost = f"""(SELECT ends_at FROM gaps
                WHERE channel = 'ticker'
                  AND starts_at < s.starts_at + interval '{interval.seconds} seconds'
                  AND (market_ticker IS NULL OR market_ticker = %(market_ticker)s)
                ORDER BY ends_at DESC LIMIT 1)
               > coalesce(last_quoted_at, s.starts_at)"""  # noqa: S608 -- constants
    return f"""
    SELECT starts_at, {prices}, {sums}, {quotes}, previous_micros,
           coalesce(open_interest_centis, last_open_interest_centis) AS open_interest_centis,
           coalesce(quoted_at, last_quoted_at) AS quoted_at,
           coalesce(quote_count, 0) AS quote_count,
           coalesce(quote_gap, {lost}, false) AS quote_gap, open_micros IS NULL AS filled
    FROM (SELECT s.*, {carried}
          FROM ({slots}) AS s LEFT JOIN ({standing}) AS stood ON true) AS s"""  # noqa: S608
