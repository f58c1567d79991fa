"""Around every request: its id, its time, a log line, two metrics, a net for the unforeseen."""

import asyncio
import re
import time
import uuid

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import ProblemError, problem_response

_log = structlog.get_logger(__name__)
_CALLERS_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# As servers write it in their logs: the client hung up before there was an answer.
_GONE = 499
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class RequestMetrics:
    """Requests counted and timed by route, method and status; one registry an application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "api_requests", "Requests answered.", ["route", "method", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "api_request_seconds", "Time to answer.", ["route"], buckets=_BUCKETS,
            registry=self.registry,
        )  # fmt: skip

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class Telemetry:
    """ASGI middleware; sets `request.state.request_id` and `.started` (perf_counter)."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["started"] = started
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            status = status or _GONE
            raise
        except Exception:
            # The trace goes to the log under the id that the caller is given.
            _log.exception("request_failed", request_id=request_id, path=scope["path"])
            if status:
                raise  # the answer has begun; the server must cut the connection
            await problem_response(
                request_id,
                ProblemError.status,
                name=ProblemError.name,
                title=ProblemError.title,
                detail="The fault is logged under this request_id.",
            )(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            # The route's pattern, not the path: a ticker must not make a time series of its own.
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.observe(route, scope["method"], status, seconds)
            _log.info(
                "request",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round(seconds * 1000, 2),
                key_id=state.get("key_id"),
            )


def _request_id(scope: Scope) -> str:
    """The caller's own id where it is harmless, else a new one."""
    offered = Headers(scope=scope).get("x-request-id", "")
    return offered if _CALLERS_ID.fullmatch(offered) else uuid.uuid4().hex
