"""The platform's figures as Prometheus text: which there are, what each means, how it is told.

Counters of the ingesting processes are kept in the database, so they go on over restarts; those of
this API (`api_*`) begin anew with its process, as Prometheus expects of any.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kalshi_platform.storage.reads.reference_status import Reference
from kalshi_platform.storage.reads.status import Metric, Status

# Written with a channel alone, as the stream brings them.
_STREAM = 'source="ws"'


class Family(NamedTuple):
    """One metric: its name in the text, its type, what it is."""

    name: str
    kind: str
    help: str


class Sample(NamedTuple):
    """One line; `labels` as in the text, without braces."""

    name: str
    labels: str
    value: float


def _counter(name: str, text: str) -> Family:
    return Family(name, "counter", text)


def _gauge(name: str, text: str) -> Family:
    return Family(name, "gauge", text)


# By the name in `ingestion_metrics`.
STORED: Mapping[str, Family] = {
    "messages_total": _counter("ingestion_messages_total", "Messages loaded, by channel."),
    "message_bytes_total": _counter(
        "ingestion_message_bytes_total", "Bytes of frames as received, by channel."
    ),
    "bytes_total": _counter(
        "ingestion_tape_read_bytes_total", "Bytes of tape lines loaded, uncompressed."
    ),
    "events_ingested_total": _counter(
        "ingestion_events_ingested_total", "Trades that REST reported, by source."
    ),
    "trades_added_total": _counter(
        "ingestion_trades_added_total", "Trades that were new, by the source that told first."
    ),
    "rejected_total": _counter(
        "ingestion_rejected_total", "Messages that could not be read, by source and channel."
    ),
    "repeated_total": _counter(
        "ingestion_repeated_total", "Messages told twice and left out, by channel."
    ),
    "overtaken_total": _counter(
        "ingestion_overtaken_total", "Messages that came too late to count, by channel."
    ),
    "batches_total": _counter("ingestion_batches_total", "Transactions of the loader."),
    "gaps_detected_total": _counter(
        "ingestion_gaps_detected_total", "Intervals in which something may be lost, by channel."
    ),
    "gaps_healed_total": _counter("ingestion_gaps_healed_total", "Gaps closed over REST."),
    "healing_failures_total": _counter(
        "ingestion_healing_failures_total", "Attempts to heal that failed by a fault of ours."
    ),
    "last_received_at_seconds": _gauge(
        "ingestion_last_received_timestamp_seconds", "Unix time of the last message, by channel."
    ),
    "received_lag_seconds": _gauge(
        "ingestion_received_lag_seconds", "Sent by the exchange to received, last message."
    ),
    "received_lag_max_seconds": _gauge(
        "ingestion_received_lag_max_seconds",
        "Sent to received, most of a minute; of each batch its last message counts.",
    ),
    "loaded_lag_seconds": _gauge(
        "ingestion_loaded_lag_seconds", "Received to committed and so queryable, last message."
    ),
    "loaded_lag_max_seconds": _gauge(
        "ingestion_loaded_lag_max_seconds",
        "Received to queryable, most of a minute; of each batch its first frame counts.",
    ),
    "tape_backlog_bytes": _gauge(
        "ingestion_tape_backlog_bytes", "Compressed bytes on the tape that are not loaded yet."
    ),
    "tape_backlog_seconds": _gauge(
        "ingestion_tape_backlog_seconds", "How far the tables are behind the tape; 0: not at all."
    ),
    "loader_seen_at_seconds": _gauge(
        "ingestion_loader_seen_timestamp_seconds", "Unix time at which the loader last told."
    ),
    "started_at_seconds": _gauge(
        "ingestion_started_timestamp_seconds", "Unix time of the last start, by part."
    ),
    "rest_requests_total": _counter(
        "rest_requests_total", "REST calls, by endpoint and outcome (a status, or unreachable)."
    ),
    "rest_retries_total": _counter("rest_retries_total", "REST calls repeated, by endpoint."),
    "rest_budget_tokens_per_second": _gauge(
        "rest_budget_tokens_per_second", "Tokens that flow into the REST budget."
    ),
    "rest_budget_capacity_tokens": _gauge(
        "rest_budget_capacity_tokens", "Tokens that the REST budget holds at most."
    ),
    "reference_failures_total": _counter(
        "reference_failures_total", "Rounds of the sync of markets that failed."
    ),
    "reference_rejected_total": _counter(
        "reference_rejected_total", "Markets, events and series that could not be read."
    ),
    "books_wanted": _gauge("books_wanted", "Order books that are to be watched."),
    "books_watched": _gauge("books_watched", "Of those, the ones known now."),
    "books_refused": _gauge("books_refused", "Of those, the ones that cannot be had."),
    "book_choice_failures_total": _counter(
        "book_choice_failures_total", "Times that the books could not be chosen afresh."
    ),
    "book_snapshot_failures_total": _counter(
        "book_snapshot_failures_total", "Rounds of own snapshots that failed."
    ),
    "own_snapshots_total": _counter("own_snapshots_total", "Snapshots of books rebuilt by us."),
    "books_below_zero_total": _counter(
        "books_below_zero_total", "Books whose deltas did not fit: their watch ended."
    ),
    "books_differ_total": _counter(
        "books_differ_total",
        "Snapshots that the deltas before them do not make: the watch began anew.",
    ),
}
# Kept as counts of single buckets, by their upper bound, beside their sum.
HISTOGRAMS: Mapping[str, str] = {
    "batch_rows": "Rows of one transaction of the loader.",
    "batch_seconds": "Time to write and commit one transaction of the loader.",
}
# Worked out when they are asked for.
COMPUTED: tuple[Family, ...] = (
    _gauge("platform_up", "Whether the database answers."),
    _gauge("platform_ok", "Whether nothing is wrong: /health names what is."),
    _gauge("platform_stale", "Whether a source or table is older than its limit."),
    _gauge("platform_simulated", "Whether the recorded exchange is made up."),
    _gauge("ingestion_recorder_runs", "Whether a recorder is at work."),
    _gauge("ingestion_loader_runs", "Whether a loader is at work."),
    _gauge("ingestion_last_message_age_seconds", "Since the last message, by channel."),
    _gauge("ingestion_last_message_limit_seconds", "Age beyond which a channel is stale."),
    _gauge("table_age_seconds", "Age of the newest rows; of candles_1m, of what it lacks."),
    _gauge("table_age_limit_seconds", "Age beyond which a table is stale."),
    _gauge("ingestion_open_gaps", "Gaps that wait to be healed, of all channels."),
    _gauge("ingestion_channel_open_gaps", "Gaps that wait to be healed, by channel."),
    _gauge("ingestion_oldest_open_gap_seconds", "Since the oldest open gap was noticed."),
    _gauge("ingestion_rejected_today", "Messages of today (UTC) that could not be read."),
    _gauge("candles_stale_minutes", "Minutes of markets whose candle is to be recomputed."),
    _gauge("candles_oldest_stale_seconds", "Since when the oldest of them has been out of date."),
    _gauge("rest_budget_tokens", "Tokens left for REST calls; below 0: calls wait for theirs."),
    _counter("rest_rate_limited_total", "REST calls that the exchange answered with 429."),
    _gauge("reference_sync_runs", "Whether a sync of markets is at work."),
    _gauge("reference_refresh_age_seconds", "Since all changes of markets were asked for."),
    _gauge("reference_census_complete", "Whether every market has been asked for once."),
    _gauge("reference_due", "Markets, events and series to be asked for now."),
    _gauge("reference_rejected_today", "Answers about markets that could not be read today."),
    _gauge("reference_markets_not_found", "Markets that REST does not know."),
    _gauge("reference_events_not_found", "Events that REST does not know."),
    _gauge("reference_series_not_found", "Series that REST does not know."),
    _gauge("outcomes_pending", "Markets past their close without an outcome."),
    _gauge("outcomes_oldest_pending_seconds", "Since the first of them closed."),
    _gauge("outcomes_unconfirmed", "Outcomes that REST has not confirmed."),
    _gauge("outcomes_oldest_unconfirmed_seconds", "Since the first of them was told."),
)
_BUCKET = re.compile(r'le="([^"]+)"')


def text_of(status: Status) -> str:
    """Everything that the status knows, family by family."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    for sample in [*_stored(status.metrics), *_computed(status)]:
        samples[sample.name].append(sample)
    families = [*dict.fromkeys(STORED.values()), *COMPUTED]
    lines = [
        line
        for family in families
        if samples[family.name]
        for line in (*_head(family), *map(_line, samples[family.name]))
    ]
    for name, help_text in HISTOGRAMS.items():
        lines += _histogram(name, help_text, status.metrics)
    return "\n".join(lines) + "\n"


