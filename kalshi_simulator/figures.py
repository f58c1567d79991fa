"""How numbers and times are spelled on the wire.

Inside the simulator a price is an integer of ten-thousandths of a dollar (`e4`), a count an
integer of hundredths of a contract (`centis`) and a time an integer of microseconds since 1970
(`us`). No float is ever made of any of them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

DOLLAR_E4 = 10_000
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DOLLARS = [f"{e4 // DOLLAR_E4}.{e4 % DOLLAR_E4:04d}" for e4 in range(DOLLAR_E4 + 1)]


def dollars(e4: int) -> str:
    """A price between 0 and 1 dollar, four decimals: 3600 is "0.3600"."""
    return _DOLLARS[e4]


def fixed_point(centis: int) -> str:
    """A count with two decimals, sign included: -5400 is "-54.00"."""
    sign, size = ("-", -centis) if centis < 0 else ("", centis)
    return f"{sign}{size // 100}.{size % 100:02d}"


def price_e4(text: str) -> int:
    """The e4 of a dollar string; ValueError when it does not fit four decimals within [0, 1]."""
    whole, _, decimals = text.partition(".")
    if not (whole.isdigit() and (decimals.isdigit() or not decimals) and len(decimals) <= 4):
        raise ValueError(f"not a price of at most four decimals: {text!r}")
    e4 = int(whole) * DOLLAR_E4 + int(decimals.ljust(4, "0"))
    if not 0 <= e4 <= DOLLAR_E4:
        raise ValueError(f"price outside 0 to 1 dollar: {text!r}")
    return e4


def count_centis(text: str) -> int:
    """The centis of a count string; ValueError when it has more than two decimals."""
    whole, _, decimals = text.partition(".")
    if not (whole.isdigit() and (decimals.isdigit() or not decimals) and len(decimals) <= 2):
        raise ValueError(f"not a count of at most two decimals: {text!r}")
    return int(whole) * 100 + int(decimals.ljust(2, "0"))


def when(us: int) -> datetime:
    """The aware UTC instant of a microsecond number."""
    return _EPOCH + timedelta(microseconds=us)


def microseconds(instant: datetime) -> int:
    """Exact microseconds since 1970 of an aware instant."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def parse_instant(text: str) -> int:
    """Microseconds of an ISO 8601 instant; ValueError when it names no zone."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"an instant needs a zone: {text!r}")
    return microseconds(instant)


def stamp_full(us: int) -> str:
    """RFC 3339 with all six decimals."""
    return f"{when(us):%Y-%m-%dT%H:%M:%S.%f}Z"


def stamp(us: int) -> str:
    """RFC 3339 as the exchange writes it: zeros at the end of the fraction are cut."""
    seconds, fraction = divmod(us, SECOND_US)
    text = _second_text(seconds)
    return f"{text}.{fraction:06d}".rstrip("0") + "Z" if fraction else f"{text}Z"


_second_texts: dict[int, str] = {}


def _second_text(seconds: int) -> str:
    """The text up to the second; neighbours share it, and pages hold many neighbours."""
    text = _second_texts.get(seconds)
    if text is None:
        if len(_second_texts) > 50_000:
            _second_texts.clear()
        text = f"{when(seconds * SECOND_US):%Y-%m-%dT%H:%M:%S}"
        _second_texts[seconds] = text
    return text
