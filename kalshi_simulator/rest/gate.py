"""What stands before every route: faults on command, signatures, and the rate limit."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kalshi_simulator.rest.answers import Problem, json_response
from kalshi_simulator.rest.context import Context
from kalshi_simulator.signing import KEY_HEADER, Gatekeeper, Refused

REQUEST_COST = 10
BUCKET_SECONDS = 3
_ANONYMOUS = ""
_API = "/trade-api/v2"
_PAGES = {
    f"{_API}{tier}{what}"
    for tier, what in (
        ("", "/markets"), ("/historical", "/markets"),
        ("/markets", "/trades"), ("/historical", "/trades"),
    )
}  # fmt: skip


@dataclass
class Bucket:
    """A token bucket that refills without steps."""

    rate: float
    tokens: float
    filled_at: float
    asked: deque[tuple[float, int]] = field(default_factory=deque)
    asked_tokens: int = 0

    def ask(self, cost: int) -> int:
        """Note a request; tokens asked for within the second that ends now."""
        now = time.monotonic()
        self.asked.append((now, cost))
        self.asked_tokens += cost
        while self.asked[0][0] <= now - 1:
            self.asked_tokens -= self.asked.popleft()[1]
        return self.asked_tokens

    def take(self, cost: float) -> bool:
        """Take tokens if enough are there."""
        now = time.monotonic()
        self.tokens = min(
            self.rate * BUCKET_SECONDS, self.tokens + (now - self.filled_at) * self.rate
        )
        self.filled_at = now
        if self.tokens < cost:
            return False
        self.tokens -= cost
        return True


class Gate:
    """ASGI middleware in front of the public routes; /control passes freely."""

    def __init__(self, app: ASGIApp, context: Context, read_tokens_per_second: int) -> None:
        self.app = app
        self.context = context
        self.rate = read_tokens_per_second
        self._buckets: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/control/"):
            await self.app(scope, receive, send)
            return
        slow = self.context.faults.standing("slow_rest")
        if slow is not None:
            self.context.faults.use("slow_rest")
            await asyncio.sleep(slow.ms / 1_000)
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if scope["path"] in _PAGES and (moving := self.context.faults.page_asked()) is not None:
            # This page is still answered by the old cutoff: the caller learns of it too late.
            await self.app(scope, receive, send)
            self.context.exchange.move_cutoff(moving.to)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        counters, faults = self.context.counters, self.context.faults
        counters.requests += 1
        path = scope["path"]
        for status in (500, 503, 504):
            if faults.use(f"rest_{status}"):
                counters.failed += 1
                if path.endswith("/exchange/status"):
                    return json_response(closed_status(), status)
                return Problem(status, "internal_server_error", "internal server error").response()
        if faults.use("rest_401"):
            counters.failed += 1
            return Problem(401, "unauthorized", "unauthorized", "refused on command").response()
        try:
            caller = caller_of(self.context.gatekeeper, Headers(scope=scope), scope)
        except Refused as refused:
            return Problem(401, refused.code, "unauthorized", refused.details).response()
        bucket = self._buckets.get(caller)
        if bucket is None:
            full = float(self.rate * BUCKET_SECONDS)
            bucket = self._buckets[caller] = Bucket(self.rate, full, time.monotonic())
        most = bucket.ask(REQUEST_COST)
        counters.tokens_most_a_second = max(counters.tokens_most_a_second, most)
        is_commanded = faults.use("rest_429") is not None
        if is_commanded or not bucket.take(REQUEST_COST):
            counters.limited += 1
            counters.over_budget += not is_commanded
            return json_response({"error": "too many requests"}, 429)
        return None


def caller_of(gatekeeper: Gatekeeper, headers: Headers, scope: Scope) -> str:
    """The key id of a signed request, "" of an anonymous one; Refused when wrongly signed."""
    if KEY_HEADER not in headers:
        return _ANONYMOUS
    return gatekeeper.check(headers, scope["method"], scope["path"])


def closed_status() -> dict[str, object]:
    """The body of /exchange/status while the exchange is down."""
    return {
        "exchange_active": False,
        "trading_active": False,
        "intra_exchange_transfers_active": False,
    }
