"""Which markets a list shows: what the parameters name, and the exchange's rules for filters.

`live_candidates` and `named` give few markets that hold all that are wanted; `filters` and
`narrowing` give the tests that each of them must pass (protocol 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.requests import Request

from kalshi_simulator.figures import SECOND_US
from kalshi_simulator.markets import Market
from kalshi_simulator.rest.answers import bad_request, whole
from kalshi_simulator.rest.context import Context
from kalshi_simulator.rest.sight import Sight
from kalshi_simulator.schedule import SETTLEMENT_TOLD_US

STATUSES = {
    "unopened": ("initialized",),
    "open": ("active",),
    "paused": ("inactive",),
    "closed": ("closed", "determined", "disputed", "amended"),
    "settled": ("finalized",),
}
_STATUS_WITH = {
    "created": ("unopened", "open", None),
    "close": ("closed", None),
    "settled": ("settled", None),
    "updated": (None,),
}
Test = Callable[[Market], bool]
_EVER_US = 1 << 62


def named(request: Request, context: Context) -> Sequence[Market] | None:
    """The markets of the tickers, event or series asked for; None when none is named."""
    directory = context.exchange.directory
    tickers = _list(request, "tickers")
    if tickers:
        found = [market for ticker in tickers if (market := directory.find(ticker)) is not None]
        return sorted(set(found), key=lambda market: market.place)
    event = request.query_params.get("event_ticker")
    if event:
        return directory.of_event(event)
    series = request.query_params.get("series_ticker")
    return directory.of_series(series) if series else None


def live_candidates(request: Request, context: Context, sight: Sight) -> Sequence[Market]:
    """As few markets as hold all that the parameters choose, in order of creation.

    Without this, each page would look at every market there ever was.
    """
    directory = context.exchange.directory
    low, high = (
        {name: whole(request, f"{end}_{name}_ts") for name in _STATUS_WITH}
        for end in ("min", "max")
    )

    def bound(bounds: dict[str, int | None], name: str, otherwise: int) -> int:
        value = bounds[name]
        return otherwise if value is None else value * SECOND_US

    if low["updated"] is not None:
        return directory.changes.between(
            bound(low, "updated", 0), min(sight.at_us, bound(high, "updated", sight.at_us))
        )
    if low["settled"] is not None:
        end = bound(high, "settled", sight.at_us) + SETTLEMENT_TOLD_US
        return directory.changes.between(bound(low, "settled", 0), min(sight.at_us, end))
    if low["close"] is not None and high["close"] is not None:
        return directory.closes.between(bound(low, "close", 0), bound(high, "close", 0))
    chosen = named(request, context)
    if chosen is not None:
        return chosen
    if low["created"] is not None or high["created"] is not None:
        end = bound(high, "created", _EVER_US) + 1
        return directory.created_between(bound(low, "created", 0), end)
    if request.query_params.get("status") in ("unopened", "open", "paused", "closed"):
        return directory.unsettled(min(sight.at_us, sight.told_us))
    return directory.all()


def _list(request: Request, name: str) -> list[str]:
    text = request.query_params.get(name, "")
    return [part for part in text.split(",") if part]


def narrowing(request: Request, context: Context) -> list[Test]:
    """Tests for tickers, events, series and combos."""
    directory = context.exchange.directory
    tests: list[Test] = []
    tickers = set(_list(request, "tickers"))
    if tickers:
        tests.append(lambda market: market.ticker in tickers)
    event = request.query_params.get("event_ticker", "")
    if "," in event:
        raise bad_request("only one event_ticker is supported")
    if event:
        tests.append(lambda market: market.event_ticker == event)
    series = request.query_params.get("series_ticker")
    if series:
        tests.append(lambda market: directory.plan(market).ticker == series)
    combos = request.query_params.get("mve_filter")
    if combos not in (None, "", "only", "exclude"):
        raise bad_request("invalid mve_filter")
    if combos:
        tests.append(lambda market: directory.plan(market).is_combo == (combos == "only"))
    return tests


def filters(request: Request, context: Context, sight: Sight) -> list[Test]:
    """Tests for everything a live list may be narrowed by; 400 for what does not go together."""
    query = request.query_params
    status = query.get("status") or None
    if status is not None and status not in STATUSES:
        raise bad_request("invalid status filter")
    tests = narrowing(request, context)
    if status is not None:
        wanted = STATUSES[status]
        tests.append(lambda market: market.status_at(sight.of(market)) in wanted)
    families = [
        family
        for family in _STATUS_WITH
        if query.get(f"min_{family}_ts") or query.get(f"max_{family}_ts")
    ]
    if len(families) > 1:
        raise bad_request("timestamp filters are mutually exclusive")
    for family in families:
        if status not in _STATUS_WITH[family]:
            raise bad_request(f"{family} timestamp filters cannot be used with status {status}")
        if family == "updated":
            if query.get("tickers") or query.get("event_ticker"):
                raise bad_request("updated timestamp filters only go with series_ticker")
            if query.get("mve_filter") == "only" or (
                query.get("series_ticker") and query.get("mve_filter") != "exclude"
            ):
                raise bad_request("updated timestamp filters need mve_filter=exclude")
        tests.append(_time_test(request, family, sight))
    return tests


def _time_test(request: Request, family: str, sight: Sight) -> Test:
    least, most = whole(request, f"min_{family}_ts"), whole(request, f"max_{family}_ts")
    low = -1 if least is None else least * SECOND_US
    high = _EVER_US if most is None else most * SECOND_US

    def settled(market: Market) -> int:
        return market.settled_us if market.finalized_us <= sight.of(market) else -2

    moment_of: Callable[[Market], int] = {
        "created": lambda market: market.created_us,
        "close": lambda market: market.close_at(sight.of(market)),
        "settled": settled,
        "updated": lambda market: market.updated_at(sight.of(market)),
    }[family]
    # "later than" and "at or before".
    return lambda market: low < moment_of(market) <= high
