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
from kalshi_platform.alerting.staleness import (
    is_silent,
    reference_conditions,
    source_conditions,
    table_conditions,
)
from kalshi_platform.storage.reads.alerts import (
    FailingChannel,
    OpenGap,
    Rejected,
    Unarchived,
)
from kalshi_platform.storage.reads.book_status import book_reasons
from kalshi_platform.storage.reads.status import GAP_SECONDS, Status

# Of messages that could not be read; recovered when there was none for as long.
REJECTED_SECONDS = 600.0
# From the start of everything to the first lease, on a busy machine.
STARTING_SECONDS = 90.0
# The recorder chooses its books within this after a start; what is wrong then must stay so a while.
BOOKS_SECONDS = 90.0


class Facts(NamedTuple):
    """All that is looked at in one turn."""

    status: Status
    watched_seconds: float
    """How long somebody has been looking: what is late only since before that is not told."""
    rejected: Rejected
    gap: OpenGap | None
    unarchived: Sequence[Unarchived]
    damaged: Sequence[Unarchived]
    failing: Sequence[FailingChannel]
    disks: Sequence[Disk]
    disk_percent: float


def platform_conditions(facts: Facts, links: Links) -> list[Condition]:
    """All that is wrong now, by what the platform itself knows."""
    status = facts.status
    return [
        *source_conditions(status.sources, facts.watched_seconds, links),
        *table_conditions(status, facts.watched_seconds, links),
        *reference_conditions(status.reference, facts.watched_seconds, links),
        *_gap(status, facts, links),
        *_rejected(facts.rejected, links),
        *(_disk(disk, facts.disk_percent) for disk in full(facts.disks, facts.disk_percent)),
        *_stopped(status, facts.watched_seconds, links),
        *_books(status, facts.watched_seconds, links),
        *_archive(facts.unarchived, links),
        *_damaged(facts.damaged),
        *map(_delivery, facts.failing),
    ]


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


def _rejected(rejected: Rejected, links: Links) -> list[Condition]:
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
            links.asset("feed_tape"),
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


def _stopped(status: Status, watched: float, links: Links) -> list[Condition]:
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
            tells=watched >= STARTING_SECONDS,
        )
        for name, runs, command, sentence in parts
        if runs is False
    ]


def _books(status: Status, watched: float, links: Links) -> list[Condition]:
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
            links.asset("book_deltas"),
            # Of a feed of which nothing comes, no book is known.
            tells=watched >= BOOKS_SECONDS and not is_silent(status.sources),
        )
        for reason in reasons[:1]
    ]


def _archive(unarchived: Sequence[Unarchived], links: Links) -> list[Condition]:
    if not unarchived:
        return []
    return [
        Condition(
            "archive behind",
            kinds.ARCHIVE,
            "warning",
            f"{_days_of_tables(unarchived)} should have been archived and are not.",
            "Look at the runs of archive_days, or run `kalshi-platform archive run`; what is not "
            "archived is not dropped, so the disk fills.",
            links.runs("archive_days"),
        )
    ]


def _damaged(damaged: Sequence[Unarchived]) -> list[Condition]:
    if not damaged:
        return []
    return [
        Condition(
            "archive damaged",
            kinds.ARCHIVE,
            "error",
            f"{_days_of_tables(damaged)} are nowhere but in the archive, and their files are not "
            "what was written.",
            "Bring the files back from the store's own versions or a backup, then run "
            "`kalshi-platform archive verify`.",
            holds_seconds=0,
        )
    ]


def _days_of_tables(days: Sequence[Unarchived]) -> str:
    first, others = days[0], len(days) - 1
    return f"{first.table_name} of {first.day}" + (f" and {others} more" if others else "")


def _delivery(failing: FailingChannel) -> Condition:
    return Condition(
        f"delivery by {failing.channel}",
        kinds.DELIVERY,
        "error",
        f"{failing.messages} messages did not get through ({failing.channel}): {failing.error}",
        "Run `kalshi-platform alerts test`, which says what each channel answers; then mend "
        "KALSHI_ALERT_WEBHOOK_URL or KALSHI_ALERT_SMTP_URL.",
    )
