"""Markets, events and series as the exchange shows them; keys without a value are left out.

Each view is a function of the thing and of an instant, so REST, a REST that lags, and the ledger
of the levers tell the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from kalshi_simulator import ticks
from kalshi_simulator.exchange import Exchange, Traded
from kalshi_simulator.figures import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    dollars,
    fixed_point,
    stamp,
)
from kalshi_simulator.hashing import hash_of
from kalshi_simulator.layout import SeriesPlan
from kalshi_simulator.lifecycle import OVERRIDE, collateral, revised
from kalshi_simulator.markets import Event, Market
from kalshi_simulator.schedule import RENAMED, renaming
from kalshi_simulator.standing import Book, Top, tops_of

_SOURCES = [{"name": "the simulator", "url": "https://example.com/"}]
_NOTHING_A_DAY_AGO = {
    "previous_price_dollars": "0.0000",
    "previous_yes_bid_dollars": "0.0000",
    "previous_yes_ask_dollars": "0.0000",
}


def market_views(
    exchange: Exchange,
    markets: Sequence[Market],
    instants: Sequence[int],
    *,
    is_historical: bool = False,
) -> list[dict[str, Any]]:
    """The Market objects of several markets, each as of its own instant."""
    statuses = [market.status_at(at) for market, at in zip(markets, instants, strict=True)]
    tops = tops_of(exchange.layout, markets, instants)
    return [
        _market_view(exchange, market, at, status, top, is_historical)
        for market, at, status, top in zip(markets, instants, statuses, tops, strict=True)
    ]


def book_view(book: Book, depth: int = 0) -> dict[str, list[list[str]]]:
    """A book as REST shows it, best prices last; depth 0 is all of it."""
    yes, no = (
        [[dollars(e4), fixed_point(side[e4])] for e4 in sorted(side)][-depth if depth else 0 :]
        for side in book
    )
    return {"yes_dollars": yes, "no_dollars": no}


def _market_view(
    exchange: Exchange,
    market: Market,
    at: int,
    status: str,
    top: Top,
    is_historical: bool,
) -> dict[str, Any]:
    directory = exchange.directory
    plan, names = directory.plan(market), directory.names(market)
    outcome = directory.outcome_at(market, at)
    structure = directory.structure_at(market, at)
    bid, ask = top.bid_e4, top.ask_e4
    traded = exchange.traded(market, at)
    touches = bisect_right(market.changes_us, at) - 1 if market.is_dormant else 0
    expiration = market.planned_close_us + 2 * DAY_US
    expected = market.planned_close_us + HOUR_US + touches * MINUTE_US
    yes_sub_title = names.yes_sub_title
    if market.temper == RENAMED and at >= market.open_us + renaming(market.period_us):
        yes_sub_title = revised(yes_sub_title)
    view: dict[str, Any] = {
        "ticker": market.ticker,
        "event_ticker": market.event_ticker,
        "market_type": "binary",
        "title": names.title,
        "yes_sub_title": yes_sub_title,
        "no_sub_title": names.no_sub_title,
        "created_time": stamp(market.created_us),
        "updated_time": stamp(market.updated_at(at)),
        "open_time": stamp(market.open_us),
        "close_time": stamp(market.close_at(at)),
        "latest_expiration_time": stamp(expiration),
        "expected_expiration_time": stamp(expected),
        "expiration_time": stamp(expiration),
        "occurrence_datetime": None if is_historical else stamp(market.planned_close_us),
        "settlement_timer_seconds": plan.timer_us // SECOND_US,
        "status": status,
        "result": outcome[0] if outcome else "",
        "can_close_early": True,
        "early_close_condition": "This market may close early.",
        "expiration_value": dollars(outcome[1]) if outcome else "",
        "yes_bid_dollars": dollars(bid),
        "yes_ask_dollars": dollars(ask),
        "no_bid_dollars": dollars(10_000 - ask),
        "no_ask_dollars": dollars(10_000 - bid),
        "yes_bid_size_fp": fixed_point(top.bid_centis),
        "yes_ask_size_fp": fixed_point(top.ask_centis),
        "last_price_dollars": dollars(traded.last_e4),
        **_day_ago(exchange, market, at, traded),
        "volume_fp": fixed_point(traded.volume),
        "open_interest_fp": fixed_point(traded.interest),
        "notional_value_dollars": "1.0000",
        "settlement_value_dollars": dollars(outcome[1]) if outcome else None,
        "settlement_ts": stamp(market.settled_us) if status == "finalized" else None,
        "settlement_bounds_type": "default",
        **names.strikes,
        "rules_primary": f"If {names.yes_sub_title}, then the market resolves to Yes.",
        "rules_secondary": f"Revision {touches} of the rules." if touches else "",
        "price_level_structure": structure,
        "price_ranges": ticks.price_ranges(structure),
        "exchange_index": 1 if plan.is_combo else 0,
    }
    if plan.is_combo:
        view |= _combo_fields(exchange, market, outcome)
    return {name: value for name, value in view.items() if value is not None}


def _day_ago(exchange: Exchange, market: Market, at: int, traded: Traded) -> dict[str, str]:
    """What stood a day before, and what traded since."""
    then = at - DAY_US
    if not market.open_us <= then < market.close_us or market.is_dormant:
        volume = traded.volume if then < market.open_us else 0
        return {**_NOTHING_A_DAY_AGO, "volume_24h_fp": fixed_point(volume)}
    before = exchange.traded(market, then)
    [top] = tops_of(exchange.layout, [market], [then])
    return {
        "previous_price_dollars": dollars(before.last_e4),
        "previous_yes_bid_dollars": dollars(top.bid_e4),
        "previous_yes_ask_dollars": dollars(top.ask_e4),
        "volume_24h_fp": fixed_point(traded.volume - before.volume),
    }


def _combo_fields(
    exchange: Exchange, market: Market, outcome: tuple[str, int] | None
) -> dict[str, Any]:
    """Legs: ordinary markets that were open when the combo was made."""
    directory, layout = exchange.directory, exchange.layout
    ordinary = layout.ordinary
    legs = []
    for number in range(min(2 + market.key % 2, len(ordinary))):
        slot = ordinary[hash_of(market.key, number) % len(ordinary)]
        leg = directory.at(slot, market.open_us)
        side = "yes" if hash_of(market.key, number, 1) % 2 else "no"
        entry = {
            "event_ticker": leg.event_ticker,
            "market_ticker": leg.ticker,
            "side": side,
        }
        if outcome is not None:
            value = outcome[1] if side == "yes" else 10_000 - outcome[1]
            entry["yes_settlement_value_dollars"] = dollars(value)
        legs.append(entry)
    return {
        "mve_collection_ticker": f"{directory.plan(market).ticker}-R",
        "mve_selected_legs": legs,
        "is_provisional": True,
    }


def event_view(exchange: Exchange, event: Event, at: int) -> dict[str, Any]:
    """The Event object without markets."""
    directory = exchange.directory
    first = event.markets[0]
    plan, names = directory.plan(first), directory.names(first)
    view: dict[str, Any] = {
        "event_ticker": event.ticker,
        "series_ticker": plan.named,
        "title": names.event_title,
        "sub_title": names.event_subtitle,
        "collateral_return_type": collateral(plan.kind),
        "mutually_exclusive": collateral(plan.kind) == "MECNET",
        "settlement_sources": _SOURCES,
        "category": plan.category,
        "strike_period": "",
        "last_updated_ts": stamp(event.updated_at(at)),
        "exchange_index": 1 if plan.is_combo else 0,
    }
    if plan.kind == "range":
        view["strike_date"] = stamp(first.planned_close_us)
    if event.is_repriced_at(at):
        view |= {"fee_type_override": OVERRIDE, "fee_multiplier_override": 1}
    return view


def series_view(
    exchange: Exchange, plan: SeriesPlan, at: int, *, with_volume: bool
) -> dict[str, Any]:
    """The Series object; a series never changes but for its volume."""
    view: dict[str, Any] = {
        "ticker": plan.ticker,
        "title": plan.title,
        "frequency": plan.frequency,
        "category": plan.category,
        "categories": [plan.category],
        "tags": list(plan.tags) or None,
        "settlement_sources": _SOURCES,
        "contract_url": f"https://example.com/contracts/{plan.ticker}.pdf",
        "contract_terms_url": f"https://example.com/terms/{plan.ticker}.pdf",
        "fee_type": plan.fee_type,
        "fee_multiplier": 1,
        "additional_prohibitions": None,
        "last_updated_ts": stamp(exchange.state.begins_us),
        "exchange_index": 1 if plan.is_combo else 0,
    }
    if with_volume:
        slots = [slot.number for slot in exchange.layout.slots if slot.series is plan]
        view["volume_fp"] = fixed_point(sum(exchange.ledger.totals(slot, at)[0] for slot in slots))
    return view
