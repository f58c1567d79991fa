"""What is wrong now, of all that the platform's own tables and disks can say.

Runs and checks, which Dagster knows, are in `orchestration.alerts`. Nothing here starts or ends an
alert: `changes` does, from what holds now and what held before.
"""

from collections.abc import Sequence
from datetime import UTC
from typing import NamedTuple

from kalshi_platform.alerting import kinds
from kalshi_platform.alerting.conditions import Condition, Links
from kalshi_platform.alerting.disks import Disk, full
from kalshi_platform.storage.reads.alerts import (
    FailingChannel,
    OpenGap,
    Rejected,
    Unarchived,
)
from kalshi_platform.storage.reads.book_status import book_reasons
from kalshi_platform.storage.reads.freshness import Source, TableAge
from kalshi_platform.storage.reads.reference_status import (
    REFRESH_SECONDS,
    UNCONFIRMED_SECONDS,
    Reference,
)
from kalshi_platform.storage.reads.status import GAP_SECONDS, Status

# Of messages that could not be read; recovered when there was none for as long.
REJECTED_SECONDS = 600.0
# Two sources that stop together are late within this of each other, and are one alert then; a
# table is told of when its source is not.
TOGETHER_SECONDS = 4.0
TABLE_SECONDS = 9.0
# The recorder chooses its books within this after a start.
BOOKS_SECONDS = 120.0


class Facts(NamedTuple):
    """All that is looked at in one turn."""

    status: Status
    watched_seconds: float
    """How long somebody has been looking: what is late only since before that is not told."""
    rejected: Rejected
    gap: OpenGap | None
    unarchived: Sequence[Unarchived]
    failing: Sequence[FailingChannel]
    disks: Sequence[Disk]
    disk_percent: float


def platform_conditions(facts: Facts, links: Links) -> list[Condition]:
    """All that is wrong now, by what the platform itself knows."""
    status = facts.status
    return [
        *_sources(status.sources, facts.watched_seconds, links),
        *_tables(status, facts.watched_seconds, links),
        *_reference(status.reference, facts.watched_seconds, links),
        *_gap(status, facts, links),
        *_rejected(facts.rejected),
        *(_disk(disk, facts.disk_percent) for disk in full(facts.disks, facts.disk_percent)),
        *_stopped(status, links),
        *_books(status, facts.watched_seconds),
        *_archive(facts.unarchived, links),
        *map(_delivery, facts.failing),
    ]


# Which asset of the feed shows a channel's data.
_ASSETS = {"trade": "raw_trades", "ticker": "quotes"}


def _sources(sources: Sequence[Source], watched: float, links: Links) -> list[Condition]:
    """A feed of which nothing comes is one trouble, whatever it consists of."""
    late = [source for source in sources if source.late]
    whole = len(late) > 1 and len(late) == sum(source.limit is not None for source in sources)
    remedy = (
        "Look at `kalshi-platform status` and at the log of the run of stream_job (or of "
        "`kalshi-platform record`); `kalshi-platform doctor` tries key, clock and exchange."
    )
    conditions = [
        Condition(
            f"stale {source.channel}",
            kinds.STALE,
            "error",
            f"No message of the channel {source.channel} {_since(source)}.",
            remedy,
            links.asset(_ASSETS.get(source.channel, "feed_tape")),
            tells=not whole and watched >= (source.limit or 0),
            holds_seconds=TOGETHER_SECONDS,
        )
        for source in late
    ]
    if whole:
        words = "; ".join(f"{source.channel}: none {_since(source)}" for source in late)
        conditions.append(
            Condition(
                "stale feed",
                kinds.STALE,
                "error",
                f"No message of any channel comes. {words}.",
                remedy,
                links.asset("feed_tape"),
                tells=watched >= max(source.limit or 0 for source in late),
            )
        )
    return conditions


def _since(source: Source) -> str:
    limit = f" (limit {source.limit:.0f} s)" if source.limit is not None else ""
    if source.last_message_age is None:
        return f"so far{limit}"
    return f"for {source.last_message_age:.0f} s{limit}"


