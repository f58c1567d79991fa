"""Lifecycle messages: what a market's dates turn into on the two lifecycle channels.

Opening and closing by the clock are silent, as at the real exchange.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import msgspec

from kalshi_simulator import schedule, ticks
from kalshi_simulator.directory import Directory
from kalshi_simulator.figures import HOUR_US, MINUTE_US, SECOND_US, dollars
from kalshi_simulator.hub import Message
from kalshi_simulator.markets import Market
from kalshi_simulator.subscriptions import COMBO_LIFECYCLE, LIFECYCLE

OVERRIDE = "quadratic_with_maker_fees"


@dataclass(frozen=True, slots=True)
class Moment:
    """A message and the instant it belongs to."""

    us: int
    message: Message


class Timeline:
    """Lifecycle messages by time; a minute of them at once, the last minutes kept."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._minutes: dict[int, list[Moment]] = {}

    def between(self, from_us: int, to_us: int) -> list[Moment]:
        """Moments in [from_us, to_us), in order of time."""
        found: list[Moment] = []
        for minute in range(from_us // MINUTE_US, (to_us - 1) // MINUTE_US + 1):
            moments = self._minute(minute)
            left = bisect_left(moments, from_us, key=lambda moment: moment.us)
            right = bisect_left(moments, to_us, key=lambda moment: moment.us)
            found += moments[left:right]
        return found

    def _minute(self, minute: int) -> list[Moment]:
        moments = self._minutes.get(minute)
        if moments is None:
            if len(self._minutes) > 10:
                self._minutes.clear()
            begin, end = minute * MINUTE_US, (minute + 1) * MINUTE_US
            moments = [
                moment
                for market in self._near(begin, end)
                if _speaks(self.directory, market, begin, end)
                for moment in moments_of(self.directory, market)
                if begin <= moment.us < end
            ]
            # An event is told before its markets, a market's own messages in their order.
            moments.sort(key=lambda moment: moment.us)
            self._minutes[minute] = moments
        return moments

    def _near(self, begin_us: int, end_us: int) -> list[Market]:
        """Markets that may have anything to tell in a window."""
        layout = self.directory.layout
        found = []
        for slot in layout.slots:
            period, origin = int(layout.period_us[slot.number]), int(layout.origin_us[slot.number])
            tail = slot.series.deciding_us * 2 + slot.series.timer_us * 2 + 5 * SECOND_US
            tail += schedule.DISPUTE_US
            first = (begin_us - tail - origin) // period - 1
            last = (end_us + slot.series.lead_us + SECOND_US - origin) // period
            if not layout.lively[slot.number]:
                first = last = 0
            found += [self.directory.at_instance(slot.number, i) for i in range(first, last + 1)]
        return found


def _speaks(directory: Directory, market: Market, begin_us: int, end_us: int) -> bool:
    """Whether a market, or its event through it, has anything to tell in a window."""
    moments = list(market.changes_us)
    if directory.slot_of(market).leg == 0:
        event = directory.event_of(market)
        moments += (event.created_us, *(event.repriced or ()))
    return any(begin_us <= moment < end_us for moment in moments)


def moments_of(directory: Directory, market: Market) -> list[Moment]:
    """All messages of a market's life, in order."""
    plan = directory.plan(market)
    channel = COMBO_LIFECYCLE if plan.is_combo else LIFECYCLE
    told: list[Moment] = []

    def tell(us: int, event_type: str, fields: dict[str, Any]) -> None:
        body = {"market_ticker": market.ticker, "event_type": event_type, **fields}
        encoded = msgspec.json.encode(body)
        told.append(Moment(us, Message(channel, channel, market.ticker, encoded)))

    if directory.slot_of(market).leg == 0:
        told += _event_moments(directory, market, channel)
    tell(market.created_us, "created", _created(directory, market))
    if market.temper == schedule.RENAMED:
        fields = {
            "yes_sub_title": revised(directory.names(market).yes_sub_title),
            **directory.names(market).strikes,
        }
        tell(market.open_us + schedule.renaming(market.period_us), "metadata_updated", fields)
    if market.temper == schedule.PAUSED and market.recess is not None:
        tell(market.recess[0], "deactivated", {"is_deactivated": True})
        tell(market.recess[1], "activated", {"is_deactivated": False})
    if market.temper == schedule.NEW_TICKS:
        fields = {
            "price_level_structure": "deci_cent",
            "price_ranges": ticks.price_ranges("deci_cent"),
        }
        moment = market.open_us + schedule.half(market.period_us)
        tell(moment, "price_level_structure_updated", fields)
    for moment, close in market.closes_told()[1:]:
        tell(moment, "close_date_updated", {"close_ts": close // SECOND_US})
    if market.temper == schedule.REOPENED and market.recess is not None:
        tell(market.recess[1], "activated", {"is_deactivated": False})
    for moment in market.determinations():
        result, value = directory.outcome_at(market, moment) or ("", 0)
        tell(moment, "determined", {
            "result": result, "settlement_value": dollars(value),
            "determination_ts": moment // SECOND_US,
        })  # fmt: skip
    tell(market.finalized_us, "settled", {"settled_ts": market.settled_us // SECOND_US})
    return told


def _created(directory: Directory, market: Market) -> dict[str, Any]:
    plan, names = directory.plan(market), directory.names(market)
    fields: dict[str, Any] = {
        "exchange_index": 1 if plan.is_combo else 0,
        "open_ts": market.open_us // SECOND_US,
        "close_ts": market.planned_close_us // SECOND_US,
        "price_level_structure": plan.structure,
    }
    if not plan.is_combo:
        fields["price_ranges"] = ticks.price_ranges(plan.structure)
    fields["additional_metadata"] = {
        "name": names.yes_sub_title,
        "title": names.title,
        "yes_sub_title": names.yes_sub_title,
        "no_sub_title": names.no_sub_title,
        "rules_primary": f"If {names.yes_sub_title}, then the market resolves to Yes.",
        "rules_secondary": "",
        "can_close_early": True,
        "event_ticker": market.event_ticker,
        "expected_expiration_ts": (market.planned_close_us + HOUR_US) // SECOND_US,
        **names.strikes,
    }
    return fields


def _event_moments(directory: Directory, market: Market, channel: str) -> list[Moment]:
    """What is told about the event that a market is the first leg of."""
    plan, names = directory.plan(market), directory.names(market)
    event = directory.event_of(market)
    body = {
        "event_ticker": event.ticker,
        "exchange_index": 1 if plan.is_combo else 0,
        "title": names.event_title,
        "subtitle": names.event_subtitle,
        "collateral_return_type": collateral(plan.kind),
        "series_ticker": plan.named,
    }
    told = [Moment(
        event.created_us,
        Message(channel, "event_lifecycle", event.ticker, msgspec.json.encode(body)),
    )]  # fmt: skip
    for moment in event.repriced or ():
        override = event.is_repriced_at(moment)
        fields = {
            "event_ticker": event.ticker,
            "fee_type_override": OVERRIDE if override else None,
            "fee_multiplier_override": 1 if override else None,
        }
        message = Message(LIFECYCLE, "event_fee_update", event.ticker, msgspec.json.encode(fields))
        told.append(Moment(moment, message))
    return told


def revised(words: str) -> str:
    """What the words of a RENAMED market become."""
    return f"{words}, revised"


def collateral(kind: str) -> str:
    """MECNET where one market of the event excludes the others."""
    return "MECNET" if kind in ("team", "range", "answer") else ""
