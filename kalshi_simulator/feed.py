"""The feed: turns the passing of time into messages.

Trades come from the ledger as their time passes; each taker order is followed by a ticker; every
step of a second, quotes and watched books are compared with those of the step before.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np

from kalshi_simulator import bodies
from kalshi_simulator.births import Births
from kalshi_simulator.exchange import Exchange
from kalshi_simulator.generation import CLOSES, OPENS, ORDER_ENDS, Rows
from kalshi_simulator.hashing import hash_of, uuid_text
from kalshi_simulator.hub import Hub, Message
from kalshi_simulator.lifecycle import Timeline
from kalshi_simulator.markets import Market
from kalshi_simulator.names import market_id
from kalshi_simulator.quotes import STEP_US, book_at, level_size, quotes_at
from kalshi_simulator.subscriptions import BOOK, TICKER, TRADE

_PUMP_SECONDS = 0.01
_STEPS_AT_ONCE = 20  # older steps are skipped when the process could not keep up


@dataclass(slots=True)
class Running:
    """What the ticker of a slot's market says at the moment; centis and e4."""

    market: Market
    market_id: str
    volume: int
    interest: int
    last_e4: int
    last_centis: int
    bid_e4: int = 0
    ask_e4: int = 10_000
    bid_centis: int = 0
    ask_centis: int = 0


