"""Dormant markets: listed over REST, never quoted or traded, as most markets of the exchange are.

They are older than everything else, three to an event, and change only when they are touched by
hand. Nothing on the stream ever speaks of them.
"""

from __future__ import annotations

from dataclasses import replace

from kalshi_simulator.figures import DAY_US
from kalshi_simulator.hashing import hash_of
from kalshi_simulator.layout import LONG_LIFE_US, QUIET, SeriesPlan
from kalshi_simulator.markets import DORMANT_SLOT, NEVER, Market
from kalshi_simulator.names import Names

_LEGS = 3
_EVENTS_PER_SERIES = 1_000
MARKETS_PER_SERIES = _LEGS * _EVENTS_PER_SERIES
_SPREAD_US = 30 * DAY_US  # they were created within so long,
_AGE_US = 5 * DAY_US  # which ended so long before the world began

_PLAN = SeriesPlan(
    "KXDORMANT", "Seldom asked", "World", ("Archive",), "one_off", "dormant",
    "linear_cent", "quadratic", None, 0, 0, 0, 60_000_000,
)  # fmt: skip


def dormant_plans(count: int) -> list[SeriesPlan]:
    """The series of so many dormant markets."""
    series = -(-count // MARKETS_PER_SERIES)
    return [
        replace(_PLAN, ticker=f"{_PLAN.ticker}{number:03d}", title=f"{_PLAN.title} {number}")
        for number in range(series)
    ]


def dormant_markets(seed: int, count: int, begins_us: int) -> list[Market]:
    """So many dormant markets, in order of creation.

    Most are open; of each hundred one is not open yet and one is paused, and of each two hundred
    one closed long ago and still waits for its result.
    """
    first = begins_us - _AGE_US - _SPREAD_US
    step = _SPREAD_US // max(count, 1)
    made = []
    for number in range(count):
        event, leg = divmod(number, _LEGS)
        event_ticker = f"{_PLAN.ticker}{event // _EVENTS_PER_SERIES:03d}-{event:06d}"
        # A microsecond of its own each, ascending.
        created = first + number * step + number % 997 % max(1, step)
        opened = begins_us + LONG_LIFE_US // 2 if number % 100 == 37 else created + 60_000_000
        closed = begins_us - DAY_US if number % 200 == 151 else begins_us + LONG_LIFE_US
        made.append(Market(
            DORMANT_SLOT, number, hash_of(seed, 4_242, number), QUIET,
            f"{event_ticker}-{'ABC'[leg]}", event_ticker, created, opened, closed, closed,
            (opened, NEVER, "inactive") if number % 100 == 73 else None,
            NEVER, NEVER, NEVER, NEVER, [created],
        ))  # fmt: skip
    return made


def dormant_names(market: Market) -> Names:
    """The words of a dormant market."""
    leg = market.ticker[-1]
    question = f"Which answer to question {market.instance // _LEGS}"
    return Names(
        market.ticker, market.event_ticker, f"{question}?", f"Question {market.instance // _LEGS}",
        f"{question}: {leg}?", f"Answer {leg}", f"Answer {leg}", {"strike_type": "custom"},
    )  # fmt: skip
