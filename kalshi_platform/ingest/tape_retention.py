"""The tape's old files are removed once nothing can be asked of them any more.

That is: they began longer ago than they are kept, the loader has gone on to a later file, and every
day that they touch is archived, read back and right in all tables that the tape fills.
"""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from kalshi_platform.ingest.tape import segment_path, segments
from kalshi_platform.storage.reads.archives import days_without_archive
from kalshi_platform.storage.reads.sweeps import checkpoint

FED_BY_TAPE = (
    "trades",
    "raw_trades",
    "quotes",
    "book_snapshots",
    "book_deltas",
    "lifecycle_events",
)
_FEWEST_DAYS = 2
# The exchange's clock and ours; what is sent before midnight arrives after it.
_MARGIN = timedelta(hours=1)


class Outcome(NamedTuple):
    """What was removed, and why older files stay."""

    removed: int
    bytes_freed: int
    left: int
    reason: str | None


def remove_old_segments(
    connection: psycopg.Connection[Any],
    folder: Path,
    days: int,
    *,
    now: datetime | None = None,
    dry_run: bool = False,
) -> Outcome:
    """Remove the files that began before the last `days` UTC days, today among them.

    Args:
        days: never fewer than two.
        now: instead of the clock.
        dry_run: only say what would be removed.
    """
    today = (now or datetime.now(UTC)).astimezone(UTC).date()
    first_kept = today - timedelta(days=max(days, _FEWEST_DAYS) - 1)
    known = segments(folder)
    # The last one may still be written to, and is never old enough to be worth a thought.
    old = [pair for pair in pairwise(known) if _instant(pair[1]).date() < first_kept]
    if not old:
        return Outcome(0, 0, 0, None)
    loaded = checkpoint(connection, "ws", "tape")
    position = loaded[0].get("segment") if loaded else None
    missing = days_without_archive(
        connection, FED_BY_TAPE, {day for pair in old for day in _days(pair)}
    )
    removed = freed = 0
    reasons: list[str] = []
    for pair in old:
        segment = pair[0]
        waiting = [f"{table} of {day}" for day in _days(pair) for table in missing.get(day, ())]
        if not isinstance(position, int) or position <= segment:
            reasons.append("the loader has not gone past them yet")
        elif waiting:
            reasons.append(f"{waiting[0]} is not archived yet")
        else:
            path = segment_path(folder, segment)
            freed += path.stat().st_size
            removed += 1
            if not dry_run:
                path.unlink()
    return Outcome(removed, freed, len(reasons), reasons[0] if reasons else None)


def _instant(segment: int) -> datetime:
    return datetime.fromtimestamp(segment / 1000, UTC)


def _days(pair: tuple[int, int]) -> list[date]:
    """The UTC days that a file may touch, from its opening to that of the next."""
    first = (_instant(pair[0]) - _MARGIN).date()
    last = (_instant(pair[1]) + _MARGIN).date()
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
