"""The REST application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from kalshi_simulator.rest import candles, control, events, exchange, markets, trades, truth
from kalshi_simulator.rest.answers import Problem, not_found
from kalshi_simulator.rest.context import Context
from kalshi_simulator.rest.gate import Gate


def create_app(context: Context, read_tokens_per_second: int) -> ASGIApp:
    """The app over one exchange; each caller has its own token bucket."""
    app = Starlette(
        routes=[
            *trades.routes,
            *candles.routes,
            *markets.routes,
            *events.routes,
            *exchange.routes,
            *control.routes,
            *truth.routes,
        ],
        exception_handlers={Problem: _problem, 404: _unknown_path},
    )
    app.state.context = context
    app.state.read_tokens_per_second = read_tokens_per_second
    return Gate(app, context, read_tokens_per_second)


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _unknown_path(_: Request, _error: Exception) -> Response:
    return not_found().response()
