"""What the recorder says of the books that it is to watch."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg

from kalshi_platform.storage.reads.watchlist import SOURCE, WATCH
from kalshi_platform.storage.writes.feed import set_gauges
from kalshi_platform.storage.writes.sweeps import save_checkpoint


class Refusal(NamedTuple):
    """Books that cannot be had just now, and why."""

    reason: str
    markets: int
    examples: Sequence[str]


class WatchState(NamedTuple):
    """How the books are that the recorder is to watch."""

    choice: str
    """What was asked for, in the words of the setting."""
    wanted: int
    watched: int
    """Of those wanted, the ones whose book is known."""
    left_out: int
    """Asked for, beyond the most that may be wanted."""
    refused: tuple[Refusal, ...]
    short_since: str | None
    """Since when fewer are watched than wanted (ISO 8601, our clock)."""
    error: str | None
    """Why they could not be chosen afresh."""


def save_watch_state(connection: psycopg.Connection, state: WatchState) -> None:
    """Keep the state for status, health and metrics; the caller commits."""
    position: Mapping[str, Any] = {
        **state._asdict(),
        "refused": [refusal._asdict() for refusal in state.refused],
    }
    save_checkpoint(connection, SOURCE, WATCH, position)
    set_gauges(
        connection,
        {
            ("books_wanted", ""): float(state.wanted),
            ("books_watched", ""): float(state.watched),
            ("books_refused", ""): float(sum(refusal.markets for refusal in state.refused)),
        },
    )
