"""The feed: turns the passing of time into messages.

Trades come from the ledger as their time passes; each taker order is followed by a ticker. At the
start of every step of a second in which anything changed of what stands in a book, deltas and a
ticker say so, and bear the very instant of the step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kalshi_simulator import bodies
from kalshi_simulator.births import Births
from kalshi_simulator.exchange import Exchange
from kalshi_simulator.figures import HOUR_US
from kalshi_simulator.generation import CLOSES, OPENS, ORDER_ENDS, Rows
from kalshi_simulator.hashing import Integers, hash_of, uuid_text
from kalshi_simulator.hub import Hub, Message
from kalshi_simulator.lifecycle import Timeline
from kalshi_simulator.load import Debt, Rates, WallTime
from kalshi_simulator.markets import Market
from kalshi_simulator.names import market_id
from kalshi_simulator.schedule import STEP_US
from kalshi_simulator.standing import NO_TOP, Top, tops_at
from kalshi_simulator.subscriptions import BOOK, TICKER, TRADE
from kalshi_simulator.watched import WatchedBooks

_PUMP_SECONDS = 0.01
_STEPS_AT_ONCE = 30  # as many are told without a look at the sockets
_CAUGHT_UP_AT_ONCE = 300
# A feed that is further behind (a machine that slept) tells only how things stand in the end.
_FORGOTTEN_US = HOUR_US


@dataclass(slots=True)
class Running:
    """What the ticker of a slot's market says at the moment; centis and e4."""

    market: Market
    market_id: str
    volume: int
    interest: int
    last_e4: int
    last_centis: int
    top: Top = NO_TOP


