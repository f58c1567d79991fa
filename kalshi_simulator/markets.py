"""Markets: one instance of a slot, its dates, its state at an instant, its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kalshi_simulator import schedule, ticks
from kalshi_simulator.figures import DAY_US, SECOND_US
from kalshi_simulator.hashing import hash_of
from kalshi_simulator.layout import LONG_LIFE_US, QUIET, Layout, SeriesPlan, Slot
from kalshi_simulator.names import Names, names_of
from kalshi_simulator.quotes import quotes_at

NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Market:
    """One market; all dates are known in advance and shown only when their time has come."""

    slot: int
    instance: int
    key: int
    temper: int
    ticker: str
    event_ticker: str
    created_us: int
    open_us: int
    planned_close_us: int
    close_us: int
    determined_us: int
    settled_us: int

    @property
    def amended_us(self) -> int:
        """When a wrong outcome is put right; NEVER for most."""
        if self.temper != schedule.AMENDED:
            return NEVER
        return (self.determined_us + self.settled_us) // 2

    @property
    def period_us(self) -> int:
        return self.planned_close_us - self.open_us

    def close_announced_us(self) -> int:
        """When an early close becomes known."""
        return self.open_us + self.period_us * 70 // 100

    def close_at(self, now_us: int) -> int:
        """The close as the exchange tells it at an instant."""
        return self.close_us if now_us >= self.close_announced_us() else self.planned_close_us

    def status_at(self, now_us: int) -> str:
        """initialized, active, inactive, closed, determined, amended or finalized."""
        if now_us >= self.settled_us:
            return "finalized"
        if now_us >= self.amended_us:
            return "amended"
        if now_us >= self.determined_us:
            return "determined"
        if now_us >= self.close_us:
            return "closed"
        if now_us < self.open_us:
            return "initialized"
        if self.temper == schedule.PAUSED:
            begin, end = schedule.pause(self.period_us)
            if begin <= now_us - self.open_us < end:
                return "inactive"
        return "active"

    def updated_at(self, now_us: int) -> int:
        """The latest change by then that was not trading."""
        pauses = schedule.pause(self.period_us) if self.temper == schedule.PAUSED else ()
        moments = [
            self.created_us,
            self.determined_us,
            self.amended_us,
            self.settled_us + 700_000,  # the read model learns of a settlement a bit later
            *(self.open_us + offset for offset in pauses),
        ]
        if self.temper == schedule.EARLY:
            moments.append(self.close_announced_us())
        if self.temper == schedule.RENAMED:
            moments.append(self.open_us + self.period_us // 10)
        if self.temper == schedule.NEW_TICKS:
            moments.append(self.open_us + schedule.half(self.period_us))
        return max(moment for moment in moments if moment <= max(now_us, self.created_us))


class Directory:
    """All markets that have been created so far, by ticker and by slot."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._markets: dict[str, Market] = {}
        self._by_event: dict[str, list[Market]] = {}
        self._ordered: list[Market] = []
        self._recent: dict[tuple[int, int], Market] = {}
        self._next_instance = [
            0 if not lively else int((layout.begins_us - origin) // period)
            for lively, origin, period in zip(
                layout.lively, layout.origin_us, layout.period_us, strict=True
            )
        ]

    def plan(self, market: Market) -> SeriesPlan:
        return self.layout.slots[market.slot].series

    def slot_of(self, market: Market) -> Slot:
        return self.layout.slots[market.slot]

    def names(self, market: Market) -> Names:
        return _names(self.layout, market.slot, market.instance, market.planned_close_us)

    def advance(self, now_us: int) -> None:
        """Create the markets whose time to be created has come."""
        fresh: list[Market] = []
        for slot, instance in enumerate(self._next_instance):
            while (market := self.build(slot, instance)).created_us <= now_us:
                fresh.append(market)
                instance += 1
                if not self.layout.lively[slot]:
                    break
            self._next_instance[slot] = instance
        for market in sorted(fresh, key=lambda market: (market.created_us, market.ticker)):
            if market.ticker not in self._markets:
                self._markets[market.ticker] = market
                self._by_event.setdefault(market.event_ticker, []).append(market)
                self._ordered.append(market)

    def build(self, slot: int, instance: int) -> Market:
        """Compute one market, whether its time has come or not."""
        layout = self.layout
        plan = layout.slots[slot].series
        open_us = int(layout.origin_us[slot]) + instance * int(layout.period_us[slot])
        planned = open_us + int(layout.period_us[slot])
        key = hash_of(int(layout.key[slot]), instance)
        temper = key >> 60 if layout.lively[slot] else QUIET
        close = open_us + schedule.early(planned - open_us) if temper == schedule.EARLY else planned
        jitter = key % (plan.deciding_us // 2)
        determined = close + plan.deciding_us + jitter
        settled = determined + plan.timer_us + key % (2 * SECOND_US)
        if plan.period_us is None:
            planned = close = open_us + LONG_LIFE_US
        names = _names(layout, slot, instance, planned)
        return Market(
            slot, instance, key, temper, names.ticker, names.event_ticker,
            open_us - plan.lead_us - slot % 7 * 1_013 - 500_017, open_us, planned, close,
            determined, settled,
        )  # fmt: skip

    def find(self, ticker: str) -> Market | None:
        """A market that has been created, or None."""
        return self._markets.get(ticker)

    def of_event(self, event_ticker: str) -> list[Market]:
        """Markets of an event, in order of creation."""
        return self._by_event.get(event_ticker, [])

    def events(self) -> list[str]:
        """Event tickers in order of creation."""
        return list(self._by_event)

    def all(self) -> list[Market]:
        """Every market created so far, in order of creation."""
        return self._ordered

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
            found = self._recent[slot, instance] = self.build(slot, instance)
        return found

    def value_e4(self, market: Market) -> int:
        """What a yes contract pays in the end."""
        return _value(self.layout, market)

    def outcome_at(self, market: Market, now_us: int) -> tuple[str, int] | None:
        """Result and settlement value (e4) as told at an instant; None before `determined`."""
        if now_us < market.determined_us:
            return None
        value = self.value_e4(market)
        if market.temper == schedule.AMENDED and now_us < market.amended_us:
            value = 10_000 - value
        return {0: "no", 10_000: "yes"}.get(value, "scalar"), value

    def structure_at(self, market: Market, now_us: int) -> str:
        """Label of the tick structure in force."""
        at = min(max(now_us, market.open_us), market.planned_close_us - 1)
        number = schedule.structures(self.layout, np.array([market.slot]), np.array([at]))
        return ticks.STRUCTURES[int(number[0])]


@lru_cache(maxsize=4_096)
def _names(layout: Layout, slot: int, instance: int, close_us: int) -> Names:
    return names_of(layout, layout.slots[slot], instance, close_us)


@lru_cache(maxsize=65_536)
def _value(layout: Layout, market: Market) -> int:
    if market.temper == schedule.SCALAR:
        return 100 * (1 + market.key % 99)
    if market.temper == schedule.TIED:
        return 5_000
    last = quotes_at(
        layout, np.array([market.slot]), np.array([market.close_us - 1], dtype=np.int64)
    )
    return 10_000 if int(last.bid_e4()[0]) >= 5_000 else 0


def day_of(us: int) -> int:
    """Start of the UTC day of an instant."""
    return us - us % DAY_US
