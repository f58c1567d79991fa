"""The platform's description of itself, from what its processes leave in the database.

The same answer for GET /health, GET /metrics and `kalshi-platform status`. It costs a few
milliseconds at any volume: no table that grows with the feed is scanned.
"""

from datetime import datetime
from typing import Literal

import msgspec
import psycopg

from kalshi_platform.storage.leases import LOADER, RECORDER
from kalshi_platform.storage.reads.alerts import ALERT_STATUS, AlertRead, alert_reasons
from kalshi_platform.storage.reads.book_status import (
    BOOK_STATUS,
    BookRead,
    BookStatus,
    book_reasons,
    books_from,
)
from kalshi_platform.storage.reads.freshness import (
    FRESHNESS,
    SILENCE_SECONDS,
    FreshnessRead,
    Source,
    Start,
    TableAge,
    freshness_reasons,
    source_of,
    tables_from,
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
BACKLOG_SECONDS = "tape_backlog_seconds"  # since the oldest frame of it was received
BUDGET_RATE = "rest_budget_tokens_per_second"
BUDGET_CAPACITY = "rest_budget_capacity_tokens"
# Gauges that end with what they measure.
_FLEETING = {
    TAPE_BACKLOG,
    BACKLOG_SECONDS,
    "received_lag_max_seconds",
    "loaded_lag_max_seconds",
}

# The healer tries each second; a gap that stays open longer needs eyes.
GAP_SECONDS = 120.0
# What a loader that does not run, or hears nothing, said last is no figure of now.
_OF_NOW_SECONDS = 90.0
# No table is read without end, however much is wrong: beyond these, rows are not counted. The
# first entries of a list that is appended to are its oldest.
_REFUSED = 10_000
_LISTED = 20_000

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
    'open_gaps', (SELECT coalesce(json_object_agg(channel, number), '{{}}')
                  FROM (SELECT channel, count(*) AS number FROM gaps
                        WHERE status = 'open' GROUP BY channel) AS counted),
    'oldest_open_gap_at', (SELECT min(detected_at) FROM gaps WHERE status = 'open'),
    'budget', (SELECT json_build_object('tokens', tokens, 'updated_at', updated_at)
               FROM rest_budget ORDER BY budget_id LIMIT 1),
    'rejected_today', (SELECT count(*) FROM (
                           SELECT FROM rejected_messages
                           WHERE received_at >= date_trunc('day', now(), 'UTC')
                           LIMIT {_REFUSED}) AS counted),
    'stale_candles', (SELECT json_build_object('minutes', count(*), 'oldest_at', min(noted_at))
                      FROM (SELECT min(noted_at) AS noted_at FROM (
                                SELECT market_ticker, starts_at, noted_at FROM stale_candles
                                LIMIT {_LISTED}) AS listed
                            GROUP BY market_ticker, starts_at) AS minutes),
    'freshness', {FRESHNESS},
    'reference', {REFERENCE_STATUS},
    'books', {BOOK_STATUS},
    'alerts', {ALERT_STATUS},
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


class Budget(msgspec.Struct, frozen=True):
    """The REST budget that all processes share, as of its last call."""

    tokens: float
    """May be negative: reserved ahead."""
    updated_at: datetime


class Status(msgspec.Struct, frozen=True):
    """How the platform is. `reasons` says in words what keeps it from being ok.

    `stale`: a source or a table is older than its limit. `degraded`: anything else is wrong, or all
    has just been started. `down`: the database does not answer.
    """

    status: Literal["ok", "degraded", "stale", "down"]
    reasons: list[str]
    simulated: bool
    database: Literal["ok", "unreachable"]
    read_at: datetime | None = None
    recorder_runs: bool | None = None
    loader_runs: bool | None = None
    sources: list[Source] = []
    tables: list[TableAge] = []
    open_gaps: int | None = None
    open_gaps_by_channel: dict[str, int] = {}
    oldest_open_gap_age: float | None = None
    rejected_today: int | None = None
    """10,000 stands for that many or more."""
    stale_candles: int | None = None
    """Minutes of markets to recompute, of the 20,000 oldest entries of the list."""
    oldest_stale_candle_age: float | None = None
    tape_backlog_bytes: int | None = None
    tape_backlog_seconds: float | None = None
    rest_budget_tokens: float | None = None
    """Tokens left for REST calls; negative where calls wait for theirs."""
    checkpoints: list[Checkpoint] = []
    metrics: list[Metric] = []
    reference: Reference | None = None
    books: BookStatus | None = None


class _StaleCandles(msgspec.Struct):
    minutes: int
    oldest_at: datetime | None


class _Read(msgspec.Struct):
    read_at: datetime
    metrics: list[Metric]
    checkpoints: list[Checkpoint]
    open_gaps: dict[str, int]
    oldest_open_gap_at: datetime | None
    budget: Budget | None
    rejected_today: int
    stale_candles: _StaleCandles
    freshness: FreshnessRead
    reference: ReferenceRead
    books: BookRead
    alerts: AlertRead
    recorder_runs: bool
    loader_runs: bool


def read_status(connection: psycopg.Connection, *, simulated: bool) -> Status:
    """The status as of now."""
    row = connection.execute(STATUS.encode()).fetchone()
    assert row is not None, "a query of one expression answers one row"
    return status_from(msgspec.json.encode(row[0]), simulated=simulated)


def unreachable(*, simulated: bool, reason: str = "the database does not answer") -> Status:
    """The status when the database does not answer: nothing else is known then."""
    return Status("down", [reason], simulated, "unreachable")


def status_from(document: bytes, *, simulated: bool) -> Status:
    """The status from the answer to STATUS (JSON)."""
    read = msgspec.json.decode(document, type=_Read)
    metrics = [metric for metric in read.metrics if _is_of_now(metric, read)]
    books = books_from(read.books, read.read_at)
    candle_age = _age(read, read.stale_candles.oldest_at)
    start = Start(read.read_at, read.freshness.started_at, read.reference.first_used_at)
    sources = _sources(read, start)
    tables = tables_from(
        read.freshness,
        read.read_at,
        start,
        candles_age=candle_age,
        book_choice=books.choice if books.wanted else None,
    )
    gap_age = _age(read, read.oldest_open_gap_at)
    reference = reference_from(read.reference, read.read_at)
    reasons = []
    if not read.recorder_runs:
        reasons.append("no recorder runs")
    if not read.loader_runs:
        reasons.append("no loader runs")
    reasons += freshness_reasons(sources, tables, start)
    if gap_age is not None and gap_age > GAP_SECONDS:
        reasons.append(f"a gap has been open for {gap_age:.0f} s")
    reasons += reference_reasons(reference)
    reasons += book_reasons(books, recorder_runs=read.recorder_runs)
    reasons += alert_reasons(read.alerts, read.read_at)
    is_stale = any(source.late for source in sources) or any(table.late for table in tables)
    backlog = _by_channel(metrics, TAPE_BACKLOG).get(None)
    return Status(
        status="stale" if is_stale else "degraded" if reasons else "ok",
        reasons=reasons,
        simulated=simulated,
        database="ok",
        read_at=read.read_at,
        recorder_runs=read.recorder_runs,
        loader_runs=read.loader_runs,
        sources=sources,
        tables=tables,
        open_gaps=sum(read.open_gaps.values()),
        open_gaps_by_channel=read.open_gaps,
        oldest_open_gap_age=gap_age,
        rejected_today=read.rejected_today,
        stale_candles=read.stale_candles.minutes,
        oldest_stale_candle_age=candle_age,
        tape_backlog_bytes=None if backlog is None else int(backlog),
        tape_backlog_seconds=_by_channel(metrics, BACKLOG_SECONDS).get(None),
        rest_budget_tokens=_tokens_left(read),
        checkpoints=read.checkpoints,
        metrics=metrics,
        reference=reference,
        books=books,
    )


def _is_of_now(metric: Metric, read: _Read) -> bool:
    """Whether a figure still says something; counters always do."""
    if metric.name not in _FLEETING:
        return True
    age = (read.read_at - metric.updated_at).total_seconds()
    return read.loader_runs and age <= _OF_NOW_SECONDS


def _tokens_left(read: _Read) -> float | None:
    """What the bucket holds now, refilled since its last call; None where nobody ever asked."""
    rate = _by_channel(read.metrics, BUDGET_RATE).get(None)
    capacity = _by_channel(read.metrics, BUDGET_CAPACITY).get(None)
    if read.budget is None or rate is None or capacity is None:
        return None
    passed = max(0.0, (read.read_at - read.budget.updated_at).total_seconds())
    return round(min(capacity, read.budget.tokens + passed * rate), 1)


def _age(read: _Read, instant: datetime | None) -> float | None:
    return None if instant is None else (read.read_at - instant).total_seconds()


def _sources(read: _Read, start: Start) -> list[Source]:
    messages = _by_channel(read.metrics, MESSAGES)
    last = _by_channel(read.metrics, LAST_RECEIVED)
    received_lag = _by_channel(read.metrics, RECEIVED_LAG)
    loaded_lag = _by_channel(read.metrics, LOADED_LAG)
    sources = []
    for channel in sorted({*messages, *last, *SILENCE_SECONDS} - {None}, key=str):
        assert channel is not None
        age = lag = None
        if channel in last:
            age = max(0.0, round(read.read_at.timestamp() - last[channel], 3))
        if channel in received_lag and channel in loaded_lag:
            lag = round(received_lag[channel] + loaded_lag[channel], 3)
        sources.append(source_of(channel, age, start, messages=messages.get(channel), lag=lag))
    return sources


def _by_channel(metrics: list[Metric], name: str) -> dict[str | None, float]:
    """Values of one metric by its channel label; None for the row without labels."""
    return {
        metric.labels.removeprefix('channel="').removesuffix('"') or None: metric.value
        for metric in metrics
        if metric.name == name
    }
