"""Load modes: what is sent beyond what happens, by the wall clock."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """What load is asked for, a second of the wall clock; 0 is off.

    Attributes:
        messages: tickers that differ in a size only top the feed up to so many messages.
        deltas: pairs of deltas that cancel each other top watched books up to so many deltas.
        combo_births: combos that are created and never heard of again, as nearly all are.
    """

    messages: int = 0
    deltas: int = 0
    combo_births: int = 0


class Debt:
    """How many things are owed so that a rate is kept, with what happens anyway counted in."""

    def __init__(self, per_second: int, unit: int = 1) -> None:
        """Things come in whole units of so many."""
        self.per_second = per_second
        self._unit = unit
        self._owed = 0.0

    def due(self, passed_seconds: float, happened: int) -> int:
        """How many to send now; it is taken for granted that they are sent."""
        if not self.per_second:
            return 0
        owed = self._owed + self.per_second * passed_seconds - happened
        due = max(0, int(owed)) // self._unit * self._unit
        self._owed = max(-self.per_second, owed - due)
        return due


class WallTime:
    """Seconds of the wall clock between one look and the next, half a second at most."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()

    def passed(self) -> float:
        now = time.monotonic()
        passed, self._looked_at = min(now - self._looked_at, 0.5), now
        return passed
