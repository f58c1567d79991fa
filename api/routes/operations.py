"""GET /health and GET /metrics: for operators and their tools, without a key."""

from typing import NamedTuple

import msgspec
from fastapi import APIRouter, Request, Response
from prometheus_client import generate_latest

from api.database import DatabaseUnavailable, ReadDatabase, SchemaMissing, StatementTooSlow
from api.telemetry import RequestMetrics
from kalshi_platform.storage.reads.reference_status import Reference
from kalshi_platform.storage.reads.status import STATUS, Status, status_from, unreachable

router = APIRouter(tags=["operations"])

_AGE = "ingestion_last_message_age_seconds"


class _Line(NamedTuple):
    name: str
    labels: str  # as in Prometheus text
    value: float


@router.get(
    "/health",
    summary="How the platform is",
    response_description="`ok`, or `degraded` with the reasons; data is served in both.",
    responses={503: {"description": "`down`: the database does not answer."}},
)
async def health(request: Request) -> Response:
    """Freshness per source with its limit, open gaps, rejected messages, and whether the data is
    simulated. 200 while data can be served, however old; 503 when it cannot."""
    status = await _read(request)
    body = {
        field: getattr(status, field) for field in status.__struct_fields__ if field != "metrics"
    }
    return Response(
        msgspec.json.encode(body),
        503 if status.status == "down" else 200,
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Counters and gauges of the ingesting processes and of this API, as Prometheus text."""
    status = await _read(request)
    own: RequestMetrics = request.app.state.metrics
    text = _as_prometheus(
        _of_status(status)
        + [_Line(metric.name, metric.labels, metric.value) for metric in status.metrics]
    )
    return Response(
        text.encode() + generate_latest(own.registry),
        media_type="text/plain; version=0.0.4; charset=utf-8",
    )


async def _read(request: Request) -> Status:
    simulated: bool = request.app.state.simulated
    database: ReadDatabase = request.app.state.status_database
    try:
        row = await database.row(STATUS)
    except SchemaMissing:
        return Status(
            "down",
            ["the database has no tables of this release: run `kalshi-platform migrate`"],
            simulated,
            "unreachable",
        )
    except (DatabaseUnavailable, StatementTooSlow):
        return unreachable(simulated=simulated)
    assert row is not None and row[0] is not None, "a query of one expression answers one row"
    return status_from(row[0], simulated=simulated)


def _of_status(status: Status) -> list[_Line]:
    figures = {
        "platform_up": status.database == "ok",
        "platform_ok": status.status == "ok",
        "platform_simulated": status.simulated,
        "ingestion_recorder_runs": status.recorder_runs,
        "ingestion_loader_runs": status.loader_runs,
        "ingestion_open_gaps": status.open_gaps,
        "ingestion_oldest_open_gap_seconds": status.oldest_open_gap_age,
        "ingestion_rejected_today": status.rejected_today,
        "candles_stale_minutes": status.stale_candles,
        "candles_oldest_stale_seconds": status.oldest_stale_candle_age,
        **_of_reference(status.reference),
    }
    # No value is no line: a figure that is not known must not look like a zero.
    lines = [_Line(name, "", float(value)) for name, value in figures.items() if value is not None]
    ages = [
        _Line(_AGE, f'channel="{source.channel}"', source.last_message_age)
        for source in status.sources
        if source.last_message_age is not None
    ]
    return lines + ages


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


def _as_prometheus(metrics: list[_Line]) -> str:
    lines = []
    named = ""
    for metric in metrics:
        if metric.name != named:
            named = metric.name
            kind = "counter" if named.endswith("_total") else "gauge"
            lines.append(f"# TYPE {named} {kind}")
        labels = f"{{{metric.labels}}}" if metric.labels else ""
        lines.append(f"{metric.name}{labels} {metric.value!r}")
    return "\n".join(lines) + "\n"
