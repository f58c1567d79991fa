"""`kalshi-platform status`: how the platform is, read from its database."""

import psycopg

from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import require_current_schema
from kalshi_platform.storage.reads.book_status import BookStatus
from kalshi_platform.storage.reads.reference_status import Reference
from kalshi_platform.storage.reads.status import Source, Status, read_status, unreachable


def status_of(settings: Settings) -> Status:
    """The status as of now; a database that does not answer is part of it.

    Raises:
        SchemaMismatch: the database is not of this release.
    """
    try:
        with connect(settings.url) as connection:
            require_current_schema(connection)
            return read_status(connection, simulated=settings.simulated)
    except psycopg.OperationalError:
        return unreachable(simulated=settings.simulated)


def status_lines(status: Status) -> list[str]:
    """The status as the operator reads it."""
    lines = [f"status      {status.status}"]
    lines += [f"            {reason}" for reason in status.reasons]
    if status.simulated:
        lines.append("data        SIMULATED: no KALSHI_API_KEY_ID is set")
    lines.append(f"database    {status.database}")
    if status.database != "ok":
        return lines
    lines += [
        f"recorder    {'runs' if status.recorder_runs else 'does not run'}",
        f"loader      {'runs' if status.loader_runs else 'does not run'}"
        f"{_backlog(status.tape_backlog_bytes)}",
        f"gaps        {status.open_gaps} open{_since(status.oldest_open_gap_age)}",
        f"rejected    {status.rejected_today} messages today",
        f"candles     {status.stale_candles} market-minutes to recompute"
        f"{_since(status.oldest_stale_candle_age)}",
        *(_reference_lines(status.reference) if status.reference else []),
        *(_book_lines(status.books) if status.books else []),
        "",
        f"{'channel':<32} {'messages':>12} {'last':>9} {'lag':>9}",
    ]
    return lines + [_source_line(source) for source in status.sources]


def _reference_lines(reference: Reference) -> list[str]:
    refreshed = "never refreshed"
    if reference.refreshed_at is not None:
        refreshed = f"refreshed {_seconds(reference.refresh_age)} ago"
    error = f" ({reference.error})" if reference.error else ""
    not_found = (
        f"unknown to REST: {reference.markets_not_found} markets, "
        f"{reference.events_not_found} events, {reference.series_not_found} series"
    )
    return [
        f"markets     {refreshed}{error}, {reference.due} things to ask for; {not_found}",
        f"census      {reference.census}",
        f"outcomes    {reference.unconfirmed_outcomes} to confirm"
        f"{_since(reference.oldest_unconfirmed_age)}; "
        f"{reference.pending_outcomes} awaited{_since(reference.oldest_pending_age)}",
    ]


def _book_lines(books: BookStatus) -> list[str]:
    if books.wanted is None:
        return [f"books       {books.watched} watched; no recorder has chosen any yet"]
    left_out = f", {books.left_out} left out (KALSHI_BOOKS_AT_MOST)" if books.left_out else ""
    lines = [
        f"books       {books.watched} watched of {books.wanted} wanted ({books.choice}){left_out}"
        + ("" if books.short_for is None else f", fewer for {books.short_for:.0f} s")
    ]
    return lines + [
        f"            {refused.markets} refused: {refused.reason}: {', '.join(refused.examples)}"
        for refused in books.refused
    ]


def _source_line(source: Source) -> str:
    late = "  LATE" if source.late else ""
    messages = "–" if source.messages is None else f"{source.messages:,}"
    age = _seconds(source.last_message_age)
    return f"{source.channel:<32} {messages:>12} {age:>9} {_seconds(source.lag):>9}{late}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


def _since(age: float | None) -> str:
    return "" if age is None else f", the oldest for {age:.0f} s"


def _backlog(size: int | None) -> str:
    return "" if size is None else f", {size / 1e6:.1f} MB of tape to load"
