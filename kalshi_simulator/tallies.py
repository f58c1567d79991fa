"""What each market traded in all, kept as blocks of trades go by.

A page of a thousand settled markets would otherwise have to look into as many blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kalshi_simulator.generation import CLOSES, OPENS, Rows
from kalshi_simulator.hashing import Integers
from kalshi_simulator.layout import Layout

_INSTANCES = 1 << 32


@dataclass(slots=True)
class Tally:
    """Volume and open interest in centis, and the last trade: time (us), price (e4), centis."""

    volume: int
    interest: int
    last_us: int
    last_e4: int
    last_centis: int


class Tallies:
    """By slot and instance; whole for markets whose last block has been counted."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._tallies: dict[int, Tally] = {}

    def of(self, slot: int, instance: int) -> Tally | None:
        """What a market has traded in the blocks counted so far; None if it has not."""
        return self._tallies.get(slot * _INSTANCES + instance)

    def count(self, rows: Rows) -> None:
        """Add trades that come after, or within, those counted; in order of execution."""
        if not len(rows):
            return
        slots = rows.slot.astype(np.int64)
        markets = slots * _INSTANCES + self._layout.instance_at(slots, rows.us)
        found, group = np.unique(markets, return_inverse=True)
        volumes, interests = np.zeros((2, len(found)), dtype=np.int64)
        np.add.at(volumes, group, rows.centis)
        np.add.at(interests, group, interest_changes(rows))
        last = np.zeros(len(found), dtype=np.int64)
        np.maximum.at(last, group, np.arange(len(rows)))
        columns = zip(
            found.tolist(), volumes.tolist(), interests.tolist(), rows.us[last].tolist(),
            rows.price_e4[last].tolist(), rows.centis[last].tolist(), strict=True,
        )  # fmt: skip
        for market, volume, interest, us, e4, centis in columns:
            tally = self._tallies.get(market)
            if tally is None:
                self._tallies[market] = Tally(volume, interest, us, e4, centis)
                continue
            tally.volume += volume
            tally.interest += interest
            if us >= tally.last_us:
                tally.last_us, tally.last_e4, tally.last_centis = us, e4, centis


def interest_changes(rows: Rows) -> Integers:
    """What each trade does to open interest, in centis."""
    opens = (rows.flags & OPENS) != 0
    closes = (rows.flags & CLOSES) != 0
    return np.where(opens, rows.centis, np.where(closes, -rows.centis, 0))
