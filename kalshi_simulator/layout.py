"""The shape of the made-up exchange: which series there are and how many markets each has open.

A *slot* is a place where one market at a time is open: "third strike of the quarter-hour bitcoin
event". Markets follow one another in their slot, instance after instance, so a market is named by
(slot, instance) and its ticker follows from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kalshi_simulator import ticks
from kalshi_simulator.figures import DAY_US, HOUR_US, MINUTE_US
from kalshi_simulator.hashing import Integers, Words, hash_of, hash_words, text_seed

LONG_LIFE_US = 400 * DAY_US
QUIET = 15  # the temper of a market to which nothing unusual happens


@dataclass(frozen=True)
class SeriesPlan:
    """What all markets of a series have in common; times in microseconds."""

    ticker: str
    title: str
    category: str
    tags: tuple[str, ...]
    frequency: str
    kind: str  # strike, range, answer, team, rate or combo: how markets are named
    structure: str
    fee_type: str
    period_us: int | None  # None: one market per slot that outlives the simulation
    offset_us: int
    lead_us: int  # created so long before it opens
    deciding_us: int  # from close to determined
    timer_us: int  # from determined to settled
    # "listed"; "unlisted": its events name it, yet REST knows it not; "none": its events name none.
    listing: str = "listed"

    @property
    def is_combo(self) -> bool:
        return self.kind == "combo"

    @property
    def named(self) -> str:
        """The series_ticker that its events bear."""
        return "" if self.listing == "none" else self.ticker


@dataclass(frozen=True)
class Slot:
    """One place for a market: a series, the event's lane in it, the leg within the event."""

    number: int
    series: SeriesPlan
    lane: int
    leg: int
    legs: int


_SECOND = MINUTE_US // 60
BITCOIN = SeriesPlan(
    "KXBTC15M", "Bitcoin price in 15 minutes", "Crypto", ("BTC",), "fifteen_min", "strike",
    "tapered_deci_cent", "quadratic", 15 * MINUTE_US, 0, 10 * MINUTE_US, 20 * _SECOND, 60 * _SECOND,
)  # fmt: skip
QUICK = SeriesPlan(
    "KXQUICKSETTLE", "What will 1+1 equal", "Exotics", (), "custom", "answer",
    "linear_cent", "flat", 5 * MINUTE_US, 0, 2 * MINUTE_US, 8 * _SECOND, 15 * _SECOND,
)  # fmt: skip
COMBO = SeriesPlan(
    "KXMVESPORTSMULTIGAMEEXTENDED", "Sports combo", "Sports", (), "custom", "combo",
    "center_deci_edge_centi_cent", "quadratic_with_combo_maker_fees",
    10 * MINUTE_US, 3 * MINUTE_US, 30 * _SECOND, 10 * _SECOND, 5 * _SECOND,
)  # fmt: skip
FOOTBALL = SeriesPlan(
    "KXNFLGAME", "Professional Football Game", "Sports", ("Football",), "custom", "team",
    "linear_cent", "quadratic_with_maker_fees", None, 0, DAY_US, HOUR_US, 90 * _SECOND,
)  # fmt: skip
WEATHER = SeriesPlan(
    "KXHIGHNY", "Highest temperature in NYC", "Climate and Weather", ("Daily temperature",),
    "daily", "range", "linear_cent", "quadratic", DAY_US, 5 * HOUR_US, DAY_US,
    2 * HOUR_US, 90 * _SECOND,
)  # fmt: skip
ETHER = SeriesPlan(
    "KXETHH", "Ethereum price this hour", "Crypto", ("ETH",), "hourly", "strike",
    "deci_cent", "quadratic", HOUR_US, 0, 30 * MINUTE_US, 30 * _SECOND, 120 * _SECOND,
)  # fmt: skip
RATES = SeriesPlan(
    "KXFED", "Fed funds rate", "Economics", ("Fed",), "monthly", "rate",
    "center_half_edge_deci_cent", "quadratic", None, 0, DAY_US, HOUR_US, HOUR_US,
)  # fmt: skip
# Events without a series, and events whose series answers 404: both exist.
ONE_OFF = SeriesPlan(
    "KXONEOFF", "A question of its own", "Social", (), "one_off", "answer",
    "linear_cent", "quadratic", 30 * MINUTE_US, 5 * MINUTE_US, 10 * MINUTE_US,
    15 * _SECOND, 45 * _SECOND, "none",
)  # fmt: skip
UNLISTED = SeriesPlan(
    "KXGOLD20M", "Gold price in 20 minutes", "Commodities", ("Gold",), "custom", "strike",
    "deci_cent", "quadratic", 20 * MINUTE_US, 0, 10 * MINUTE_US,
    20 * _SECOND, 60 * _SECOND, "unlisted",
)  # fmt: skip

