"""Watched books: what the stream has told of them, and the deltas that lead on from there.

What has been told of a book is always what stood in it at the step that the feed has reached, so a
snapshot may be given at any moment, and the deltas after it lead from it to every later step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kalshi_simulator import bodies
from kalshi_simulator.exchange import Exchange
from kalshi_simulator.figures import DOLLAR_E4
from kalshi_simulator.hub import Message
from kalshi_simulator.markets import Market
from kalshi_simulator.names import market_id
from kalshi_simulator.standing import Book, Side, books_at, books_of, has_book
from kalshi_simulator.subscriptions import BOOK

_EMPTY = Book({}, {})


@dataclass(slots=True)
class _Told:
    """A watched market and its book as told; `head` begins each of its deltas."""

    market: Market
    head: str
    book: Book


class WatchedBooks:
    """The books that anybody watches."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._told: dict[str, _Told] = {}
        self._filled = 0

    def snapshots(self, tickers: Iterable[str], us: int, use_yes_price: bool) -> list[bytes]:
        """`msg` of snapshots of the markets that are known, as of the step reached at an instant.

        From here on their deltas are made.
        """
        markets = [m for ticker in tickers if (m := self._exchange.directory.find(ticker))]
        fresh = [market for market in markets if market.ticker not in self._told]
        for market, book in zip(fresh, books_of(self._exchange.layout, fresh, us), strict=True):
            identity = market_id(market.key)
            head = bodies.delta_head(market.ticker, identity)
            self._told[market.ticker] = _Told(market, head, book)
        return [
            bodies.snapshot_message(
                market.ticker,
                market_id(market.key),
                *self._told[market.ticker].book,
                use_yes_price,
            )
            for market in markets
        ]

    def move(self, watched: set[str], in_yes: bool, steps: Sequence[int]) -> list[list[Message]]:
        """The deltas of each of several steps; `in_yes`: somebody wants no sides in yes terms.

        Books that nobody watches any more are forgotten.
        """
        if self._told.keys() - watched:
            self._told = {ticker: self._told[ticker] for ticker in watched & self._told.keys()}
        told = list(self._told.values())
        if not told:
            return [[] for _ in steps]
        found: list[list[Message]] = []
        for us, books in zip(steps, self._books(told, steps), strict=True):
            messages: list[Message] = []
            tail = bodies.delta_tail(us)
            for one, book in zip(told, books, strict=True):
                if one.book != book:
                    _differ(one, book, tail, in_yes, messages)
                    one.book = book
            found.append(messages)
        return found

    def _books(self, told: list[_Told], steps: Sequence[int]) -> list[list[Book]]:
        """The books of all that are watched, by step."""
        books = [[_EMPTY] * len(told) for _ in steps]
        places = [
            (number, which)
            for number, us in enumerate(steps)
            for which, one in enumerate(told)
            if has_book(one.market, us)
        ]
        if places:
            slots = np.array([told[which].market.slot for _, which in places], dtype=np.int64)
            instants = np.array([steps[number] for number, _ in places], dtype=np.int64)
            found = books_at(self._exchange.layout, slots, instants)
            for (number, which), book in zip(places, found, strict=True):
                books[number][which] = book
        return books

    def load(self, pairs: int, us: int, in_yes: bool) -> list[Message]:
        """So many pairs of deltas that cancel each other, round and round over what is watched."""
        told = [one for one in self._told.values() if one.book.yes or one.book.no]
        if not told:
            return []
        tail = bodies.delta_tail(us)
        messages: list[Message] = []
        for turn in range(self._filled, self._filled + pairs):
            one = told[turn % len(told)]
            name, side = ("no", one.book.no) if turn // len(told) % 2 else ("yes", one.book.yes)
            if not side:
                name, side = ("yes", one.book.yes) if name == "no" else ("no", one.book.no)
            prices = list(side)
            e4, centis = prices[turn // len(told) // 2 % len(prices)], 100 + turn % 9_973
            messages.append(_delta(one, name, e4, centis, tail, in_yes))
            messages.append(_delta(one, name, e4, -centis, tail, in_yes))
        self._filled += pairs
        return messages


def _differ(one: _Told, book: Book, tail: str, in_yes: bool, messages: list[Message]) -> None:
    """The deltas from what was told to a book; what goes first goes away, so nothing crosses."""
    gone: list[tuple[str, int, int]] = []
    come: list[tuple[str, int, int]] = []
    for name, before, after in (("yes", one.book.yes, book.yes), ("no", one.book.no, book.no)):
        for e4, change in _changes(before, after):
            (come if change > 0 else gone).append((name, e4, change))
    messages += [_delta(one, name, e4, change, tail, in_yes) for name, e4, change in gone + come]


def _changes(before: Side, after: Side) -> list[tuple[int, int]]:
    changes = [(e4, after.get(e4, 0) - before.get(e4, 0)) for e4 in before.keys() | after.keys()]
    return sorted(change for change in changes if change[1])


def _delta(one: _Told, side: str, e4: int, change: int, tail: str, in_yes: bool) -> Message:
    body = bodies.delta_message(one.head, side, e4, change, tail)
    yes_body = None
    if in_yes and side == "no":
        yes_body = bodies.delta_message(one.head, side, DOLLAR_E4 - e4, change, tail)
    return Message(BOOK, BOOK, one.market.ticker, body, yes_body)
