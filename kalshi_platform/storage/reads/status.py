"""The platform's description of itself, from what its processes leave in the database.

The same answer for GET /health, GET /metrics and `kalshi-platform status`. It costs a few
milliseconds at any volume: no table that grows with the feed is scanned.
"""

from datetime import datetime
from typing import Literal

import msgspec
import psycopg

from kalshi_platform.storage.leases import LOADER, RECORDER
from kalshi_platform.storage.reads.book_status import (
    BOOK_STATUS,
    BookRead,
    BookStatus,
    book_reasons,
    books_from,
)
from kalshi_platform.storage.reads.reference_status import (
    REFERENCE_STATUS,
    Reference,
    ReferenceRead,
    reference_from,
    reference_reasons,
)

# What the ingesting processes write to `ingestion_metrics`, one row per label set.
MESSAGES = "messages_total"  # by channel
LAST_RECEIVED = "last_received_at_seconds"  # by channel; Unix seconds, the receiver's clock
RECEIVED_LAG = "received_lag_seconds"  # by channel; sent by the exchange to received
LOADED_LAG = "loaded_lag_seconds"  # by channel; received to committed
TAPE_BACKLOG = "tape_backlog_bytes"  # on the tape, not yet in the tables

# A channel is late after this many seconds; the others may rightly be silent for hours.
SILENCE_SECONDS = {"trade": 60.0, "ticker": 60.0}
# The healer tries each second; a gap that stays open longer needs eyes.
GAP_SECONDS = 120.0
# They are refreshed each minute; answers stay right meanwhile, but cost more and more.
CANDLES_SECONDS = 300.0
# Beyond this, rows are not counted one by one.
_COUNTED = 100_000

# First day held, open or degraded intervals of trades, and the evidence per day.
COMPLETENESS = """\
SELECT json_build_object(
    'first_day', (SELECT min(traded_on) FROM trades),
    'gaps', (SELECT coalesce(json_agg(json_build_object(
                 'starts_at', starts_at, 'ends_at', ends_at)), '[]')
             FROM gaps WHERE status = 'open' AND channel = 'trade'),
    'days', (SELECT coalesce(json_agg(json_build_object(
                 'traded_on', traded_on, 'status', status, 'swept_until', swept_until)), '[]')
             FROM coverage WHERE market_ticker = '*'))"""

STATUS = f"""\
SELECT json_build_object(
    'read_at', now(),
    'metrics', (SELECT coalesce(json_agg(json_build_object(
                    'name', name, 'labels', labels, 'value', value, 'updated_at', updated_at)
                    ORDER BY name, labels), '[]') FROM ingestion_metrics),
    'checkpoints', (SELECT coalesce(json_agg(json_build_object(
                        'source', source, 'scope', scope, 'updated_at', updated_at)
                        ORDER BY source, scope), '[]')
                    FROM (SELECT * FROM ingestion_checkpoints
                          ORDER BY updated_at DESC LIMIT 50) AS latest),
    'open_gaps', (SELECT count(*) FROM gaps WHERE status = 'open'),
    'oldest_open_gap_at', (SELECT min(detected_at) FROM gaps WHERE status = 'open'),
    'rejected_today', (SELECT count(*) FROM (
                           SELECT FROM rejected_messages
                           WHERE received_at >= date_trunc('day', now(), 'UTC')
                           LIMIT {_COUNTED}) AS counted),
    'stale_candles', (SELECT count(*) FROM (
                          SELECT DISTINCT market_ticker, starts_at FROM (
                              SELECT market_ticker, starts_at FROM stale_candles
                              LIMIT {_COUNTED}) AS listed) AS minutes),
    'oldest_stale_candle_at', (SELECT min(noted_at) FROM (
                                   SELECT noted_at FROM stale_candles LIMIT {_COUNTED}) AS seen),
    'reference', {REFERENCE_STATUS},
    'books', {BOOK_STATUS},
    'recorder_runs', EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
                             AND classid = 0 AND objsubid = 1 AND objid = {RECORDER}
                             AND database = (SELECT oid FROM pg_database
                                             WHERE datname = current_database())),
    'loader_runs', EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
                           AND classid = 0 AND objsubid = 1 AND objid = {LOADER}
                           AND database = (SELECT oid FROM pg_database
                                           WHERE datname = current_database())))"""  # noqa: S608 (constants)


class Metric(msgspec.Struct, frozen=True):
    """One row of `ingestion_metrics`; labels as in Prometheus text."""

    name: str
    labels: str
    value: float
    updated_at: datetime


class Checkpoint(msgspec.Struct, frozen=True):
    source: str
    scope: str
    updated_at: datetime


class Source(msgspec.Struct, frozen=True):
    """One channel of the feed; seconds, null where nothing is known yet.

    `lag` is from sent by the exchange to committed, for the newest message.
    """

    channel: str
    messages: int | None
    last_message_age: float | None
    limit: float | None
    lag: float | None
    late: bool


