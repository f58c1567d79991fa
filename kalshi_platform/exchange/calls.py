"""Calls: one GET at a time, signed, within the budget, patient with what passes.

Every call waits for its share of the budget, is signed afresh, and is repeated on 429, 5xx, broken
connections and timeouts with growing pauses, up to a total time. What will not pass is raised at
once (see `errors`).
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

import httpx

from kalshi_platform.exchange.budget import Budget
from kalshi_platform.exchange.errors import (
    BadRequest,
    RateLimited,
    Unavailable,
    Unreachable,
    from_response,
)
from kalshi_platform.exchange.signing import Signer

Parameters = Mapping[str, str | int | None]

TOKENS_A_CALL = 10
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 15.0


class Interrupted(Exception):
    """The stop event was set while a call waited."""


class Count(NamedTuple):
    """One counter: calls to an endpoint that ended in `outcome` (a status, or unreachable)."""

    endpoint: str
    outcome: str


class Calls:
    """Calls to one exchange; threads may share it.

    Args:
        base_url: up to and with the version, as `https://…/trade-api/v2`.
        signer: None asks without a key, which market data allows at an unpublished rate.
        budget: asked before each call.
        stop: ends every wait early, with `Interrupted`.
        timeout_seconds: for the answer to one call.
        retry_seconds: how long one call is repeated, pauses included, before its error is raised.
        dice: a number in [0, 1) for the jitter of the pauses.
    """

    def __init__(
        self,
        base_url: str,
        signer: Signer | None,
        budget: Budget,
        *,
        stop: threading.Event | None = None,
        timeout_seconds: float = 15.0,
        retry_seconds: float = 60.0,
        dice: Callable[[], float] = random.random,
    ) -> None:
        url = httpx.URL(base_url.rstrip("/"))
        if url.scheme not in ("http", "https") or not url.host:
            raise BadRequest(f"KALSHI_REST_URL {base_url!r} is no http or https address.")
        self._client = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(timeout_seconds, connect=5.0),
            headers={"Accept": "application/json"},
        )
        self._signer = signer
        self._budget = budget
        self._stop = stop or threading.Event()
        self._retry_seconds = retry_seconds
        self._dice = dice
        self._lock = threading.Lock()
        self._requests: Counter[Count] = Counter()
        self._retries: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connections."""
        self._client.close()

    def drain_counts(self) -> tuple[Counter[Count], Counter[str]]:
        """Requests by endpoint and outcome, retries by endpoint, since the last call of this."""
        with self._lock:
            counts = self._requests, self._retries
            self._requests, self._retries = Counter(), Counter()
        return counts

    def get(
        self,
        path: str,
        parameters: Parameters | None = None,
        *,
        endpoint: str | None = None,
        retry_seconds: float | None = None,
    ) -> bytes:
        """The body of the answer to GET `path`.

        Args:
            path: below the base URL; parts that vary are quoted already.
            parameters: of the query; None leaves one out.
            endpoint: the path's name in the counters, where parts of it vary.
            retry_seconds: instead of the client's.

        Raises:
            ExchangeError: any of its kinds.
            Interrupted: the stop event was set.
        """
        endpoint = endpoint or path
        allowed = self._retry_seconds if retry_seconds is None else retry_seconds
        give_up_at = time.monotonic() + allowed
        pause = _FIRST_PAUSE_SECONDS
        while True:
            self._await_turn()
            try:
                return self._once(path, parameters or {}, endpoint)
            except (RateLimited, Unavailable, Unreachable) as error:
                told = getattr(error, "retry_after_seconds", None)
                # Half of it is left to chance, so that clients refused together return apart.
                wait = max(pause * (0.5 + self._dice() / 2), told or 0.0)
                if time.monotonic() + wait >= give_up_at:
                    raise
            with self._lock:
                self._retries[endpoint] += 1
            self._wait(wait)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _once(self, path: str, parameters: Parameters, endpoint: str) -> bytes:
        sent = {name: value for name, value in parameters.items() if value is not None}
        request = self._client.build_request("GET", path, params=sent)
        if self._signer is not None:
            signed_path = request.url.raw_path.decode("ascii")
            request.headers.update(self._signer.headers("GET", signed_path))
        try:
            response = self._client.send(request)
        except (httpx.TransportError, httpx.DecodingError) as error:
            self._count(endpoint, "unreachable")
            raise Unreachable(
                f"No answer from {request.url.host} ({type(error).__name__}: {error})."
            ) from error
        self._count(endpoint, str(response.status_code))
        if response.status_code == 200:
            return response.content
        raise from_response(
            response.status_code,
            response.content,
            date=response.headers.get("Date"),
            retry_after=response.headers.get("Retry-After"),
        )

    def _await_turn(self) -> None:
        granted = False
        while not granted:
            seconds, granted = self._budget.reserve(TOKENS_A_CALL)
            self._wait(seconds)

    def _count(self, endpoint: str, outcome: str) -> None:
        with self._lock:
            self._requests[Count(endpoint, outcome)] += 1

    def _wait(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Interrupted("asked to stop")
