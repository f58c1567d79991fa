"""Healing: open gaps in trades are asked for over REST and closed when the answer can be trusted.

REST may lag behind the stream (docs.kalshi.com calls it an eventually consistent read model), so
an answer proves nothing by itself. It is trusted once it holds every trade that the stream has
brought in the interval and its margins, and a trade of the stream after it as well. Until then the
gap stays open and is asked for again, with growing pauses.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import ceil, floor

import psycopg
import structlog

from kalshi_platform.exchange.calls import Interrupted
from kalshi_platform.exchange.errors import ExchangeError, is_transient
from kalshi_platform.exchange.rest import RestClient
from kalshi_platform.ingest.window import (
    CHECKPOINTS,
    Progress,
    count_calls,
    saved_progress,
    sweep_window,
)
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.archives import DayDropped, refuse_dropped
from kalshi_platform.storage.reads.sweeps import (
    DueGap,
    Evidence,
    checkpoint,
    due_gaps,
    first_feed_trade_after,
    gap_evidence,
)
from kalshi_platform.storage.writes.feed import add_to_counters
from kalshi_platform.storage.writes.sweeps import close_gap, drop_checkpoint, postpone_gaps

MARGIN_SECONDS = 1
# Gaps closer than this are asked for together.
_NEAR = timedelta(seconds=5)
_LONG = timedelta(minutes=10)
# Where the stream is quiet after a gap, REST has had its time after this.
_QUIET_SECONDS = 60
# What REST has passed over for so long it will never confirm.
_GIVE_UP_SECONDS = 600
_UNREADABLE_PAUSE_SECONDS = 600
_FAILED_PAUSE_SECONDS = 30
_ARCHIVED_PAUSE_SECONDS = 600
# First half of the advisory locks, one a gap.
_GAP_LOCKS = 4_247

_AWAY = (psycopg.OperationalError, psycopg.InterfaceError)

log = structlog.get_logger(__name__)


def heal_open_gaps(url: str, rest: RestClient, stop: threading.Event) -> int:
    """Try to heal every gap in trades that is due; safe to run in several processes at once.

    Neither an exchange that refuses nor a database that is away is raised, nor anything else that
    goes wrong with a gap: it stays open and is asked for again, the other gaps have their turn, and
    the recording that goes on beside is worth more than they are.

    Returns:
        How many were closed.
    """
    closed = 0
    try:
        with connect(url) as connection:
            due = due_gaps(connection)
            connection.commit()
            for group in _groups(due):
                if stop.is_set():
                    break
                with _locked(connection, group) as gaps:
                    closed += _try(connection, rest, gaps, stop) if gaps else 0
                count_calls(connection, rest)
                connection.commit()
    except Interrupted:
        pass  # asked to stop; the position is saved
    except _AWAY as error:
        log.warning("healing_waits_for_database", reason=str(error).strip())
    return closed


def _groups(gaps: Sequence[DueGap]) -> list[list[DueGap]]:
    """Neighbours together; long gaps alone, so that their position stays theirs."""
    groups: list[list[DueGap]] = []
    for gap in gaps:
        if groups and _mergeable(groups[-1], gap):
            groups[-1].append(gap)
        else:
            groups.append([gap])
    # The short ones first: they are done at once.
    return sorted(groups, key=lambda group: _end(group) - group[0].starts_at)


def _mergeable(group: Sequence[DueGap], gap: DueGap) -> bool:
    return (
        max(_end(group), gap.ends_at) - group[0].starts_at < _LONG
        and gap.starts_at - _end(group) < _NEAR
    )


def _end(group: Sequence[DueGap]) -> datetime:
    return max(gap.ends_at for gap in group)


@contextmanager
def _locked(connection: psycopg.Connection, gaps: Sequence[DueGap]) -> Iterator[list[DueGap]]:
    """Those of `gaps` that no other healer has and that are still due, held by us."""
    mine: list[int] = []
    try:
        for gap in gaps:
            key = [_GAP_LOCKS, _lock_number(gap.gap_id)]
            row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", key).fetchone()
            if row == (True,):
                mine.append(gap.gap_id)
        # Another healer may have closed one between our look and our lock.
        still_due = due_gaps(connection, only=mine) if mine else []
        connection.commit()
        yield still_due
    finally:
        if not connection.broken:
            connection.rollback()
            for gap_id in mine:
                connection.execute(
                    "SELECT pg_advisory_unlock(%s, %s)", [_GAP_LOCKS, _lock_number(gap_id)]
                )
            connection.commit()


def _lock_number(gap_id: int) -> int:
    return gap_id & 0x7FFF_FFFF


def _try(
    connection: psycopg.Connection, rest: RestClient, gaps: Sequence[DueGap], stop: threading.Event
) -> int:
    """Heal; a failure that nobody foresaw is counted and puts these gaps off."""
    try:
        return _heal(connection, rest, gaps, stop)
    except (Interrupted, *_AWAY):
        raise
    except Exception as error:  # told with its traceback, counted, tried again
        connection.rollback()
        ids = [gap.gap_id for gap in gaps]
        reason = f"healing failed: {type(error).__name__}: {error}"
        postpone_gaps(connection, ids, reason, _FAILED_PAUSE_SECONDS)
        add_to_counters(connection, {("healing_failures_total", ""): 1})
        connection.commit()
        log.error("healing_failed", gaps=ids, exc_info=error)
        return 0


def _heal(
    connection: psycopg.Connection, rest: RestClient, gaps: Sequence[DueGap], stop: threading.Event
) -> int:
    scope = f"gap:{gaps[0].gap_id}"
    progress = _progress(connection, gaps, scope)
    ids = [gap.gap_id for gap in gaps]
    try:
        _refuse_archived_days(connection, progress)
    except DayDropped as error:
        # The hourly job that drops days brings this one back, since the gap asks for it.
        postpone_gaps(connection, ids, str(error), _ARCHIVED_PAUSE_SECONDS)
        connection.commit()
        log.warning("gaps_wait_for_archive", gaps=ids, reason=str(error))
        return 0
    try:
        sweep_window(connection, rest, progress, scope, stop)
    except ExchangeError as error:
        connection.rollback()
        postpone_gaps(connection, ids, str(error))
        connection.commit()
        # What will not pass by itself (a refused key, say) is for the operator to see.
        level = logging.WARNING if is_transient(error) else logging.ERROR
        log.log(level, "gaps_not_healed", gaps=ids, reason=str(error))
        return 0
    evidence = gap_evidence(connection, gaps, MARGIN_SECONDS)
    closed = sum(_judge(connection, gap, evidence[gap.gap_id], progress) for gap in gaps)
    drop_checkpoint(connection, CHECKPOINTS, scope)
    connection.commit()
    return closed


def _refuse_archived_days(connection: psycopg.Connection, progress: Progress) -> None:
    """Go on only if no trade of the window is in the archive alone: it would seem to be missing."""
    first = datetime.fromtimestamp(progress.start, UTC).date()
    last = datetime.fromtimestamp(progress.end, UTC).date()
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    refuse_dropped(connection, "trades", days)
    connection.commit()


def _progress(connection: psycopg.Connection, gaps: Sequence[DueGap], scope: str) -> Progress:
    """The walk over these gaps, begun anew or continued where a killed process left it."""
    margin = timedelta(seconds=MARGIN_SECONDS)
    end = _end(gaps) + margin
    # In a quiet hour the first trade after the gap comes late; it is asked for as well.
    fence = first_feed_trade_after(connection, _end(gaps))
    if fence is not None:
        end = max(end, fence + margin)
    saved = checkpoint(connection, CHECKPOINTS, scope)
    connection.commit()
    begun = Progress.over(floor((gaps[0].starts_at - margin).timestamp()), ceil(end.timestamp()))
    if saved is None:
        return begun
    known = saved_progress(saved[0])
    if (
        known is None
        or known.start != begun.start
        or known.end < ceil((_end(gaps) + margin).timestamp())
    ):
        return begun
    if min(gap.age_seconds for gap in gaps) < _GIVE_UP_SECONDS:
        # REST may have lagged when the newest pages were read: the current hour is read again.
        known.cursor, known.tiers_done = None, []
    return known


def _judge(
    connection: psycopg.Connection, gap: DueGap, evidence: Evidence, progress: Progress
) -> bool:
    """Close the gap if the answer can be trusted, else put it off; whether it was closed."""
    if progress.rejected:
        detail = f"REST reports {progress.rejected} trades that cannot be read"
        postpone_gaps(connection, [gap.gap_id], detail, _UNREADABLE_PAUSE_SECONDS)
        log.warning("gap_not_healed", gap=gap.gap_id, reason=detail)
        return False
    doubt = doubt_of(evidence, gap.age_seconds)
    if doubt is not None:
        postpone_gaps(connection, [gap.gap_id], doubt)
        log.info("gap_not_healed_yet", gap=gap.gap_id, reason=doubt)
        return False
    close_gap(
        connection,
        gap.gap_id,
        healed_by=progress.healed_by,
        found=evidence.found,
        missing=evidence.missing,
        detail=_remark(evidence, progress),
    )
    add_to_counters(connection, {("gaps_healed_total", ""): 1})
    log.info("gap_healed", gap=gap.gap_id, found=evidence.found, missing=evidence.missing)
    return True


def doubt_of(evidence: Evidence, age_seconds: float) -> str | None:
    """Why REST may not have told all of an interval that ended `age_seconds` ago, or None."""
    if evidence.later and not evidence.later_confirmed:
        # However old: REST is visibly behind, or stands still.
        return "REST has not reported any trade after the gap yet"
    if age_seconds >= _GIVE_UP_SECONDS:
        return None
    if evidence.unconfirmed:
        return f"REST has not reported {evidence.unconfirmed} trades of the stream yet"
    if not evidence.later and age_seconds < _QUIET_SECONDS:
        return "no trade after the gap yet that would show how far REST is"
    return None


def _remark(evidence: Evidence, progress: Progress) -> str | None:
    remarks = []
    if evidence.unconfirmed:
        remarks.append(f"REST never reported {evidence.unconfirmed} trades that the stream brought")
    if progress.contradicted:
        remarks.append(f"REST reports {progress.contradicted} trades with other values than held")
    return "; ".join(remarks) or None