class Feed:
    """Moves the exchange forward and publishes what happens."""

    def __init__(self, exchange: Exchange, hub: Hub, rates: Rates | None = None) -> None:
        rates = rates or Rates()
        self.exchange = exchange
        self.hub = hub
        self.timeline = Timeline(exchange.directory)
        self.at_us = exchange.clock.now()
        self._births = Births(rates.combo_births, self.at_us)
        self._tickers_owed, self._deltas_owed = Debt(rates.messages), Debt(rates.deltas, unit=2)
        self._filled = 0
        self._wall = WallTime()
        self._slots = np.arange(len(exchange.layout.slots), dtype=np.int64)
        self._running = [self._enter(slot, self.at_us) for slot in range(len(self._slots))]
        self._books = WatchedBooks(exchange)
        # What has been told of each slot: instance, then the columns of its top.
        self._told = self._stand([self.at_us])[0]
        for running, (_, *top) in zip(self._running, self._told.tolist(), strict=True):
            running.top = Top(*top)

    async def run(self) -> None:
        """Pump until cancelled."""
        while True:
            now = self.exchange.clock.now()
            behind = now - self.at_us
            is_late = _STEPS_AT_ONCE * STEP_US < behind <= _FORGOTTEN_US and bool(self.hub.clients)
            self.advance(self.at_us + _STEPS_AT_ONCE * STEP_US if is_late else now)
            await asyncio.sleep(0 if is_late else _PUMP_SECONDS)

    def advance(self, now_us: int) -> None:
        """Let time pass up to an instant (exclusive) and publish what happened."""
        self.exchange.directory.advance(now_us)
        steps = self._steps_until(now_us)
        told = natural = 0
        while steps:
            some, steps = steps[:_STEPS_AT_ONCE], steps[_STEPS_AT_ONCE:]
            messages: list[Message] = []
            deltas = self._books.move(*self._watched(), some)
            for us, changes, of_books in zip(some, self._changes(some), deltas, strict=True):
                self._pass(us, messages)
                messages += of_books
                self._tell_tops(us, changes, messages)
                natural += len(of_books)
            self.hub.publish(messages)
            told += len(messages)
        messages = []
        self._pass(now_us, messages)
        self._add_load(messages, told + len(messages), natural)
        if messages:
            self.hub.publish(messages)

    # What clients ask for: see commands.Source.

    def catch_up(self) -> None:
        """Tell what has happened by now (or much of it), so that answers are not of the past."""
        most = self.at_us + _CAUGHT_UP_AT_ONCE * STEP_US
        now = self.exchange.clock.now()
        self.advance(now if now - self.at_us > _FORGOTTEN_US else min(now, most))

    def now_ms(self) -> int:
        """The time that the stream has come to, which frames bear as their sending time.

        At a high speed it is seconds behind the clock; frames from the clock's present would seem
        to have waited, and to say that all before them had been told.
        """
        return self.at_us // 1_000

    def ticker_of_id(self, wanted: str) -> str | None:
        return next((r.market.ticker for r in self._running if r.market_id == wanted), None)

    def is_known(self, ticker: str) -> bool:
        return self.exchange.directory.find(ticker) is not None

    def tickers(self, wanted: Iterable[str] | None) -> list[bytes]:
        """`msg` of tickers as they stand; None wants every market that is open or paused."""
        running = {r.market.ticker: r for r in self._running}
        if wanted is None:
            shown = ("active", "inactive")
            wanted = [t for t, r in running.items() if r.market.status_at(self.at_us) in shown]
        found = [running[ticker] for ticker in sorted(wanted) if ticker in running]
        return [_ticker_body(one, self.at_us) for one in found]

    def snapshots(self, tickers: Iterable[str], use_yes_price: bool) -> list[bytes]:
        return self._books.snapshots(sorted(tickers), self.at_us, use_yes_price)

    def recount(self, slot: int) -> None:
        """Take up a trade that was added to the past: the odometer has it, the stream never."""
        running = self._running[slot]
        fresh = self._enter(slot, self.at_us)
        running.volume, running.interest = fresh.volume, fresh.interest

    def _enter(self, slot: int, us: int) -> Running:
        market = self.exchange.directory.at(slot, us)
        traded = self.exchange.traded(market, us)
        # Below zero here where REST shows none: what follows is added to it.
        before = self.exchange.ledger.totals(slot, market.open_us)[1]
        interest = self.exchange.ledger.totals(slot, min(us, market.close_us))[1] - before
        return Running(
            market, market_id(market.key), traded.volume, interest,
            traded.last_e4, traded.last_centis,
        )  # fmt: skip

    def _steps_until(self, now_us: int) -> Sequence[int]:
        """Starts of the steps to be told; only the last one where nobody hears, or too late."""
        first, last = (self.at_us // STEP_US + 1) * STEP_US, now_us // STEP_US * STEP_US
        if not self.hub.clients or now_us - self.at_us > _FORGOTTEN_US:
            first = max(first, last)
        return range(first, last + 1, STEP_US)

    def _pass(self, to_us: int, messages: list[Message]) -> None:
        """Let happen what happens before an instant."""
        if to_us > self.at_us:
            messages += [moment.message for moment in self.timeline.between(self.at_us, to_us)]
            self._trade(self.exchange.ledger.rows_between(self.at_us, to_us), messages)
            self.at_us = to_us

    def _trade(self, rows: Rows, messages: list[Message]) -> None:
        heard = bool(self.hub.clients)
        columns = zip(
            rows.us.tolist(), rows.slot.tolist(), rows.price_e4.tolist(), rows.centis.tolist(),
            rows.flags.tolist(), rows.high.tolist(), rows.low.tolist(), strict=True,
        )  # fmt: skip
        for us, slot, price, centis, flags, high, low in columns:
            running = self._running[slot]
            if us >= running.market.planned_close_us:
                # Only where steps are left out.
                running = self._running[slot] = self._enter(slot, us)
            running.volume += centis
            running.interest += centis if flags & OPENS else -centis if flags & CLOSES else 0
            running.last_e4, running.last_centis = price, centis
            if heard:
                ticker = running.market.ticker
                identity = uuid_text(high, low)
                body = bodies.trade_message(identity, ticker, price, centis, flags, us)
                messages.append(Message(TRADE, TRADE, ticker, body))
                if flags & ORDER_ENDS:
                    messages.append(Message(TICKER, TICKER, ticker, _ticker_body(running, us)))

    def _stand(self, instants: Sequence[int]) -> Integers:
        """Instance and top of all slots at several instants: instants, slots, five columns."""
        layout, count = self.exchange.layout, len(self._slots)
        slots = np.tile(self._slots, len(instants))
        us = np.repeat(np.array(instants, dtype=np.int64), count)
        columns = (layout.instance_at(slots, us), *tops_at(layout, slots, us).columns())
        return np.stack(columns, axis=1).reshape(len(instants), count, 5)

    def _changes(self, steps: Sequence[int]) -> Iterator[list[tuple[int, list[int]]]]:
        """For each step, the slots of which anything is new, with instance and top."""
        stand = self._stand(steps)
        differs = (stand != np.concatenate([self._told[None], stand[:-1]])).any(axis=2)
        self._told = stand[-1]
        for now, which in zip(stand, differs, strict=True):
            slots = np.flatnonzero(which)
            yield list(zip(slots.tolist(), now[slots].tolist(), strict=True))

    def _tell_tops(
        self, us: int, changes: list[tuple[int, list[int]]], messages: list[Message]
    ) -> None:
        """Tickers of the slots where anything changed; a market that has ended shows nothing."""

        def tell(running: Running, top: Top) -> None:
            if running.top != top:
                running.top = top
                body = _ticker_body(running, us)
                messages.append(Message(TICKER, TICKER, running.market.ticker, body))

        for slot, (instance, *top) in changes:
            running = self._running[slot]
            if running.market.instance != instance:
                tell(running, NO_TOP)
                running = self._running[slot] = self._enter(slot, us)
            tell(running, Top(*top))

    def _watched(self) -> tuple[set[str], bool]:
        """Tickers whose books anybody watches, and whether anybody wants no sides in yes terms."""
        watched: set[str] = set()
        in_yes = False
        for client in self.hub.clients.values():
            for subscription in client.subscriptions.values():
                if subscription.channel == BOOK:
                    watched |= subscription.tickers or set()
                    in_yes |= subscription.use_yes_price
        return watched, in_yes

    def _add_load(self, messages: list[Message], told: int, deltas: int) -> None:
        """What load is asked for beyond what was told; none while time stands still."""
        passed = self._wall.passed()
        if not self.hub.clients or self.exchange.clock.stands_still:
            return
        load = self._births.after(passed, self.at_us)
        if due := self._deltas_owed.due(passed, deltas):
            load += self._books.load(due // 2, self.at_us, self._watched()[1])
        messages += load
        due = self._tickers_owed.due(passed, told + len(load))
        active = [r for r in self._running if due and r.market.status_at(self.at_us) == "active"]
        for _ in range(due if active else 0):
            self._filled += 1
            running = active[hash_of(self._filled) % len(active)]
            body = _ticker_body(running, self.at_us, self._filled % 89)
            messages.append(Message(TICKER, TICKER, running.market.ticker, body))


def _ticker_body(running: Running, us: int, more_centis: int = 0) -> bytes:
    return bodies.ticker_message(
        running.market.ticker,
        running.market_id,
        last_e4=running.last_e4,
        last_centis=running.last_centis,
        bid_e4=running.top.bid_e4,
        ask_e4=running.top.ask_e4,
        bid_centis=running.top.bid_centis + more_centis,
        ask_centis=running.top.ask_centis,
        volume_centis=running.volume,
        interest_centis=max(0, running.interest),
        us=us,
    )
