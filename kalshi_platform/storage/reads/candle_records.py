"""A candle's JSON record as SQL text.

PostgreSQL writes the records and the API passes them through. All is integer arithmetic on micros
and centis: exact, and several times as fast as formatting numerics. The text is for psycopg, where
a percent sign starts a parameter, so a remainder is spelled mod().
"""

from kalshi_platform.storage.reads.candle_slots import Fill
from kalshi_platform.transform.candles import SIDES

_NAMES = ("open", "high", "low", "close")

# Per contract, rounded half to even; notional is micro-centis, so the quotient is micros.
VWAP_MICROS = """notional_micro_centis / nullif(volume_centis, 0) + CASE
    WHEN 2 * mod(notional_micro_centis, nullif(volume_centis, 0)) > volume_centis
      OR 2 * mod(notional_micro_centis, nullif(volume_centis, 0)) = volume_centis
         AND mod(notional_micro_centis / nullif(volume_centis, 0), 2) = 1
    THEN 1 ELSE 0 END"""


def record(fill: Fill) -> str:
    """Expression for the JSON object of a candle's columns, vwap, previous price and `filled`."""
    # Each part costs, so a key travels with the first digits of its value where it can.
    volume = [
        "',\"volume\":'",
        *_exact("volume_centis", 100, 2),
        '\',"volume_fp":"\'',
        *_fixed("volume_centis"),
        '\'","trade_count":\'',
        "trade_count",
    ]
    parts = [
        '\'{"bucket":"\'',
        """to_char(starts_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')""",
        # Once a query, not once a row.
        '(SELECT concat(\'","market_ticker":\', to_json(%(market_ticker)s::text)))',
        _or_nulls("open_micros", _prices("", ","), _price_names()),
    ]
    if fill is Fill.NONE:
        parts += volume
    else:
        parts.append(_or_nulls("volume_centis", volume, ["volume", "volume_fp", "trade_count"]))
    parts += [
        _vwap(),
        _previous(),
        "',\"filled\":false'" if fill is Fill.NONE else _truth("filled"),
    ]
    interest = [
        "',\"open_interest\":'",
        *_exact("open_interest_centis", 100, 2),
        '\',"open_interest_fp":"\'',
        *_fixed("open_interest_centis"),
        '\'","quoted_at":"\'',
        """to_char(quoted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
        "'\"'",
    ]
    quoted: list[str] = []
    for side in SIDES:
        quoted += [f"',\"{side}\":{{'", *_prices(f"{side}_", ""), "'}'"]
    names = [*SIDES, "open_interest", "open_interest_fp", "quoted_at"]
    parts.append(_or_nulls("quoted_at", [*quoted, *interest], names))
    if fill is Fill.NULL:
        parts.append(
            _or_nulls("quote_count", ["',\"quote_count\":'", "quote_count"], ["quote_count"])
        )
        gap = _or_nulls("quote_gap", [_truth("quote_gap")], ["quote_gap"])
    else:
        parts += ["',\"quote_count\":'", "quote_count"]
        gap = _truth("quote_gap")
    parts += [gap, "'}'"]
    return f"concat({', '.join(parts)})"


def _price_names() -> list[str]:
    return [*_NAMES, *(f"{name}_dollars" for name in _NAMES)]


def _prices(prefix: str, lead: str) -> list[str]:
    """Parts that print open, high, low and close in cents, then in dollars."""
    parts: list[str] = []
    for name in _NAMES:
        parts += [f"'{lead}\"{name}\":'", *_exact(f"{prefix}{name}_micros", 10_000, 4)]
        lead = ","
    quote = ""
    for name in _NAMES:
        parts += _dollars(f"{prefix}{name}_micros", f'{quote},"{name}_dollars":"')
        quote = '"'
    return [*parts, "'\"'"]


def _vwap() -> str:
    """Part that prints the vwap with 6 decimals."""
    key = ',"vwap_dollars":"'
    digits = """CASE WHEN vwap_micros < 1000000 THEN vwap_micros END,
        CASE WHEN vwap_micros >= 1000000 THEN '00"' ELSE '"' END"""
    return _or_nulls("vwap_micros", [_leading_zeros("vwap_micros", key), digits], ["vwap_dollars"])


def _previous() -> str:
    dollars = _dollars("previous_micros", ',"previous_dollars":"')
    return _or_nulls("previous_micros", [*dollars, "'\"'"], ["previous_dollars"])


def _exact(amount: str, unit: int, digits: int) -> list[str]:
    """Parts that print `amount` / `unit` without trailing zeros."""
    rest = f"rtrim(lpad(mod({amount}, {unit})::text, {digits}, '0'), '0')"
    return [f"{amount} / {unit}", f"CASE WHEN mod({amount}, {unit}) <> 0 THEN '.' || {rest} END"]


def _fixed(centis: str) -> list[str]:
    """Parts that print hundredths with two decimals."""
    return [
        f"{centis} / 100",
        f"CASE WHEN mod({centis}, 100) < 10 THEN '.0' ELSE '.' END",
        f"mod({centis}, 100)",
    ]


def _dollars(price: str, key: str) -> list[str]:
    """Parts that print `key`, then micros in [0, 1000000] with 4 decimals, or 6 where needed."""
    digits = f"""CASE WHEN {price} >= 1000000 THEN NULL WHEN mod({price}, 100) = 0
        THEN {price} / 100 ELSE {price} END"""
    return [_leading_zeros(price, key), digits]


def _leading_zeros(price: str, key: str) -> str:
    """Part that prints `key` and what comes before the digits of the micros as an integer."""
    steps = " ".join(
        f"WHEN {price} >= {10**digits} THEN '{key}0.{'0' * (5 - digits)}'"
        for digits in range(5, -1, -1)
    )
    return f"CASE WHEN {price} >= 1000000 THEN '{key}1.0000' {steps} ELSE '{key}0.000' END"


def _truth(name: str) -> str:
    return f"CASE WHEN {name} THEN ',\"{name}\":true' ELSE ',\"{name}\":false' END"


def _or_nulls(column: str, parts: list[str], names: list[str]) -> str:
    nulls = "".join(f',"{name}":null' for name in names)
    return f"CASE WHEN {column} IS NULL THEN '{nulls}' ELSE concat({', '.join(parts)}) END"