def _head(family: Family) -> tuple[str, str]:
    return f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"


def _line(sample: Sample) -> str:
    labels = f"{{{sample.labels}}}" if sample.labels else ""
    return f"{sample.name}{labels} {sample.value!r}"


def _stored(metrics: Iterable[Metric]) -> list[Sample]:
    samples = []
    for metric in metrics:
        family = STORED.get(metric.name)
        if family is None:
            continue
        labels = metric.labels
        if labels.startswith('channel="') and "source=" not in labels:
            labels = f"{_STREAM},{labels}"
        samples.append(Sample(family.name, labels, metric.value))
    return samples


def _histogram(name: str, help_text: str, metrics: Iterable[Metric]) -> list[str]:
    """The stored counts of single buckets, added up from the smallest bound."""
    counts: dict[float, tuple[str, float]] = {}
    total = None
    for metric in metrics:
        if metric.name == f"{name}_sum":
            total = metric.value
        elif metric.name == f"{name}_bucket" and (bound := _BUCKET.fullmatch(metric.labels)):
            counts[float(bound[1])] = (bound[1], metric.value)
    if total is None or not counts:
        return []
    exported = f"ingestion_{name}"
    lines = list(_head(Family(exported, "histogram", help_text)))
    reached = 0.0
    for bound_number in sorted(counts):
        label, count = counts[bound_number]
        reached += count
        lines.append(f'{exported}_bucket{{le="{label}"}} {reached!r}')
    return [*lines, f"{exported}_sum {total!r}", f"{exported}_count {reached!r}"]


