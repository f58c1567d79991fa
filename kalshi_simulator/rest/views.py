"""Markets, events and series as the exchange shows them; keys without a value are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kalshi_simulator import ticks
from kalshi_simulator.figures import DAY_US, HOUR_US, SECOND_US, dollars, fixed_point, stamp
from kalshi_simulator.hashing import hash_of
from kalshi_simulator.layout import SeriesPlan
from kalshi_simulator.lifecycle import collateral
from kalshi_simulator.markets import Market
from kalshi_simulator.quotes import STEP_US, level_size, quotes_at
from kalshi_simulator.rest.context import Context

_SOURCES = [{"name": "the simulator", "url": "https://example.com/"}]


def market_views(
    context: Context, markets: Sequence[Market], *, is_historical: bool = False
) -> list[dict[str, Any]]:
    """The Market objects of several markets; their quotes are computed together."""
    now = context.exchange.clock.now()
    quotes = _quotes(context, markets, now)
    return [
        _market_view(context, market, now, quote, is_historical)
        for market, quote in zip(markets, quotes, strict=True)
    ]


def _quotes(context: Context, markets: Sequence[Market], now: int) -> list[tuple[int, int]]:
    if not markets:
        return []
    layout = context.exchange.layout
    slots = np.array([market.slot for market in markets], dtype=np.int64)
    step = now // STEP_US * STEP_US
    instants = np.array(
        [min(max(step, m.open_us), m.planned_close_us - 1) for m in markets], dtype=np.int64
    )
    quotes = quotes_at(layout, slots, instants)
    return list(zip(quotes.bid_e4().tolist(), quotes.ask_e4().tolist(), strict=True))


def outcome_shown(context: Context, market: Market, now: int) -> tuple[str, tuple[str, int] | None]:
    """Status and outcome as REST shows them, which may be behind `determined` on command."""
    status = market.status_at(now)
    outcome = context.exchange.directory.outcome_at(market, now)
    hidden = context.faults.standing("empty_result_after_determined")
    if hidden and outcome and now - market.determined_us < int((hidden.seconds or 0) * SECOND_US):
        context.faults.note("empty_result_after_determined")
        return "closed", None
    return status, outcome


def _market_view(
    context: Context, market: Market, now: int, quote: tuple[int, int], is_historical: bool
) -> dict[str, Any]:
    exchange = context.exchange
    directory = exchange.directory
    plan, names = directory.plan(market), directory.names(market)
    status, outcome = outcome_shown(context, market, now)
    structure = directory.structure_at(market, now)
    bid, ask = quote if status in ("active", "inactive") else (0, 10_000)
    step = now // STEP_US
    bid_size = level_size(market.key, 0, bid, step) if bid else 0
    ask_size = level_size(market.key, 1, 10_000 - ask, step) if ask < 10_000 else 0
    last = exchange.last_trade(market, now)
    volume = exchange.volume(market, now)
    close = market.close_at(now)
    expiration = market.planned_close_us + 2 * DAY_US
    settlement = market.settled_us if status == "finalized" else None
    view: dict[str, Any] = {
        "ticker": market.ticker,
        "event_ticker": market.event_ticker,
        "market_type": "binary",
        "title": names.title,
        "yes_sub_title": names.yes_sub_title,
        "no_sub_title": names.no_sub_title,
        "created_time": stamp(market.created_us),
        "updated_time": stamp(market.updated_at(now)),
        "open_time": stamp(market.open_us),
        "close_time": stamp(close),
        "latest_expiration_time": stamp(expiration),
        "expected_expiration_time": stamp(market.planned_close_us + HOUR_US),
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
        "yes_bid_size_fp": fixed_point(bid_size),
        "yes_ask_size_fp": fixed_point(ask_size),
        "last_price_dollars": dollars(last[0] if last else 0),
        **_day_ago(context, market, now),
        "volume_fp": fixed_point(volume),
        "volume_24h_fp": fixed_point(volume - exchange.volume(market, now - DAY_US)),
        "open_interest_fp": fixed_point(exchange.open_interest(market, now)),
        "notional_value_dollars": "1.0000",
        "settlement_value_dollars": dollars(outcome[1]) if outcome else None,
        "settlement_ts": stamp(settlement) if settlement else None,
        "settlement_bounds_type": "default",
        **names.strikes,
        "rules_primary": f"If {names.yes_sub_title}, then the market resolves to Yes.",
        "rules_secondary": "",
        "price_level_structure": structure,
        "price_ranges": ticks.price_ranges(structure),
        "exchange_index": 1 if plan.is_combo else 0,
    }
    if plan.is_combo:
        view |= _combo_fields(context, market, outcome)
    return {name: value for name, value in view.items() if value is not None}


def _day_ago(context: Context, market: Market, now: int) -> dict[str, str]:
    then = now - DAY_US
    if not market.open_us <= then < market.close_us:
        return {
            "previous_price_dollars": "0.0000",
            "previous_yes_bid_dollars": "0.0000",
            "previous_yes_ask_dollars": "0.0000",
        }
    layout = context.exchange.layout
    quotes = quotes_at(layout, np.array([market.slot]), np.array([then], dtype=np.int64))
    last = context.exchange.last_trade(market, then)
    return {
        "previous_price_dollars": dollars(last[0] if last else 0),
        "previous_yes_bid_dollars": dollars(int(quotes.bid_e4()[0])),
        "previous_yes_ask_dollars": dollars(int(quotes.ask_e4()[0])),
    }


def _combo_fields(
    context: Context, market: Market, outcome: tuple[str, int] | None
) -> dict[str, Any]:
    """Legs: ordinary markets that were open when the combo was made."""
    directory, layout = context.exchange.directory, context.exchange.layout
    ordinary = [slot.number for slot in layout.slots if not slot.series.is_combo]
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


def event_view(
    context: Context, event_ticker: str, markets: Sequence[Market], *, nested: bool
) -> dict[str, Any]:
    """The Event object, with its live markets when asked for."""
    now = context.exchange.clock.now()
    directory = context.exchange.directory
    first = markets[0]
    plan, names = directory.plan(first), directory.names(first)
    view: dict[str, Any] = {
        "event_ticker": event_ticker,
        "series_ticker": plan.ticker,
        "title": names.event_title,
        "sub_title": names.event_subtitle,
        "collateral_return_type": collateral(plan.kind),
        "mutually_exclusive": collateral(plan.kind) == "MECNET",
        "settlement_sources": _SOURCES,
        "category": plan.category,
        "strike_period": "",
        "last_updated_ts": stamp(max(market.updated_at(now) for market in markets)),
        "exchange_index": 1 if plan.is_combo else 0,
    }
    if plan.kind == "range":
        view["strike_date"] = stamp(first.planned_close_us)
    if nested:
        shown = [m for m in markets if m.settled_us >= context.exchange.cutoff_us]
        view["markets"] = market_views(context, shown)
    return view


def series_view(context: Context, plan: SeriesPlan, *, with_volume: bool) -> dict[str, Any]:
    """The Series object."""
    exchange = context.exchange
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
        now = exchange.clock.now()
        slots = [slot.number for slot in exchange.layout.slots if slot.series is plan]
        total = sum(exchange.ledger.totals(slot, now)[0] for slot in slots)
        view["volume_fp"] = fixed_point(total)
    return view
