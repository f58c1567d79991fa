"""GET /health and GET /metrics: for operators and their tools, without a key."""

import asyncio

import msgspec
import psycopg
from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import generate_latest

from api.database import DatabaseUnavailable, ReadDatabase, SchemaMissing, StatementTooSlow
from api.exposition import text_of
from api.telemetry import RequestMetrics
from kalshi_platform.storage.reads.status import STATUS, Status, status_from, unreachable

router = APIRouter(tags=["operations"])

_SERVING = ("ok", "degraded")
# Longer than a statement and a connection may take: beyond, nothing comes back from the server.
_ANSWER_SECONDS = 2.5
_TOO_SLOW = "the database takes too long to say how all is"
_NO_SCHEMA = "the database has no tables of this release: run `kalshi-platform migrate`"


@router.get(
    "/health",
    summary="How the platform is",
    response_description="`ok`, or `degraded` with the reasons.",
    responses={
        503: {
            "description": "`stale`: a source or a table is older than its limit; data is served "
            "all the same. `down`: the database does not answer."
        }
    },
)
async def health(request: Request) -> Response:
    """How old each source and each table is, beside its limit; open gaps, rejected messages, and
    whether the data is simulated. 200 while all that has a limit keeps it, 503 beyond; what has
    just been started is `degraded` until its first messages come."""
    status = await _read(request)
    body = {
        field: getattr(status, field) for field in status.__struct_fields__ if field != "metrics"
    }
    return Response(
        msgspec.json.encode(body),
        200 if status.status in _SERVING else 503,
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
    return Response(
        text_of(status).encode() + generate_latest(own.registry),
        media_type="text/plain; version=0.0.4; charset=utf-8",
    )


async def _read(request: Request) -> Status:
    """The status; who asks while it is being read shares the answer.

    Many may ask at once, all the more when something is wrong: they must not wait for each other,
    nor cost more than one.
    """
    state = request.app.state
    reading: asyncio.Task[Status] | None = getattr(state, "reading_status", None)
    if reading is None or reading.done():
        reading = asyncio.create_task(_read_anew(request.app))
        state.reading_status = reading
    # Neither a caller that goes away nor one that has waited for long enough takes the answer from
    # the others; a server that is frozen is asked no second time.
    await asyncio.wait({reading}, timeout=_ANSWER_SECONDS)
    if not reading.done():
        return unreachable(simulated=request.app.state.simulated, reason=_TOO_SLOW)
    return reading.result()


async def _read_anew(app: FastAPI) -> Status:
    simulated: bool = app.state.simulated
    database: ReadDatabase = app.state.status_database
    try:
        row = await database.row(STATUS)
    except (SchemaMissing, psycopg.errors.UndefinedFunction):
        return unreachable(simulated=simulated, reason=_NO_SCHEMA)
    except StatementTooSlow:
        return unreachable(simulated=simulated, reason=_TOO_SLOW)
    except DatabaseUnavailable:
        return unreachable(simulated=simulated)
    assert row is not None and row[0] is not None, "a query of one expression answers one row"
    return status_from(row[0], simulated=simulated)
