"""What REST shows at a moment: as of when, and what not yet, when faults hold it back."""

from __future__ import annotations

from dataclasses import dataclass

from kalshi_simulator.faults import Faults
from kalshi_simulator.figures import SECOND_US
from kalshi_simulator.markets import Event, Market

REFERENCE_LAG = "reference_lag"
UNBORN = "not_found_after_created"
UNTOLD = "empty_result_after_determined"


@dataclass(frozen=True, slots=True)
class Sight:
    """REST's view of markets, events and series during one request; times in microseconds.

    Attributes:
        at_us: everything is shown as it was then.
        born_us: markets created later are not there.
        told_us: first outcomes determined later are not there, nor anything that came after them.
    """

    at_us: int
    born_us: int
    told_us: int

    def shows(self, market: Market) -> bool:
        """Whether a market is there at all."""
        return market.created_us <= self.born_us

    def shows_event(self, event: Event) -> bool:
        """Whether an event is there: as soon as its first market is."""
        return self.shows(event.markets[0])

    def of(self, market: Market) -> int:
        """The instant as of which a market is shown."""
        if self.told_us < market.determined_us <= self.at_us:
            return market.determined_us - 1
        return self.at_us

    def hides_outcome(self, market: Market) -> bool:
        return self.told_us < market.determined_us <= self.at_us


def sight_of(faults: Faults, now_us: int) -> Sight:
    """What REST shows now."""
    at = now_us - _age(faults, REFERENCE_LAG)
    return Sight(at, min(at, now_us - _age(faults, UNBORN)), now_us - _age(faults, UNTOLD))


def whole_sight(now_us: int) -> Sight:
    """The truth: everything up to now."""
    return Sight(now_us, now_us, now_us)


def _age(faults: Faults, kind: str) -> int:
    fault = faults.standing(kind)
    return 0 if fault is None else int((fault.seconds or 0) * SECOND_US)