class Status(msgspec.Struct, frozen=True):
    """How the platform is. `reasons` says in words what keeps it from being ok."""

    status: Literal["ok", "degraded", "down"]
    reasons: list[str]
    simulated: bool
    database: Literal["ok", "unreachable"]
    read_at: datetime | None = None
    recorder_runs: bool | None = None
    loader_runs: bool | None = None
    sources: list[Source] = []
    open_gaps: int | None = None
    oldest_open_gap_age: float | None = None
    rejected_today: int | None = None
    stale_candles: int | None = None
    oldest_stale_candle_age: float | None = None
    tape_backlog_bytes: int | None = None
    checkpoints: list[Checkpoint] = []
    metrics: list[Metric] = []
    reference: Reference | None = None
    books: BookStatus | None = None


class _Read(msgspec.Struct):
    read_at: datetime
    metrics: list[Metric]
    checkpoints: list[Checkpoint]
    open_gaps: int
    oldest_open_gap_at: datetime | None
    rejected_today: int
    stale_candles: int
    oldest_stale_candle_at: datetime | None
    reference: ReferenceRead
    books: BookRead
    recorder_runs: bool
    loader_runs: bool


def read_status(connection: psycopg.Connection, *, simulated: bool) -> Status:
    """The status as of now."""
    row = connection.execute(STATUS.encode()).fetchone()
    assert row is not None, "a query of one expression answers one row"
    return status_from(msgspec.json.encode(row[0]), simulated=simulated)


def unreachable(*, simulated: bool) -> Status:
    """The status when the database does not answer: nothing else is known then."""
    return Status("down", ["the database does not answer"], simulated, "unreachable")


def status_from(document: bytes, *, simulated: bool) -> Status:
    """The status from the answer to STATUS (JSON)."""
    read = msgspec.json.decode(document, type=_Read)
    sources = _sources(read)
    gap_age = _age(read, read.oldest_open_gap_at)
    candle_age = _age(read, read.oldest_stale_candle_at)
    reasons = []
    if not read.recorder_runs:
        reasons.append("no recorder runs")
    if not read.loader_runs:
        reasons.append("no loader runs")
    reasons += [
        f"{source.channel}: no message for {source.last_message_age:.0f} s"
        if source.last_message_age is not None
        else f"{source.channel}: no message yet"
        for source in sources
        if source.late
    ]
    if gap_age is not None and gap_age > GAP_SECONDS:
        reasons.append(f"a gap has been open for {gap_age:.0f} s")
    if candle_age is not None and candle_age > CANDLES_SECONDS:
        reasons.append(f"candles have not been refreshed for {candle_age:.0f} s")
    reference = reference_from(read.reference, read.read_at)
    reasons += reference_reasons(reference)
    books = books_from(read.books, read.read_at)
    reasons += book_reasons(books, recorder_runs=read.recorder_runs)
    backlog = _by_channel(read.metrics, TAPE_BACKLOG).get(None)
    return Status(
        status="degraded" if reasons else "ok",
        reasons=reasons,
        simulated=simulated,
        database="ok",
        read_at=read.read_at,
        recorder_runs=read.recorder_runs,
        loader_runs=read.loader_runs,
        sources=sources,
        open_gaps=read.open_gaps,
        oldest_open_gap_age=gap_age,
        rejected_today=read.rejected_today,
        stale_candles=read.stale_candles,
        oldest_stale_candle_age=candle_age,
        tape_backlog_bytes=None if backlog is None else int(backlog),
        checkpoints=read.checkpoints,
        metrics=read.metrics,
        reference=reference,
        books=books,
    )


def _age(read: _Read, instant: datetime | None) -> float | None:
    return None if instant is None else (read.read_at - instant).total_seconds()


def _sources(read: _Read) -> list[Source]:
    messages = _by_channel(read.metrics, MESSAGES)
    last = _by_channel(read.metrics, LAST_RECEIVED)
    received_lag = _by_channel(read.metrics, RECEIVED_LAG)
    loaded_lag = _by_channel(read.metrics, LOADED_LAG)
    sources = []
    for channel in sorted({*messages, *last, *SILENCE_SECONDS} - {None}, key=str):
        assert channel is not None
        limit = SILENCE_SECONDS.get(channel)
        age = (
            max(0.0, round(read.read_at.timestamp() - last[channel], 3))
            if channel in last
            else None
        )
        sources.append(
            Source(
                channel=channel,
                messages=int(messages[channel]) if channel in messages else None,
                last_message_age=age,
                limit=limit,
                lag=round(received_lag[channel] + loaded_lag[channel], 3)
                if channel in received_lag and channel in loaded_lag
                else None,
                late=limit is not None and (age is None or age > limit),
            )
        )
    return sources


def _by_channel(metrics: list[Metric], name: str) -> dict[str | None, float]:
    """Values of one metric by its channel label; None for the row without labels."""
    return {
        metric.labels.removeprefix('channel="').removesuffix('"') or None: metric.value
        for metric in metrics
        if metric.name == name
    }
