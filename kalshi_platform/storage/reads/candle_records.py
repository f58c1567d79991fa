"""A candle's JSON record as SQL text, and the rows that stand for intervals without trades.

PostgreSQL writes the records and the API passes them through. All is integer arithmetic on micros
and centis: exact, and several times as fast as formatting numerics. The text is for psycopg, where
a percent sign starts a parameter, so a remainder is spelled mod().
"""

from enum import Enum

from kalshi_platform.transform.candles import Interval


class Fill(Enum):
    """What stands for an interval without trades: no record, nulls, or the last close."""

    NONE = "none"
    NULL = "null"
    CARRY = "carry"


_PRICES = ("open", "high", "low", "close")

# Per contract, rounded half to even; notional is micro-centis, so the quotient is micros.
VWAP_MICROS = """notional_micro_centis / nullif(volume_centis, 0) + CASE
    WHEN 2 * mod(notional_micro_centis, nullif(volume_centis, 0)) > volume_centis
      OR 2 * mod(notional_micro_centis, nullif(volume_centis, 0)) = volume_centis
         AND mod(notional_micro_centis / nullif(volume_centis, 0), 2) = 1
    THEN 1 ELSE 0 END"""


def record(fill: Fill) -> str:
    """Expression for the JSON object of a row of candle columns, `vwap_micros` and `filled`."""
    # Each part costs, so a key travels with the first digits of its value where it can.
    prices = [part for name in _PRICES for part in (f"',\"{name}\":'", *_cents(f"{name}_micros"))]
    quote = ""
    for name in _PRICES:
        prices += _dollars(f"{name}_micros", f'{quote},"{name}_dollars":"')
        quote = '"'
    prices.append("'\"'")
    volume = [
        "',\"volume\":'",
        *_exact("volume_centis", 100, 2),
        '\',"volume_fp":"\'',
        "volume_centis / 100",
        "CASE WHEN mod(volume_centis, 100) < 10 THEN '.0' ELSE '.' END",
        "mod(volume_centis, 100)",
        '\'","trade_count":\'',
        "trade_count",
    ]
    leading = _leading_zeros("vwap_micros", ',"vwap_dollars":"')
    vwap = f"""CASE WHEN vwap_micros IS NULL THEN ',"vwap_dollars":null' ELSE concat({leading},
        CASE WHEN vwap_micros < 1000000 THEN vwap_micros END,
        CASE WHEN vwap_micros >= 1000000 THEN '00"' ELSE '"' END) END"""
    parts = [
        '\'{"bucket":"\'',
        """to_char(starts_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')""",
        # Once a query, not once a row.
        '(SELECT concat(\'","market_ticker":\', to_json(%(market_ticker)s::text)))',
    ]
    if fill is Fill.NONE:
        parts += [*prices, *volume, vwap, "',\"filled\":false'"]
    else:
        parts += [
            _or_nulls("open_micros", prices, [*_PRICES, *(f"{name}_dollars" for name in _PRICES)]),
            _or_nulls("volume_centis", volume, ["volume", "volume_fp", "trade_count"]),
            vwap,
            "',\"filled\":'",
            "CASE WHEN filled THEN 'true' ELSE 'false' END",
        ]
    parts.append('\',"yes_bid":null,"yes_ask":null,"open_interest":null}\'')
    return f"concat({', '.join(parts)})"


def filled(interval: Interval, fill: Fill, candles: str, last_close: str) -> str:
    """Rows of candle columns and `filled`, one for each interval of the window that has begun.

    Args:
        candles: query of the window's candles.
        last_close: query of one close_micros, the last one before the window (or no row).
    """
    width = f"interval '{interval.seconds} seconds'"
    first = (
        f"date_bin({width}, %(start)s::timestamptz + {width} - interval '1 microsecond',"
        " timestamptz '2000-01-01 00:00:00+00')"
    )
    slots = f"""
    SELECT slot, candles.*, candles.starts_at IS NULL AS filled,
           count(candles.starts_at) OVER (ORDER BY slot) AS run
    FROM (SELECT slot FROM generate_series({first}, least(%(end)s::timestamptz, now()), {width})
              AS slot
          WHERE slot < %(end)s::timestamptz ORDER BY slot LIMIT %(limit)s::int + 1) AS slots
    LEFT JOIN ({candles}) AS candles ON candles.starts_at = slot"""  # noqa: S608 -- made of constants alone; values are bound
    if fill is Fill.CARRY:
        # Only the first slot of a run has a close; run 0 comes before the window's first candle.
        slots = f"""
    SELECT *, coalesce(max(close_micros) OVER (PARTITION BY run), ({last_close})) AS carried
    FROM ({slots}) AS slots_in_runs"""  # noqa: S608
        close, none = "carried", "0"
    else:
        close, none = "NULL::int", "NULL::int"
    prices = ", ".join(f"coalesce({each}_micros, {close}) AS {each}_micros" for each in _PRICES)
    rest = ", ".join(
        f"coalesce({each}, {none}) AS {each}"
        for each in ("volume_centis", "notional_micro_centis", "trade_count")
    )
    return f"SELECT slot AS starts_at, {prices}, {rest}, filled FROM ({slots}) AS s"  # noqa: S608


def _cents(price: str) -> list[str]:
    return _exact(price, 10_000, 4)


def _exact(amount: str, unit: int, digits: int) -> list[str]:
    """Parts that print `amount` / `unit` without trailing zeros."""
    rest = f"rtrim(lpad(mod({amount}, {unit})::text, {digits}, '0'), '0')"
    return [f"{amount} / {unit}", f"CASE WHEN mod({amount}, {unit}) <> 0 THEN '.' || {rest} END"]


def _dollars(price: str, key: str) -> list[str]:
    """Parts that print `key`, then micros in (0, 1000000] with 4 decimals, or 6 where needed."""
    digits = f"""CASE WHEN {price} >= 1000000 THEN NULL WHEN mod({price}, 100) = 0
        THEN {price} / 100 ELSE {price} END"""
    return [_leading_zeros(price, key), digits]


def _leading_zeros(price: str, key: str) -> str:
    """Part that prints `key` and what comes before the digits of the micros as an integer."""
    steps = " ".join(
        f"WHEN {price} >= {10**digits} THEN '{key}0.{'0' * (5 - digits)}'"
        for digits in range(5, -1, -1)
    )
    return f"CASE WHEN {price} >= 1000000 THEN '{key}1.0000' {steps} END"


def _or_nulls(column: str, parts: list[str], names: list[str]) -> str:
    nulls = "".join(f',"{name}":null' for name in names)
    return f"CASE WHEN {column} IS NULL THEN '{nulls}' ELSE concat({', '.join(parts)}) END"