def _computed(status: Status) -> list[Sample]:
    figures = {
        "platform_up": status.database == "ok",
        "platform_ok": status.status == "ok",
        "platform_stale": None if status.database != "ok" else status.status == "stale",
        "platform_simulated": status.simulated,
        "ingestion_recorder_runs": status.recorder_runs,
        "ingestion_loader_runs": status.loader_runs,
        "ingestion_open_gaps": status.open_gaps,
        "ingestion_oldest_open_gap_seconds": status.oldest_open_gap_age,
        "ingestion_rejected_today": status.rejected_today,
        "candles_stale_minutes": status.stale_candles,
        "candles_oldest_stale_seconds": status.oldest_stale_candle_age,
        "rest_budget_tokens": status.rest_budget_tokens,
        "rest_rate_limited_total": _rate_limited(status.metrics),
        **_of_reference(status.reference),
    }
    # No value is no line: a figure that is not known must not look like a zero.
    samples = [Sample(name, "", float(value)) for name, value in figures.items()
               if value is not None]  # fmt: skip
    open_gaps = dict.fromkeys((source.channel for source in status.sources), 0)
    for channel, count in sorted((open_gaps | status.open_gaps_by_channel).items()):
        samples.append(Sample("ingestion_channel_open_gaps", f'channel="{channel}"', float(count)))
    for source in status.sources:
        label = f'channel="{source.channel}"'
        if source.last_message_age is not None:
            age = source.last_message_age
            samples.append(Sample("ingestion_last_message_age_seconds", label, age))
        if source.limit is not None:
            samples.append(Sample("ingestion_last_message_limit_seconds", label, source.limit))
    for table in status.tables:
        label = f'table="{table.table}"'
        if table.age_seconds is not None:
            samples.append(Sample("table_age_seconds", label, table.age_seconds))
        if table.limit_seconds is not None:
            samples.append(Sample("table_age_limit_seconds", label, table.limit_seconds))
    return samples


def _rate_limited(metrics: Iterable[Metric]) -> float | None:
    requests = [metric for metric in metrics if metric.name == "rest_requests_total"]
    if not requests:
        return None
    return sum(metric.value for metric in requests if 'outcome="429"' in metric.labels)


def _of_reference(reference: Reference | None) -> dict[str, float | None]:
    """Of markets and outcomes; nothing while the database does not answer."""
    if reference is None:
        return {}
    return {
        "reference_sync_runs": reference.runs,
        "reference_refresh_age_seconds": reference.refresh_age,
        "reference_census_complete": reference.census == "complete",
        "reference_due": reference.due,
        "reference_rejected_today": reference.rejected_today,
        "reference_markets_not_found": reference.markets_not_found,
        "reference_events_not_found": reference.events_not_found,
        "reference_series_not_found": reference.series_not_found,
        "outcomes_pending": reference.pending_outcomes,
        "outcomes_oldest_pending_seconds": reference.oldest_pending_age,
        "outcomes_unconfirmed": reference.unconfirmed_outcomes,
        "outcomes_oldest_unconfirmed_seconds": reference.oldest_unconfirmed_age,
    }
