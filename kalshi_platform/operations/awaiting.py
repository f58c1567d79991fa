"""What `up` waits for before it says that all runs: answers, and data that flows."""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import psycopg

from kalshi_platform.operations.errors import Refusal
from kalshi_platform.operations.simulator import HOST
from kalshi_platform.operations.supervisor import Supervisor
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.activity import busiest_market

_FLOW_SECONDS = 180
_BUSY_SECONDS = 6
_BUSY_WINDOW = timedelta(minutes=5)


def wait_for_web(
    supervisor: Supervisor, url: str, service: str, seconds: float = _FLOW_SECONDS
) -> None:
    """Wait until a service answers at all; what it answers is its own affair."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            httpx.get(url, timeout=2)
        except httpx.TransportError as error:
            if time.monotonic() > deadline:
                raise Refusal(
                    f"{service} does not answer at {url} after {seconds:g} s ({error}): "
                    f"its log {supervisor.log_path(service)} says why."
                ) from error
        else:
            return
        supervisor.wait(0.2)


def wait_for_flow(
    settings: Settings, supervisor: Supervisor, key: str, say: Callable[[str], None]
) -> str | None:
    """Wait until the API serves a candle of the current minute; returns its market.

    The first trades say little about which market is busy, so a few seconds of them are awaited.
    A quiet exchange is no failure: after a while this says so and returns None or the market.
    """
    deadline = time.monotonic() + _FLOW_SECONDS
    first_seen_at: float | None = None
    ticker: str | None = None
    while time.monotonic() < deadline:
        # A database that went away is watched elsewhere; this only waits for it.
        with (
            contextlib.suppress(psycopg.OperationalError),
            connect(settings.url) as connection,
        ):
            ticker = busiest_market(connection, datetime.now(UTC) - _BUSY_WINDOW)
        if ticker is not None:
            first_seen_at = first_seen_at or time.monotonic()
            watched = time.monotonic() - first_seen_at > _BUSY_SECONDS
            if watched and _serves_this_minute(settings, key, ticker):
                return ticker
        supervisor.wait(0.5)
    missing = (
        "no trade was recorded" if ticker is None else f"{ticker} has no candle of this minute"
    )
    say(f"After {_FLOW_SECONDS} s {missing}; `kalshi-platform status` shows what each part does.")
    return ticker


def _serves_this_minute(settings: Settings, key: str, ticker: str) -> bool:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    try:
        answer = httpx.get(
            f"http://{HOST}:{settings.api_port}/candles/{ticker}",
            params={"interval": "1m", "start_time": (now - timedelta(minutes=5)).isoformat()},
            headers={"Authorization": f"Bearer {key}"},
            timeout=5,
        )
    except httpx.TransportError:
        return False
    if answer.status_code != 200:
        return False
    return any(datetime.fromisoformat(candle["bucket"]) >= now for candle in answer.json()["data"])
