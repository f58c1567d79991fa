"""Simulated time: the wall clock, or the wall clock run faster, slower or held."""

from __future__ import annotations

import time
from dataclasses import dataclass


def wall_us() -> int:
    """The wall clock in microseconds since 1970."""
    return time.time_ns() // 1_000


@dataclass
class SimulatedClock:
    """Time that leaves the wall clock at an anchor and runs `speed_milli` / 1000 times as fast.

    The anchor is kept in the state, so a restart goes on as if the clock had never stopped:
    at speed 60 a pause of a minute is an hour of simulated trading.
    """

    wall_anchor_us: int
    simulated_anchor_us: int
    speed_milli: int

    def at(self, wall: int) -> int:
        """Simulated microseconds at a wall time."""
        return self.simulated_anchor_us + (wall - self.wall_anchor_us) * self.speed_milli // 1_000

    def now(self) -> int:
        """Simulated microseconds now."""
        return self.at(wall_us())

    @property
    def stands_still(self) -> bool:
        return self.speed_milli == 0

    def go_on_at(self, speed_milli: int) -> None:
        """Run at another speed from now on (0: stand still), without a jump."""
        if speed_milli != self.speed_milli:
            wall = wall_us()
            self.simulated_anchor_us = self.at(wall)
            self.wall_anchor_us = wall
            self.speed_milli = speed_milli
