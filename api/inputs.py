"""What callers send: instants, tickers, cursors and windows, checked in one place."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

_UNIX_SECONDS = re.compile(r"\d{1,12}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)


def _instant(value: Any) -> datetime:
    if isinstance(value, str) and _UNIX_SECONDS.fullmatch(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return _within_reason(_EPOCH + timedelta(seconds=value) if abs(value) < 10**12 else None)
    if not isinstance(value, str):
        raise ValueError("must be ISO 8601 text with an offset, or Unix seconds as an integer")
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(
            "is not ISO 8601 (2026-11-20T18:00:00Z) nor Unix seconds;"
            " in a URL, write the + of an offset as %2B"
        ) from None
    if instant.utcoffset() is None:
        raise ValueError("has no offset; end it with Z for UTC")
    try:
        return _within_reason(instant.astimezone(UTC))
    except OverflowError:
        return _within_reason(None)


def _within_reason(instant: datetime | None) -> datetime:
    if instant is None or not EARLIEST <= instant <= LATEST:
        raise ValueError(
            "must lie between the years 2000 and 2100 (Unix seconds, not milliseconds)"
        )
    return instant


Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}],
            "description": "ISO 8601 with an offset, or Unix seconds.",
            "examples": ["2026-11-20T18:00:00Z", 1795197600],
        }
    ),
]


def _text(description: str, example: str) -> Any:
    # Any printable text may be asked for and is bound as a value.
    return Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description=description,
        examples=[example],
    )


Ticker = Annotated[str, _text("The market's ticker, as Kalshi writes it.", "KXHIGHNY-26NOV20-T50")]
EventTicker = Annotated[str, _text("The event's ticker, as Kalshi writes it.", "KXHIGHNY-26NOV20")]
SeriesTicker = Annotated[str, _text("The series' ticker, as Kalshi writes it.", "KXHIGHNY")]
Category = Annotated[str, _text("A category, as Kalshi writes it.", "Climate and Weather")]
Tag = Annotated[str, _text("A tag, as Kalshi writes it.", "Daily temperature")]


def _has_a_word(text: str) -> str:
    # As the database splits words: digits of other scripts, ½ and ² are none, and a search without
    # a word would find every row.
    if not any(character.isalpha() or character in "0123456789" for character in text):
        raise ValueError("has no word: send letters or digits")
    return text


Search = Annotated[
    str,
    _text(
        "Whole words, all of which must occur in titles or tickers; case does not matter.",
        "high temperature",
    ),
    AfterValidator(_has_a_word),
]
Limit = Annotated[int, Field(ge=1, le=1_000, description="Records a page.")]

Cursor = Annotated[
    str,
    Field(
        max_length=1000,
        description="`next_cursor` of the page before, with the same other fields.",
    ),
]


def unix_micros(instant: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def from_unix_micros(micros: int) -> datetime:
    """The inverse of `unix_micros`."""
    return _EPOCH + timedelta(microseconds=micros)
