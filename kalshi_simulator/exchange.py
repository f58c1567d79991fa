"""The exchange as one thing: clock, layout, ledger and markets, and the state that carries them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kalshi_simulator import state as states
from kalshi_simulator.clock import SimulatedClock, wall_us
from kalshi_simulator.directory import Directory
from kalshi_simulator.figures import DAY_US, HOUR_US, parse_instant
from kalshi_simulator.generation import Rows
from kalshi_simulator.layout import NEWEST_PLAN, Layout
from kalshi_simulator.ledger import Epoch, Ledger
from kalshi_simulator.markets import Market, day_of
from kalshi_simulator.state import EpochState, TouchState, TradeState, WorldState


@dataclass(frozen=True, slots=True)
class Traded:
    """What a market has traded: volume and open interest in centis, the last trade (0 if none)."""

    volume: int
    interest: int
    last_e4: int
    last_centis: int


NOTHING_TRADED = Traded(0, 0, 0, 0)


class Exchange:
    """One world. What REST and WebSocket tell is read from here and nowhere else."""

    def __init__(self, state: WorldState, folder: Path | None, dormant_markets: int = 0) -> None:
        self.state = state
        self._folder = folder
        self.clock = SimulatedClock(
            state.wall_anchor_us, state.simulated_anchor_us, state.speed_milli
        )
        self.layout = Layout(state.seed, state.markets, state.begins_us, state.plan)
        self.ledger = Ledger(
            self.layout, [Epoch(epoch.from_us, epoch.trades_per_second) for epoch in state.epochs]
        )
        for trade in state.injected:
            self.ledger.inject(_row(trade))
        self.directory = Directory(self.layout, dormant_markets)
        for touch in state.touches:
            self.directory.touch(touch.us, touch.first, touch.count)
        now = self.clock.now()
        self.directory.advance(now)
        # Sums over all of history, so that the first question is not a slow one.
        self.ledger.totals(0, now)

    @property
    def cutoff_us(self) -> int:
        """Trades and settlements before this instant are in the historical tier."""
        return self.state.cutoff_us

    def move_cutoff(self, to: str | None) -> None:
        """Let the historical tier grow to an instant (ISO 8601), or by a day.

        Raises:
            ValueError: not an instant.
        """
        us = self.cutoff_us + DAY_US if to is None else parse_instant(to)
        self.state.cutoff_us = us
        self.save()

    def set_speed(self, speed_milli: int) -> None:
        """Let time run at another speed from now on; 0 holds it."""
        self.clock.go_on_at(speed_milli)
        self.state.wall_anchor_us = self.clock.wall_anchor_us
        self.state.simulated_anchor_us = self.clock.simulated_anchor_us
        self.state.speed_milli = self.clock.speed_milli
        self.save()

    def inject(self, trade: TradeState) -> None:
        """Add a trade to the ledger, for good."""
        self.ledger.inject(_row(trade))
        self.state.injected.append(trade)
        self.save()

    def touch(self, count: int) -> int:
        """Change so many dormant markets now, those of the last time last; how many it were."""
        first = sum(touch.count for touch in self.state.touches)
        now = self.clock.now()
        touched = self.directory.touch(now, first, count)
        self.state.touches.append(TouchState(now, first, touched))
        self.save()
        return touched

    def save(self) -> None:
        if self._folder is not None:
            states.save(self._folder, self.state)

    def traded(self, market: Market, before_us: int) -> Traded:
        """What a market has traded before an instant, block trades included."""
        end = min(before_us, market.close_us)
        if end <= market.open_us or market.is_dormant:
            return NOTHING_TRADED
        if end == market.close_us:
            tally = self.ledger.tally(market.slot, market.instance, end)
            if tally is not None:
                interest = max(0, tally.interest)
                return Traded(tally.volume, interest, tally.last_e4, tally.last_centis)
        opening = self.ledger.totals(market.slot, market.open_us)
        volume, interest = self.ledger.totals(market.slot, end)
        volume -= opening[0]
        last = self.ledger.last_of_slot(market.slot, market.open_us, end) if volume else None
        return Traded(volume, max(0, interest - opening[1]), *(last or (0, 0)))

    def volume(self, market: Market, before_us: int) -> int:
        """Centis traded in a market before an instant."""
        return self.traded(market, before_us).volume

    def last_trade(self, market: Market, before_us: int) -> tuple[int, int] | None:
        """Price (e4) and count (centis) of the last trade of a market before an instant."""
        end = min(before_us, market.close_us)
        return self.ledger.last_of_slot(market.slot, market.open_us, end)


def open_exchange(
    folder: Path | None,
    *,
    seed: int | None,
    markets: int | None,
    speed_milli: int,
    trades_per_second: float,
    history_trades_per_second: float,
    history_days: int,
    live_days: int | None,
    dormant_markets: int = 0,
    begin_hours_ago: float = 0,
) -> Exchange:
    """Go on with the world kept in a folder, or begin one.

    A rate other than the one in force holds from now on: what happened, happened.

    Raises:
        StateError: the folder holds another seed or another number of markets.
    """
    kept = states.load(folder) if folder else None
    if kept is None:
        kept = _new_state(
            7 if seed is None else seed,
            60 if markets is None else markets,
            speed_milli,
            trades_per_second,
            history_trades_per_second,
            history_days,
            live_days,
            round(begin_hours_ago * HOUR_US),
        )
    else:
        for name, asked, found in (
            ("seed", seed, kept.seed), ("markets", markets, kept.markets)
        ):  # fmt: skip
            if asked is not None and asked != found:
                raise states.StateError(
                    f"{folder} holds a world with {name} {found}, not {asked}; "
                    "choose another --state folder or leave the option out"
                )
        clock = SimulatedClock(kept.wall_anchor_us, kept.simulated_anchor_us, kept.speed_milli)
        clock.go_on_at(speed_milli)
        kept.wall_anchor_us = clock.wall_anchor_us
        kept.simulated_anchor_us = clock.simulated_anchor_us
        kept.speed_milli = clock.speed_milli
        if kept.epochs[-1].trades_per_second != trades_per_second:
            kept.epochs.append(EpochState(clock.now(), trades_per_second))
    exchange = Exchange(kept, folder, dormant_markets)
    exchange.save()
    return exchange


def _new_state(
    seed: int,
    markets: int,
    speed_milli: int,
    trades_per_second: float,
    history_trades_per_second: float,
    history_days: int,
    live_days: int | None,
    ago_us: int,
) -> WorldState:
    wall = wall_us()
    now = wall - ago_us
    begins = day_of(now) - history_days * DAY_US
    live = history_days // 2 if live_days is None else live_days
    return WorldState(
        plan=NEWEST_PLAN,
        seed=seed,
        markets=markets,
        begins_us=begins,
        started_us=now,
        cutoff_us=max(begins, day_of(now) - live * DAY_US),
        wall_anchor_us=wall,
        simulated_anchor_us=now,
        speed_milli=speed_milli,
        epochs=[
            EpochState(begins, history_trades_per_second),
            EpochState(now, trades_per_second),
        ],
    )


def _row(trade: TradeState) -> Rows:
    return Rows(
        np.array([trade.us], dtype=np.int64),
        np.array([trade.slot], dtype=np.int32),
        np.array([trade.price_e4], dtype=np.int32),
        np.array([trade.centis], dtype=np.int64),
        np.array([trade.flags], dtype=np.uint8),
        np.array([trade.high], dtype=np.uint64),
        np.array([trade.low], dtype=np.uint64),
    )