# Mixed, so that a small world has something of everything.
_ORDER = (
    (BITCOIN, 3), (QUICK, 2), (COMBO, 1), (FOOTBALL, 3), (WEATHER, 4), (ETHER, 4), (COMBO, 1),
    (COMBO, 1), (RATES, 5), (BITCOIN, 3), (COMBO, 1), (COMBO, 1), (WEATHER, 4), (COMBO, 1),
)  # fmt: skip
_ORDER_2 = ((ONE_OFF, 2), (UNLISTED, 2))
ALL_SERIES = (BITCOIN, QUICK, COMBO, FOOTBALL, WEATHER, ETHER, RATES, ONE_OFF, UNLISTED)
# Worlds begun before there were reopenings, disputes and series that are not listed go on as they
# were: what happened, happened.
FIRST_PLAN, NEWEST_PLAN = 1, 2
_LAST_TEMPER = {1: 7, 2: 10}


class Layout:
    """All slots, with what the arithmetic needs of them as arrays indexed by slot number."""

    def __init__(
        self, seed: int, markets: int, begins_us: int, plan_number: int = NEWEST_PLAN
    ) -> None:
        """Lay out `markets` slots; markets that outlive the simulation open at begins_us."""
        self.seed = seed
        self.begins_us = begins_us
        self.slots = _slots(markets, plan_number)
        self._last_temper = _LAST_TEMPER[plan_number]
        plans = [slot.series for slot in self.slots]
        self.series = tuple(plan for plan in ALL_SERIES if plan in plans)
        self.period_us: Integers = np.array(
            [plan.period_us or LONG_LIFE_US for plan in plans], dtype=np.int64
        )
        self.origin_us: Integers = np.array(
            [begins_us if plan.period_us is None else plan.offset_us for plan in plans],
            dtype=np.int64,
        )
        self.structure: Integers = np.array(
            [ticks.STRUCTURES.index(plan.structure) for plan in plans], dtype=np.int64
        )
        self.key: Words = np.array(
            [hash_of(seed, text_seed(slot.series.ticker), slot.lane, slot.leg)
             for slot in self.slots], dtype=np.uint64,
        )  # fmt: skip
        self.ordinary = [slot.number for slot in self.slots if not slot.series.is_combo]
        self.lively = np.array([plan.period_us is not None for plan in plans])
        self.shares = _shares(seed, markets)

    def instance_at(self, slots: Integers, us: Integers) -> Integers:
        """Number of the market that has the slot at an instant."""
        return np.asarray((us - self.origin_us[slots]) // self.period_us[slots])

    def market_keys(self, slots: Integers, instances: Integers) -> Words:
        """A word per market, from which everything about it is drawn."""
        return hash_words(self.key[slots], instances)

    def tempers(self, slots: Integers, instances: Integers) -> Integers:
        """What befalls a market, 0 to 15; see `schedule`."""
        drawn = (self.market_keys(slots, instances) >> np.uint64(60)).astype(np.int64)
        return np.where(self.lively[slots] & (drawn <= self._last_temper), drawn, QUIET)

    def temper(self, slot: int, key: int) -> int:
        """What befalls the market of a slot that has the key: `tempers` for one."""
        drawn = key >> 60
        return drawn if self.lively[slot] and drawn <= self._last_temper else QUIET


def _slots(markets: int, plan_number: int) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    lanes: dict[str, int] = {}
    order = list(_ORDER if plan_number == FIRST_PLAN else _ORDER + _ORDER_2)
    while len(slots) < markets:
        plan, legs = order.pop(0) if order else (FOOTBALL, 3)
        lane = lanes.get(plan.ticker, 0)
        lanes[plan.ticker] = lane + 1
        legs = min(legs, markets - len(slots))
        slots += [Slot(len(slots) + leg, plan, lane, leg, legs) for leg in range(legs)]
    return tuple(slots)


def _shares(seed: int, markets: int) -> npt.NDArray[np.float64]:
    """Cumulative share of activity by slot, after Zipf: few markets have most of the trades.

    A probability, not a price: the one place where a float decides anything.
    """
    ranks = sorted(range(markets), key=lambda slot: hash_of(seed, 77, slot))
    weights = np.zeros(markets)
    for rank, slot in enumerate(ranks):
        weights[slot] = 1.0 / (rank + 2)
    return np.asarray(np.cumsum(weights) / weights.sum())