class Feed:
    """Moves the exchange forward and publishes what happens."""

    def __init__(
        self,
        exchange: Exchange,
        hub: Hub,
        messages_per_second: int = 0,
        combo_births_per_second: int = 0,
    ) -> None:
        """Both rates are of the wall clock; 0 is off.

        `messages_per_second` tops the feed up with tickers (load mode), `combo_births_per_second`
        adds combos that are created and never heard of again, as nearly all are.
        """
        self._births = Births(combo_births_per_second, exchange.clock.now())
        self.exchange = exchange
        self.hub = hub
        self.messages_per_second = messages_per_second
        self.timeline = Timeline(exchange.directory)
        self.at_us = exchange.clock.now()
        self._slots = np.arange(len(exchange.layout.slots), dtype=np.int64)
        self._running = [self._enter(slot, self.at_us) for slot in range(len(self._slots))]
        self._books: dict[str, tuple[int, dict[int, int], dict[int, int]]] = {}
        self._owed = 0.0
        self._filled = 0
        self._pumped_at = time.monotonic()
        self._move_quotes(self.at_us)

    async def run(self) -> None:
        """Pump until cancelled."""
        while True:
            await asyncio.sleep(_PUMP_SECONDS)
            self.advance(self.exchange.clock.now())

    def advance(self, now_us: int) -> None:
        """Let time pass up to an instant (exclusive) and publish what happened."""
        self.exchange.directory.advance(now_us)
        messages: list[Message] = []
        while self.at_us < now_us:
            boundary = (self.at_us // STEP_US + 1) * STEP_US
            if now_us - self.at_us > _STEPS_AT_ONCE * STEP_US:
                boundary = (now_us // STEP_US) * STEP_US
            end = min(boundary, now_us)
            messages += [moment.message for moment in self.timeline.between(self.at_us, end)]
            self._trade(self.exchange.ledger.rows_between(self.at_us, end), messages)
            if end == boundary:
                self._step(end, messages)
            self.at_us = end
        self._add_load(messages)
        if messages:
            self.hub.publish(messages)

    # What clients ask for: see commands.Source.

    def now_ms(self) -> int:
        return self.exchange.clock.now() // 1_000

    def ticker_of_id(self, wanted: str) -> str | None:
        return next((r.market.ticker for r in self._running if r.market_id == wanted), None)

    def known_tickers(self) -> list[str]:
        return [running.market.ticker for running in self._running]

    def ticker(self, ticker: str) -> bytes | None:
        running = next((r for r in self._running if r.market.ticker == ticker), None)
        return None if running is None else _ticker_body(running, self.at_us)

    def snapshot(self, ticker: str, use_yes_price: bool) -> bytes | None:
        market = self.exchange.directory.find(ticker)
        if market is None:
            return None
        if ticker not in self._books:
            self._books[ticker] = (market.slot, *self._book(market, self._step_us()))
        _, yes, no = self._books[ticker]
        return bodies.snapshot_message(ticker, market_id(market.key), yes, no, use_yes_price)

    def recount(self, slot: int) -> None:
        """Take up a trade that was added to the past: the odometer has it, the stream never."""
        running = self._running[slot]
        fresh = self._enter(slot, self.at_us)
        running.volume, running.interest = fresh.volume, fresh.interest

    def _step_us(self) -> int:
        return self.at_us // STEP_US * STEP_US

    def _book(self, market: Market, us: int) -> tuple[dict[int, int], dict[int, int]]:
        if market.status_at(us) not in ("active", "inactive") or market.is_dormant:
            return {}, {}
        return book_at(self.exchange.layout, market.slot, us)

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

    def _trade(self, rows: Rows, messages: list[Message]) -> None:
        heard = bool(self.hub.clients)
        columns = zip(
            rows.us.tolist(), rows.slot.tolist(), rows.price_e4.tolist(), rows.centis.tolist(),
            rows.flags.tolist(), rows.high.tolist(), rows.low.tolist(), strict=True,
        )  # fmt: skip
        for us, slot, price, centis, flags, high, low in columns:
            running = self._running[slot]
            if us >= running.market.planned_close_us:
                running = self._running[slot] = self._enter(slot, us)
                self._refresh(running, us)
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

    def _step(self, us: int, messages: list[Message]) -> None:
        for slot, running in enumerate(self._running):
            if us >= running.market.planned_close_us:
                self._running[slot] = self._enter(slot, us)
        for running in self._move_quotes(us):
            if running.market.status_at(us) == "active" and self.hub.clients:
                body = _ticker_body(running, us)
                messages.append(Message(TICKER, TICKER, running.market.ticker, body))
        self._move_books(us, messages)

    def _refresh(self, running: Running, us: int) -> None:
        """Quotes of a market that has just come to its slot."""
        step = us // STEP_US * STEP_US
        slots = np.array([running.market.slot])
        quotes = quotes_at(self.exchange.layout, slots, np.array([max(step, us)]))
        self._take(running, int(quotes.bid_e4()[0]), int(quotes.ask_e4()[0]), step)

    def _take(self, running: Running, bid_e4: int, ask_e4: int, us: int) -> bool:
        """Set quotes; whether anything is different now."""
        step, key = us // STEP_US, running.market.key
        before = (running.bid_e4, running.ask_e4, running.bid_centis, running.ask_centis)
        running.bid_e4, running.ask_e4 = bid_e4, ask_e4
        running.bid_centis = level_size(key, 0, bid_e4, step)
        running.ask_centis = level_size(key, 1, 10_000 - ask_e4, step)
        return before != (bid_e4, ask_e4, running.bid_centis, running.ask_centis)

    def _move_quotes(self, us: int) -> list[Running]:
        """Set all quotes to those of a step; the markets where something changed."""
        instants = np.full(len(self._slots), us, dtype=np.int64)
        quotes = quotes_at(self.exchange.layout, self._slots, instants)
        pairs = zip(self._running, quotes.bid_e4().tolist(), quotes.ask_e4().tolist(), strict=True)
        return [running for running, bid, ask in pairs if self._take(running, bid, ask, us)]

    def _move_books(self, us: int, messages: list[Message]) -> None:
        if not self._books:
            return
        watched = {
            ticker
            for client in self.hub.clients.values()
            for subscription in client.subscriptions.values()
            if subscription.channel == BOOK
            for ticker in subscription.tickers or ()
        }
        for ticker in list(self._books):
            market = self.exchange.directory.find(ticker)
            if ticker not in watched or market is None:
                del self._books[ticker]
                continue
            slot, *sides = self._books[ticker]
            fresh = self._book(market, us)
            identity = market_id(market.key)
            for name, old, new in zip(("yes", "no"), sides, fresh, strict=True):
                for e4 in sorted(old.keys() | new.keys()):
                    change = new.get(e4, 0) - old.get(e4, 0)
                    if change:
                        body = bodies.delta_message(ticker, identity, name, e4, change, us)
                        yes_body = (
                            bodies.delta_message(ticker, identity, name, 10_000 - e4, change, us)
                            if name == "no"
                            else None
                        )
                        messages.append(Message(BOOK, BOOK, ticker, body, yes_body))
            self._books[ticker] = (slot, *fresh)

    def _add_load(self, messages: list[Message]) -> None:
        """What load is asked for, by the wall clock; none while time stands still."""
        now = time.monotonic()
        passed, self._pumped_at = min(now - self._pumped_at, 0.5), now
        if not self.hub.clients or self.exchange.clock.stands_still:
            return
        messages += self._births.after(passed, self.at_us)
        if self.messages_per_second:
            self._top_up(messages, passed)

    def _top_up(self, messages: list[Message], passed: float) -> None:
        """Tickers that differ in a size only, until the rate is reached."""
        rate = self.messages_per_second
        self._owed = max(-rate, self._owed + rate * passed - len(messages))
        active = [r for r in self._running if r.market.status_at(self.at_us) == "active"]
        if not active:
            return
        for _ in range(int(self._owed)):
            self._filled += 1
            running = active[hash_of(self._filled) % len(active)]
            body = _ticker_body(running, self.at_us, self._filled % 89)
            messages.append(Message(TICKER, TICKER, running.market.ticker, body))
            self._owed -= 1


def _ticker_body(running: Running, us: int, more_centis: int = 0) -> bytes:
    return bodies.ticker_message(
        running.market.ticker,
        running.market_id,
        last_e4=running.last_e4,
        last_centis=running.last_centis,
        bid_e4=running.bid_e4,
        ask_e4=running.ask_e4,
        bid_centis=running.bid_centis + more_centis,
        ask_centis=running.ask_centis,
        volume_centis=running.volume,
        interest_centis=max(0, running.interest),
        us=us,
    )
