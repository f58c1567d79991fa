"""Markets by the instants at which something of theirs happens."""

from __future__ import annotations

from kalshi_simulator.figures import MINUTE_US
from kalshi_simulator.markets import Market


class Moments:
    """Markets by the instants at which something of theirs happens; instants of a minute share."""

    def __init__(self) -> None:
        self._minutes: dict[int, list[Market]] = {}

    def add(self, us: int, market: Market) -> None:
        self._minutes.setdefault(us // MINUTE_US, []).append(market)

    def between(self, low_us: int, high_us: int) -> list[Market]:
        """Markets with a moment in [low_us, high_us], and a few more; in order of creation."""
        low, high = low_us // MINUTE_US, high_us // MINUTE_US
        if high - low < len(self._minutes):
            minutes = [minute for minute in range(low, high + 1) if minute in self._minutes]
        else:
            minutes = [minute for minute in self._minutes if low <= minute <= high]
        found = {market.ticker: market for minute in minutes for market in self._minutes[minute]}
        return sorted(found.values(), key=lambda market: market.place)
