"""What the writers of markets, events and series have in common: rows of JSON, and patience."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, LiteralString, NamedTuple

import msgspec
import psycopg

# After so many answers that did not hold what we know already, REST is believed as it is.
MOST_STALE_READS = 6
_RETRY_SECONDS = 5
_LONGEST_DOUBLING = 20


class Changes(NamedTuple):
    """What a page of REST did: rows that are new, whose facts changed, and the rest."""

    added: int
    changed: int
    unchanged: int


def growing(first_seconds: int, attempts: int, longest_seconds: int) -> timedelta:
    """The pause after the `attempts`-th fruitless reading: doubled each time, up to a bound."""
    doublings = min(max(0, attempts - 1), _LONGEST_DOUBLING)
    return timedelta(seconds=min(longest_seconds, first_seconds << doublings))


def retry_pause(attempts: int, longest_seconds: int) -> timedelta:
    """5, 10, 20, … seconds until REST is asked again for what it could not tell yet."""
    return growing(_RETRY_SECONDS, attempts, longest_seconds)


def as_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as a JSON list, for json_populate_recordset: one parameter for a page of any width.

    Instants become ISO text, decimals text: nothing passes through a float.
    """
    return msgspec.json.encode(rows if isinstance(rows, list) else list(rows)).decode()


def columns_of(names: Sequence[str], alias: str = "") -> LiteralString:
    """Column names as a list in SQL. They come from this package alone, never from outside."""
    prefix = f"{alias}." if alias else ""
    return ", ".join(prefix + name for name in names)


def name_rows(
    connection: psycopg.Connection, statement: LiteralString, tickers: Iterable[str]
) -> None:
    """Make sure that each ticker has its row.

    Sorted, so that two writers meet in the same order and never wait for each other in a ring.
    """
    if wanted := sorted(set(tickers)):
        connection.execute(statement, [wanted])
