"""`kalshi-platform status`: how the platform is, read from its database."""

import re
import sys

import psycopg

from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.migrate import require_current_schema
from kalshi_platform.storage.reads.book_status import BookStatus
from kalshi_platform.storage.reads.freshness import Source, TableAge
from kalshi_platform.storage.reads.reference_status import Reference
from kalshi_platform.storage.reads.status import Status, read_status, unreachable

# What catches the eye, where there are colours: words, and the style they get.
_STYLES = {
    r"^(status +)(ok)$": "bold green",
    r"^(status +)(degraded)$": "bold yellow",
    r"^(status +)(stale|down)$": "bold red",
    r"^(.*)(LATE|SIMULATED|does not run|unreachable)": "bold red",
    r"^(.*)(starting)": "yellow",
    r"^(gaps +)([1-9]\d* open)": "yellow",
    r"^(rejected +)([1-9]\d* messages)": "yellow",
}


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


def show(lines: list[str]) -> None:
    """Print the lines, in colours if somebody is looking and has not asked for none (NO_COLOR)."""
    if not sys.stdout.isatty():
        print("\n".join(lines))  # noqa: T201
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        text = Text(line)
        if line.startswith("            ") or re.match(r"(channel|table) +", line):
            text.stylize("dim" if line[0] != " " else "yellow")
        for pattern, style in _STYLES.items():
            if found := re.match(pattern, line):
                text.stylize(style, *found.span(2))
        console.print(text)


def status_lines(status: Status) -> list[str]:
    """The status as the operator reads it: what is wrong first."""
    lines = [f"status      {status.status}"]
    lines += [f"            {reason}" for reason in status.reasons]
    if status.simulated:
        lines.append("data        SIMULATED: no KALSHI_API_KEY_ID is set")
    lines.append(f"database    {status.database}")
    if status.database != "ok":
        return lines
    lines += [
        f"recorder    {'runs' if status.recorder_runs else 'does not run'}",
        f"loader      {'runs' if status.loader_runs else 'does not run'}{_backlog(status)}",
        f"gaps        {status.open_gaps} open{_by_channel(status)}"
        f"{_since(status.oldest_open_gap_age)}",
        f"rejected    {status.rejected_today} messages today",
        f"candles     {status.stale_candles} market-minutes to recompute"
        f"{_since(status.oldest_stale_candle_age)}",
        *(_reference_lines(status.reference) if status.reference else []),
        *(_book_lines(status.books) if status.books else []),
        *(_budget_lines(status.rest_budget_tokens)),
        "",
        f"{'channel':<32} {'messages':>12} {'last':>9} {'limit':>9} {'lag':>9}",
        *map(_source_line, status.sources),
        "",
        f"{'table':<32} {'':>12} {'age':>9} {'limit':>9}",
        *map(_table_line, status.tables),
    ]
    return lines


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


def _budget_lines(tokens: float | None) -> list[str]:
    if tokens is None:
        return []
    wait = ", calls wait for theirs" if tokens < 0 else ""
    return [f"REST        {tokens:.0f} tokens left of its budget{wait}"]


def _source_line(source: Source) -> str:
    messages = "–" if source.messages is None else f"{source.messages:,}"
    return (
        f"{source.channel:<32} {messages:>12} {_seconds(source.last_message_age):>9} "
        f"{_limit(source.limit):>9} {_seconds(source.lag):>9}{_verdict(source)}"
    )


def _table_line(table: TableAge) -> str:
    age, limit = _seconds(table.age_seconds), _limit(table.limit_seconds)
    return f"{table.table:<32} {'':>12} {age:>9} {limit:>9}{_verdict(table)}"


def _verdict(one: Source | TableAge) -> str:
    return "  LATE" if one.late else "  starting" if one.starting else ""


def _limit(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} s"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 600:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 36_000 else f"{value / 3600:.0f} h"


def _since(age: float | None) -> str:
    return "" if age is None else f", the oldest for {age:.0f} s"


def _by_channel(status: Status) -> str:
    counts = sorted(status.open_gaps_by_channel.items())
    return f" ({', '.join(f'{channel} {count}' for channel, count in counts)})" if counts else ""


def _backlog(status: Status) -> str:
    if status.tape_backlog_bytes is None:
        return ""
    behind = status.tape_backlog_seconds
    return f", {status.tape_backlog_bytes / 1e6:.1f} MB of tape to load" + (
        f", {behind:.1f} s behind" if behind else ""
    )
