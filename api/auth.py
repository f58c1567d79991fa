"""Routes that need a key: who asks, how fast, whether the credits suffice; the charge.

In this order: the key is looked up, the request is counted against its rate, and a key known to be
out of credits is turned away; then the answer is made; and before its first byte leaves, a 2xx is
charged. If that is refused or cannot be written, the answer is a 402 or 503 instead.
"""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.types import Message, Receive, Scope, Send

from api.costs import COSTS
from api.errors import CreditsSpent
from api.keys import Keys, Known, key_of
from api.limits import Allowance, Limits, refusal
from api.metering import Meter

# For the documentation alone: either header opens every keyed route.
SECURITY = [
    Security(HTTPBearer(auto_error=False, description="A key from `kalshi-platform keys create`.")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False)),
]

# What every answer to a valid key carries, as the documentation has it.
HEADERS = {
    "X-Credits-Cost": "Credits charged for this answer; 0 for what is no 2xx.",
    "X-Credits-Remaining": "Credits left: of the month's and of granted ones.",
    "RateLimit-Limit": "Requests that may be asked at once.",
    "RateLimit-Remaining": "Of these, how many are left now.",
    "RateLimit-Reset": "Seconds until all of them may be asked again.",
}


class KeyedRoute(APIRoute):
    """A route that asks for the key before it looks at anything else of the request."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        [method] = options["methods"]
        self._name = f"{method} {path}"
        if self._name not in COSTS:
            raise LookupError(f"{self._name} has no cost: add it to api/costs.py")
        self._cost = COSTS[self._name]
        options["responses"] = _with_headers(options.get("responses") or {}, self._cost)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def with_key(request: Request) -> Response:
            state = request.app.state
            keys: Keys = state.keys
            limits: Limits = state.limits
            known = await keys.check(key_of(request))
            request.state.key_id = known.key_id
            told = request.state.told = _Told(known)
            told.allowance = limits.take(known.key_id, known.requests_per_second)
            if told.allowance.retry_after is not None:
                raise refusal(told.allowance, known.requests_per_second)
            if self._cost and known.credits_left < self._cost:
                raise _spent(known, self._cost)
            response = await answer(request)
            if self._cost and 200 <= response.status_code < 300:
                await self._charge(state.meter, told)
            return response

        return with_key

    async def _charge(self, meter: Meter, told: "_Told") -> None:
        known = told.known
        verdict = await meter.charge(known.key_id, self._name, self._cost)
        if verdict.left is not None:
            known.credits_left = verdict.left
        elif verdict.charged:
            known.credits_left -= self._cost
        if not verdict.charged:
            raise _spent(known, self._cost)
        told.cost = self._cost

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                told: _Told | None = scope["state"].get("told")
                if told is not None:  # else no valid key was sent
                    message["headers"] = [*message["headers"], *told.headers()]
            await send(message)

        await super().handle(scope, receive, send_with_headers)


class _Told:
    """What the headers of one answer say."""

    __slots__ = ("allowance", "cost", "known")

    def __init__(self, known: Known) -> None:
        self.known = known
        self.cost = 0
        self.allowance: Allowance | None = None

    def headers(self) -> list[tuple[bytes, bytes]]:
        allowance = self.allowance
        assert allowance is not None, "counted as soon as the key is known"
        return [
            (b"cache-control", b"no-store"),  # made and charged for one key: for no shared cache
            (b"x-credits-cost", b"%d" % self.cost),
            (b"x-credits-remaining", b"%d" % max(0, self.known.credits_left)),
            (b"ratelimit-limit", b"%d" % allowance.burst),
            (b"ratelimit-remaining", b"%d" % allowance.remaining),
            (b"ratelimit-reset", b"%d" % allowance.reset),
        ]


def _spent(known: Known, cost: int) -> CreditsSpent:
    now = datetime.now(UTC)
    next_month = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return CreditsSpent(
        f"This costs {cost} credits and the key has {max(0, known.credits_left)} left; new ones"
        f" come on {next_month:%Y-%m-%d} (UTC), or by a grant. GET /account shows their use.",
    )


def _with_headers(responses: dict[int | str, Any], cost: int) -> dict[int | str, Any]:
    """The documented responses of a route, each with the headers it has."""
    headers = {
        name: {"description": text, "schema": {"type": "integer", "minimum": 0}}
        for name, text in HEADERS.items()
    }
    headers["X-Credits-Cost"]["description"] = f"Credits charged: {cost} for a 2xx, else 0."
    retry = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    documented: dict[int | str, Any] = {200: {}}
    for status, response in (documented | responses).items():
        own = dict(response.get("headers", {}))
        if status not in (401, 503):
            own |= headers
        if status in (429, 503):
            own |= retry
        documented[status] = {**response, "headers": own} if own else response
    return documented