# Whose rows a channel brings; without it they cannot be new.
_CHANNELS = {"raw_trades": "trade", "quotes": "ticker"}


def _tables(status: Status, watched: float, links: Links) -> list[Condition]:
    """Tables that are late for another reason than their source is."""
    with_limit = [source for source in status.sources if source.limit is not None]
    late = {source.channel for source in with_limit if source.late}
    dead = len(late) > 1 and len(late) == len(with_limit)
    return [
        Condition(
            f"stale {table.table}",
            kinds.STALE,
            "error",
            _of_table(table),
            _TABLE_REMEDIES.get(table.table, _TABLE_REMEDY),
            links.asset(table.table),
            tells=watched >= (table.limit_seconds or 0)
            and _CHANNELS.get(table.table) not in late
            and not (dead and table.table in _OF_THE_FEED),
            holds_seconds=TABLE_SECONDS,
        )
        for table in status.tables
        if table.late
    ]


_OF_THE_FEED = ("raw_trades", "quotes", "lifecycle_events", "book_deltas")
_TABLE_REMEDY = (
    "Look at `kalshi-platform status`: a growing tape means that the loader does not keep up or "
    "does not run (`kalshi-platform load`); else nothing of the kind is being recorded."
)
_TABLE_REMEDIES = {
    "candles_1m": "Look at the runs of refresh_candles; answers stay right meanwhile, but slower.",
    "book_deltas": "Look at the books in `kalshi-platform status`, and at KALSHI_BOOKS.",
}


def _of_table(table: TableAge) -> str:
    limit = "" if table.limit_seconds is None else f" (limit {table.limit_seconds:.0f} s)"
    if table.age_seconds is None:
        return f"The table {table.table} has no row yet{limit}."
    if table.table == "candles_1m":
        return f"Candles have not been refreshed for {table.age_seconds:.0f} s{limit}."
    return f"The newest row of {table.table} is {table.age_seconds:.0f} s old{limit}."


def _reference(reference: Reference | None, watched: float, links: Links) -> list[Condition]:
    if reference is None:
        return []
    age, unconfirmed = reference.refresh_age, reference.oldest_unconfirmed_age
    remedy = (
        "Look at the runs of refresh_reference (or at the service `kalshi-platform reference`); "
        "`kalshi-platform doctor` tries the exchange's REST API."
    )
    if age is not None and age > REFRESH_SECONDS:
        cause = f": {reference.error}" if reference.error else ""
        return [
            Condition(
                "stale markets",
                kinds.STALE,
                "error",
                f"Markets have not been refreshed for {age:.0f} s "
                f"(limit {REFRESH_SECONDS:.0f} s){cause}.",
                remedy,
                links.runs("refresh_reference"),
                tells=watched >= REFRESH_SECONDS,
            )
        ]
    if unconfirmed is not None and unconfirmed > UNCONFIRMED_SECONDS:
        return [
            Condition(
                "stale settlements",
                kinds.STALE,
                "warning",
                f"{reference.unconfirmed_outcomes} outcomes have not been confirmed by REST, the "
                f"oldest for {unconfirmed:.0f} s (limit {UNCONFIRMED_SECONDS:.0f} s).",
                remedy,
                links.asset("settlements"),
                tells=watched >= UNCONFIRMED_SECONDS,
            )
        ]
    return []


def _gap(status: Status, facts: Facts, links: Links) -> list[Condition]:
    age, gap = status.oldest_open_gap_age, facts.gap
    if age is None or gap is None or age <= GAP_SECONDS:
        return []
    first, last = gap.starts_at.astimezone(UTC).date(), gap.ends_at.astimezone(UTC).date()
    return [
        Condition(
            "open gap",
            kinds.GAP,
            "warning",
            f"{status.open_gaps} gaps are open, the oldest ({gap.channel}, from "
            f"{gap.starts_at:%Y-%m-%d %H:%M:%S} to {gap.ends_at:%H:%M:%S} UTC) for {age:.0f} s "
            f"(limit {GAP_SECONDS:.0f} s).",
            "It is healed by itself once REST answers (`kalshi-platform doctor` tries); or run "
            f"`kalshi-platform backfill --from {first} --to {last} --only trades`.",
            links.asset("trades", first),
            tells=facts.watched_seconds >= GAP_SECONDS,
        )
    ]


