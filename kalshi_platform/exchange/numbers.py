"""The exchange's words for numbers and names, and the one place where they become ours.

The wire writes prices as dollar strings and counts as strings with two decimals; here they become
integers: micros (millionths of a dollar) and centis (hundredths of a contract). No float is made.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Literal

from msgspec import Meta

# Bounds of what an index or a text search takes, far above anything sent so far.
Word = Annotated[str, Meta(max_length=200)]
Text = Annotated[str, Meta(max_length=50_000)]
Instant = Annotated[datetime, Meta(tz=True)]
Side = Literal["yes", "no"]
# What a database integer holds; larger numbers are refused while decoding.
WireInteger = Annotated[int, Meta(ge=0, lt=1 << 53)]
# A subscription of a connection, and a number on it.
Sid = Annotated[int, Meta(ge=0, lt=1 << 31)]
Seq = Annotated[int, Meta(ge=0, lt=1 << 32)]

MICROS_PER_DOLLAR = 1_000_000
# Strikes are prices of coins, populations, budgets: all below a trillion trillions.
_LARGEST = Decimal(10) ** 24
_MOST_PLACES = -24
# A later time is a unit error; believed, it would be newer than everything told afterwards.
_LATEST_CHANGE = datetime(2100, 1, 1, tzinfo=UTC)


class Unreadable(ValueError):
    """A message that cannot be read; the text says which field and why."""


# The published pattern forbids dots, real tickers have them: any printable ASCII without blanks.
_is_ticker = re.compile(r"[!-~]{1,200}").fullmatch


@lru_cache(maxsize=1 << 17)
def ticker(text: str) -> str:
    """A market's ticker, or `Unreadable`."""
    return name(text, "market_ticker")


def name(text: str, field: str) -> str:
    """The name of something on the exchange (a ticker, a result, a status), or `Unreadable`."""
    if not _is_ticker(text):
        raise Unreadable(f"{field} {text[:200]!r} is not a {field.rpartition('_')[2]}")
    return text


# The same few thousand strings come again and again: a dictionary look-up beats parsing.
@lru_cache(maxsize=1 << 16)
def micros(text: str) -> int:
    """A dollar string in millionths of a dollar: "0.3600" → 360000; exact, or `Unreadable`."""
    return _scaled(text, 6)


def centis(text: str) -> int:
    """A count string in hundredths of a contract: "136.00" → 13600; exact, or `Unreadable`."""
    # The form the exchange always sends; counts differ too much to be remembered.
    digits = text[:-3] + text[-2:]
    if text[-3:-2] == "." and len(text) < 14 and digits.isdigit() and digits.isascii():
        return int(digits)
    return _scaled(text, 2)


def signed_centis(text: str) -> int:
    """A change of a count in hundredths of a contract: "-54.00" → -5400; exact, or `Unreadable`."""
    return -centis(text[1:]) if text[:1] == "-" else centis(text)


@lru_cache(maxsize=1 << 16)
def price_within(text: str) -> int:
    """The price of an order in micros, more than nothing and less than a dollar; `Unreadable`."""
    price = micros(text)
    if not 0 < price < MICROS_PER_DOLLAR:
        raise Unreadable(f"price {text} is not within (0, 1)")
    return price


def _scaled(text: str, places: int) -> int:
    whole, point, fraction = text.partition(".")
    digits = whole + fraction
    # isdigit alone accepts digits of other scripts.
    if not (digits.isascii() and digits.isdigit() and whole) or (point and not fraction):
        raise Unreadable(f"{text!r} is not a decimal number")
    kept = fraction[:places]
    if fraction[places:].strip("0"):
        raise Unreadable(f"{text!r} has more than {places} decimals")
    value = int(whole + kept.ljust(places, "0"))
    # A price times a count must fit a database integer, and so must a day's sum of counts.
    if value >= 10**12:
        raise Unreadable(f"{text!r} is too large")
    return value


def exact(number: Decimal, field: str) -> Decimal:
    """A number of the exchange's JSON as it was written, or `Unreadable`.

    Strikes and multipliers are JSON numbers; `Decimal` holds their digits, no float does. One that
    no strike is (1e400, NaN) would only fill pages with digits.
    """
    places = number.as_tuple().exponent
    if not number.is_finite() or not isinstance(places, int):
        raise Unreadable(f"{field} is not a number")
    if abs(number) >= _LARGEST or places < _MOST_PLACES:
        raise Unreadable(f"{field} {str(number)[:60]} has too many digits")
    return number


def outcome_micros(text: str, field: str) -> int:
    """What a contract pays, from 0 to 1 dollar, in micros; `Unreadable` beyond."""
    value = micros(text)
    if value > MICROS_PER_DOLLAR:
        raise Unreadable(f"{field} {text} is not within [0, 1]")
    return value


def change_time(told: datetime, field: str) -> datetime:
    """The exchange's time of a change, by which newer is told from older, or `Unreadable`."""
    if told >= _LATEST_CHANGE:
        raise Unreadable(f"{field} {told.isoformat()} is no time of a change")
    return told.astimezone(UTC)
