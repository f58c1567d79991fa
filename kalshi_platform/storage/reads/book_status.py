"""How the watched order books are: the part of the status that speaks of them."""

from datetime import datetime

import msgspec

from kalshi_platform.storage.reads.watchlist import SOURCE, WATCH

# Fewer watched than wanted for so long needs eyes: a new market takes a second, a limit minutes.
SHORT_SECONDS = 60.0
# The recorder says how its books are every 15 s.
UNHEARD_SECONDS = 90.0
_MOST_NAMED = 3

# One JSON object; the index on open watches holds nothing else.
BOOK_STATUS = f"""json_build_object(
        'state', (SELECT position FROM ingestion_checkpoints
                  WHERE source = '{SOURCE}' AND scope = '{WATCH}'),
        'told_at', (SELECT updated_at FROM ingestion_checkpoints
                    WHERE source = '{SOURCE}' AND scope = '{WATCH}'),
        'watched', (SELECT count(*) FROM book_watches WHERE ends_at IS NULL))"""  # noqa: S608 (constants)


class RefusedBooks(msgspec.Struct, frozen=True):
    """Books that cannot be had just now, and why; asked for again by and by."""

    reason: str
    markets: int
    examples: list[str]


class BookStatus(msgspec.Struct, frozen=True):
    """The order books that are watched; null where no recorder has told yet."""

    choice: str | None
    """What was asked for: the setting KALSHI_BOOKS."""
    wanted: int | None
    watched: int
    """Books that are known now, without a gap."""
    left_out: int | None
    """Asked for, but beyond KALSHI_BOOKS_AT_MOST."""
    refused: list[RefusedBooks]
    short_for: float | None
    """Seconds since when fewer are watched than wanted; null if none is missing."""
    told_age: float | None
    """Seconds since the recorder last told."""
    error: str | None
    """Why the books could not be chosen afresh; the last choice stays."""


class _State(msgspec.Struct):
    choice: str | None = None
    wanted: int | None = None
    left_out: int | None = None
    refused: list[RefusedBooks] = []
    short_since: datetime | None = None
    error: str | None = None


class BookRead(msgspec.Struct):
    """The answer to BOOK_STATUS."""

    state: _State | None
    told_at: datetime | None
    watched: int


def books_from(read: BookRead, now: datetime) -> BookStatus:
    """The section, as of `now`."""
    state = read.state or _State()
    return BookStatus(
        choice=state.choice,
        wanted=state.wanted,
        watched=read.watched,
        left_out=state.left_out,
        refused=state.refused,
        short_for=_age(now, state.short_since),
        told_age=_age(now, read.told_at),
        error=state.error,
    )


def book_reasons(books: BookStatus, *, recorder_runs: bool) -> list[str]:
    """What keeps the books from being ok, in words; without a recorder that is all there is."""
    if not recorder_runs or books.told_age is None:
        return []
    if books.told_age > UNHEARD_SECONDS:
        return [f"books have not been chosen for {books.told_age:.0f} s"]
    if books.error is not None:
        return [f"books cannot be chosen afresh: {books.error}"]
    if books.short_for is not None and books.short_for > SHORT_SECONDS:
        why = "; ".join(f"{one.reason} ({one.markets}: {_names(one)})" for one in books.refused)
        return [
            f"books: {books.watched} watched of {books.wanted} wanted for {books.short_for:.0f} s"
            + (f": {why}" if why else "")
        ]
    return []


def _names(refused: RefusedBooks) -> str:
    named = ", ".join(refused.examples[:_MOST_NAMED])
    return named + (", …" if refused.markets > _MOST_NAMED else "")


def _age(now: datetime, instant: datetime | None) -> float | None:
    return None if instant is None else (now - instant).total_seconds()