def _rejected(rejected: Rejected) -> list[Condition]:
    if not rejected.messages:
        return []
    return [
        Condition(
            "rejected messages",
            kinds.REJECTED,
            "warning",
            f"{rejected.messages} messages of the last ten minutes could not be read, the newest: "
            f"{rejected.newest}.",
            "Read `SELECT reason, count(*) FROM rejected_messages WHERE received_at > now() - "
            "interval '1 hour' GROUP BY 1`; the messages are kept there. If the exchange has "
            "changed its format, install a release that knows it.",
        )
    ]


def _disk(disk: Disk, limit_percent: float) -> Condition:
    return Condition(
        f"disk of {disk.label}",
        kinds.DISK,
        "error",
        f"The disk of {disk.folder} is filled to {disk.percent:.1f} % (limit "
        f"{limit_percent:g} %); {disk.free_bytes / 1e9:.1f} GB are left.",
        "Lower KALSHI_TAPE_DAYS, KALSHI_QUOTES_DAYS or KALSHI_BOOKS_DAYS and run the job "
        "partitions_ahead_job, or put KALSHI_HOME on a larger disk; docs/operations.md says what "
        "fills it.",
        tells=disk.percent > limit_percent,
    )


def _stopped(status: Status, links: Links) -> list[Condition]:
    parts = (
        ("recorder", status.recorder_runs, "kalshi-platform record", "Nothing is being recorded"),
        ("loader", status.loader_runs, "kalshi-platform load", "The tape is not being loaded"),
    )
    return [
        Condition(
            f"stopped {name}",
            kinds.STOPPED,
            "error",
            f"{sentence}: no {name} runs.",
            "Look whether Dagster's sensor stream_keeper is on and how the last run of stream_job "
            f"ended; where a service does it, start `{command}`.",
            links.runs("stream_job"),
        )
        for name, runs, command, sentence in parts
        if runs is False
    ]


def _books(status: Status, watched: float) -> list[Condition]:
    if status.books is None:
        return []
    reasons = book_reasons(status.books, recorder_runs=bool(status.recorder_runs))
    return [
        Condition(
            "books missing",
            kinds.BOOKS,
            "warning",
            f"{reason}.",
            "Choose fewer order books, or mend the name that is refused (KALSHI_BOOKS), and "
            "restart; `kalshi-platform status` names them.",
            tells=watched >= BOOKS_SECONDS,
        )
        for reason in reasons[:1]
    ]


def _archive(unarchived: Sequence[Unarchived], links: Links) -> list[Condition]:
    if not unarchived:
        return []
    oldest, others = unarchived[0], len(unarchived) - 1
    more = f" and {others} more days of tables" if others else ""
    return [
        Condition(
            "archive behind",
            kinds.ARCHIVE,
            "warning",
            f"{oldest.table} of {oldest.day}{more} are not archived.",
            f"Look at the runs of the archive, or run `kalshi-platform archive write --day "
            f"{oldest.day}`; nothing unarchived is dropped, so the disk fills.",
            links.asset("archive", oldest.day),
        )
    ]


def _delivery(failing: FailingChannel) -> Condition:
    return Condition(
        f"delivery by {failing.channel}",
        kinds.DELIVERY,
        "error",
        f"{failing.messages} messages did not get through ({failing.channel}): {failing.error}",
        "Run `kalshi-platform alerts test`, which says what each channel answers; then mend "
        "KALSHI_ALERT_WEBHOOK_URL or KALSHI_ALERT_SMTP_URL.",
    )
