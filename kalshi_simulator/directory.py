"""The directory: every market and event so far, and who changed, closes or is open when."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from kalshi_simulator import making, schedule, ticks
from kalshi_simulator.dormant import (
    MARKETS_PER_SERIES,
    dormant_markets,
    dormant_names,
    dormant_plans,
)
from kalshi_simulator.figures import DAY_US, HOUR_US
from kalshi_simulator.layout import Layout, SeriesPlan, Slot
from kalshi_simulator.markets import NEVER, Event, Market
from kalshi_simulator.moments import Moments
from kalshi_simulator.names import Names
from kalshi_simulator.quotes import quotes_at

_EVENT_BEFORE_US = 1_000  # an event is there so long before its first market


class Directory:
    """All markets that have been created so far.

    Lists are in order of creation and must not be changed by those who get them.
    """

    def __init__(self, layout: Layout, dormant: int = 0) -> None:
        """Dormant markets stand before all others."""
        self.layout = layout
        self.changes = Moments()
        self.closes = Moments()
        self._plans = dormant_plans(dormant)
        self._markets: dict[str, Market] = {}
        self._events: dict[str, Event] = {}
        self._event_order: list[Event] = []
        self._ordered: list[Market] = []
        self._unsettled: list[Market] = []
        self._weeded_us = 0
        self._by_series: dict[str, list[Market]] = {}
        self._values: dict[tuple[int, int], int] = {}
        self._recent: dict[tuple[int, int], Market] = {}
        self._next_instance = [
            0 if not lively else int((layout.begins_us - origin) // period)
            for lively, origin, period in zip(
                layout.lively, layout.origin_us, layout.period_us, strict=True
            )
        ]
        self._next_created = [
            making.created_us(self.layout, slot, instance)
            for slot, instance in enumerate(self._next_instance)
        ]
        self._next_us = 0
        self._dormant = dormant_markets(layout.seed, dormant, layout.begins_us)
        for market in self._dormant:
            self._add(market)

    @property
    def series(self) -> list[SeriesPlan]:
        """The series that REST lists."""
        plans = [plan for plan in self.layout.series if plan.listing == "listed"]
        return plans + self._plans

    def plan(self, market: Market) -> SeriesPlan:
        if market.is_dormant:
            return self._plans[market.instance // MARKETS_PER_SERIES]
        return self.layout.slots[market.slot].series

    def slot_of(self, market: Market) -> Slot:
        return self.layout.slots[market.slot]

    def names(self, market: Market) -> Names:
        if market.is_dormant:
            return dormant_names(market)
        return making.names(self.layout, market.slot, market.instance, market.planned_close_us)

    def advance(self, now_us: int) -> None:
        """Create the markets whose time to be created has come."""
        if now_us < self._next_us:
            return
        fresh: list[Market] = []
        for slot, instance in enumerate(self._next_instance):
            while self._next_created[slot] <= now_us:
                fresh.append(making.build(self.layout, slot, instance))
                instance += 1
                self._next_created[slot] = (
                    making.created_us(self.layout, slot, instance)
                    if self.layout.lively[slot]
                    else NEVER
                )
            self._next_instance[slot] = instance
        self._next_us = min(self._next_created)
        self._know_values(fresh)
        for market in sorted(fresh, key=lambda market: market.place):
            if market.ticker not in self._markets:
                self._add(market)
        if now_us - self._weeded_us > HOUR_US:
            self._weeded_us = now_us
            kept_since = now_us - DAY_US
            self._unsettled = [m for m in self._unsettled if m.finalized_us > kept_since]

    def _add(self, market: Market) -> None:
        self._markets[market.ticker] = market
        self._ordered.append(market)
        self._unsettled.append(market)
        self._by_series.setdefault(self.plan(market).ticker, []).append(market)
        for moment in market.changes_us:
            self.changes.add(moment, market)
        for _, close in market.closes_told():
            self.closes.add(close, market)
        event = self._events.get(market.event_ticker)
        if event is None:
            event = self._new_event(market)
            self._events[event.ticker] = event
            self._event_order.append(event)
        event.markets.append(market)

    def _new_event(self, market: Market) -> Event:
        """The event of a market, still without markets; its first leg may override its fee."""
        if market.is_dormant:
            return Event(market.event_ticker, market.created_us - _EVENT_BEFORE_US, None, [])
        slot = self.slot_of(market)
        legs = range(slot.number - slot.leg, slot.number - slot.leg + slot.legs)
        created = min(making.created_us(self.layout, leg, market.instance) for leg in legs)
        repriced = None
        if making.temper_of(self.layout, legs[0], market.instance) == schedule.REPRICED:
            begin, end = schedule.repricing(market.period_us)
            repriced = market.open_us + begin, market.open_us + end
        return Event(market.event_ticker, created - _EVENT_BEFORE_US, repriced, [])

    def find(self, ticker: str) -> Market | None:
        """A market that has been created, or None."""
        return self._markets.get(ticker)

    def event(self, event_ticker: str) -> Event | None:
        """An event that has a market, or None."""
        return self._events.get(event_ticker)

    def event_of(self, market: Market) -> Event:
        """The event of a market, which may be yet to come."""
        return self._events.get(market.event_ticker) or self._new_event(market)

    def of_event(self, event_ticker: str) -> Sequence[Market]:
        """Markets of an event."""
        event = self._events.get(event_ticker)
        return event.markets if event else ()

    def of_series(self, series_ticker: str) -> Sequence[Market]:
        """Markets of a series, by the part of their tickers that is the same."""
        return self._by_series.get(series_ticker, ())

    def events(self) -> Sequence[Event]:
        """Every event so far."""
        return self._event_order

    def all(self) -> Sequence[Market]:
        """Every market created so far."""
        return self._ordered

    def created_between(self, low_us: int, high_us: int) -> Sequence[Market]:
        """Markets created in [low_us, high_us)."""
        left = bisect_left(self._ordered, low_us, key=lambda market: market.created_us)
        right = bisect_left(self._ordered, high_us, key=lambda market: market.created_us)
        return self._ordered[left:right]

    def unsettled(self, us: int) -> Sequence[Market]:
        """Markets that are not finalized at an instant, and some that are."""
        return self._unsettled if us > self._weeded_us - DAY_US else self._ordered

    def touch(self, us: int, first: int, count: int) -> int:
        """Change dormant markets, round and round from a number on; how many there were."""
        chosen = min(count, len(self._dormant))
        for number in range(first, first + chosen):
            market = self._dormant[number % len(self._dormant)]
            assert isinstance(market.changes_us, list)
            market.changes_us.append(us)
            self.changes.add(us, market)
        return chosen

    def at(self, slot: int, us: int) -> Market:
        """The market that has a slot at an instant."""
        period = int(self.layout.period_us[slot])
        return self.at_instance(slot, (us - int(self.layout.origin_us[slot])) // period)

    def at_instance(self, slot: int, instance: int) -> Market:
        """The market of a slot by number, whether its time has come or not."""
        found = self._recent.get((slot, instance))
        if found is None:
            if len(self._recent) > 20_000:
                self._recent.clear()
            found = self._recent[slot, instance] = making.build(self.layout, slot, instance)
        return found

    def outcome_at(self, market: Market, us: int) -> tuple[str, int] | None:
        """Result and settlement value (e4) as told at an instant; None before `determined`."""
        if us < market.determined_us:
            return None
        value = self._value(market)
        if market.is_amended and us < market.reviewed_us:
            value = 10_000 - value
        if market.temper == schedule.VOID:
            return "void", value
        return {0: "no", 10_000: "yes"}.get(value, "scalar"), value

    def _value(self, market: Market) -> int:
        """What a yes contract pays in the end (e4)."""
        place = market.slot, market.instance
        if place not in self._values:
            self._know_values([market])
        return self._values[place]

    def _know_values(self, markets: Sequence[Market]) -> None:
        """Look up how markets end; all together, for one at a time is slow."""
        open_ended = []
        for market in markets:
            fixed = _fixed_value(market)
            if fixed is None:
                open_ended.append(market)
            else:
                self._values[market.slot, market.instance] = fixed
        if not open_ended:
            return
        slots = np.array([market.slot for market in open_ended], dtype=np.int64)
        ends = np.array([market.close_us - 1 for market in open_ended], dtype=np.int64)
        bids = quotes_at(self.layout, slots, ends).bid_e4().tolist()
        for market, bid in zip(open_ended, bids, strict=True):
            self._values[market.slot, market.instance] = 10_000 if bid >= 5_000 else 0

    def structure_at(self, market: Market, us: int) -> str:
        """Label of the tick structure in force."""
        if market.temper == schedule.NEW_TICKS and us >= market.open_us + schedule.half(
            market.period_us
        ):
            return ticks.STRUCTURES[ticks.DECI_CENT]
        return self.plan(market).structure


def _fixed_value(market: Market) -> int | None:
    """What a yes contract pays in the end (e4) where its temper says so."""
    if market.temper in (schedule.SCALAR, schedule.VOID):
        return 100 * (1 + market.key % 99)
    return 5_000 if market.temper == schedule.TIED else None
