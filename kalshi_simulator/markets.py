"""Markets and events: their dates, and what they are at an instant.

All dates are known in advance and shown only when their time has come, so any past instant can be
asked for as well as the present one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from kalshi_simulator import schedule
from kalshi_simulator.figures import DAY_US

NEVER = 1 << 62
DORMANT_SLOT = -1


@dataclass(frozen=True, slots=True)
class Market:
    """One market; times in microseconds, NEVER for what does not happen to it.

    Attributes:
        slot: where it trades; DORMANT_SLOT when it never does.
        temper: what befalls it, see `schedule`; QUIET where that does not apply to its series.
        planned_close_us: its close as told when it was created.
        close_us: the instant from which it really never trades again.
        recess: from, to and the status in between, of a pause or an early close taken back.
        disputed_us: when the outcome is challenged.
        reviewed_us: when it is put right, or upheld.
        settled_us: the settlement_ts; told `SETTLEMENT_TOLD_US` later.
        changes_us: every change that is not trading, ascending, creation first; that of a dormant
            market grows when it is touched.
    """

    slot: int
    instance: int
    key: int
    temper: int
    ticker: str
    event_ticker: str
    created_us: int
    open_us: int
    planned_close_us: int
    close_us: int
    recess: tuple[int, int, str] | None
    determined_us: int
    disputed_us: int
    reviewed_us: int
    settled_us: int
    changes_us: Sequence[int]

    def __hash__(self) -> int:
        return self.key

    @property
    def is_dormant(self) -> bool:
        """Whether it is listed and never trades."""
        return self.slot == DORMANT_SLOT

    @property
    def is_amended(self) -> bool:
        """Whether the first outcome is a wrong one."""
        disputed_rightly = self.temper == schedule.DISPUTED and (self.key >> 8) % 2 == 1
        return self.temper == schedule.AMENDED or disputed_rightly

    @property
    def period_us(self) -> int:
        return self.planned_close_us - self.open_us

    @property
    def finalized_us(self) -> int:
        """When the settlement is told."""
        return self.settled_us + schedule.SETTLEMENT_TOLD_US

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands in lists."""
        return self.created_us, self.ticker

    def closes_told(self) -> list[tuple[int, int]]:
        """When which close is told, in order of telling; first at the creation."""
        told = [(self.created_us, self.planned_close_us)]
        if self.temper == schedule.EARLY:
            told.append((self.open_us + self.period_us * 70 // 100, self.close_us))
        if self.temper == schedule.REOPENED:
            announced, closed, reopened = schedule.reopening(self.period_us)
            told.append((self.open_us + announced, self.open_us + closed))
            told.append((self.open_us + reopened, self.planned_close_us))
        return told

    def close_at(self, us: int) -> int:
        """The close as the exchange tells it at an instant."""
        if self.temper not in (schedule.EARLY, schedule.REOPENED):
            return self.planned_close_us
        told = [close for moment, close in self.closes_told() if moment <= us]
        return told[-1] if told else self.planned_close_us

    def outcome_steps(self) -> list[tuple[int, str]]:
        """When its outcome takes which status; the last one is final."""
        steps = [(self.determined_us, "determined")]
        if self.disputed_us != NEVER:
            steps.append((self.disputed_us, "disputed"))
        if self.reviewed_us != NEVER:
            steps.append((self.reviewed_us, "amended" if self.is_amended else "determined"))
        steps.append((self.finalized_us, "finalized"))
        return steps

    def determinations(self) -> list[int]:
        """When `determined` is told on the stream; a dispute and its upholding are not."""
        return [self.determined_us, self.reviewed_us] if self.is_amended else [self.determined_us]

    def status_at(self, us: int) -> str:
        """The status of the protocol at an instant: initialized, active, … finalized."""
        if us >= self.finalized_us:
            return "finalized"
        if us >= self.determined_us:
            return [status for at, status in self.outcome_steps() if at <= us][-1]
        if us >= self.close_us:
            return "closed"
        if us < self.open_us:
            return "initialized"
        if self.recess is not None and self.recess[0] <= us < self.recess[1]:
            return self.recess[2]
        return "active"

    def updated_at(self, us: int) -> int:
        """The latest change by then that was not trading; the creation at least."""
        return self.changes_us[max(0, bisect_right(self.changes_us, us) - 1)]


@dataclass(frozen=True, slots=True)
class Event:
    """An event and its markets, in order of creation.

    Attributes:
        created_us: just before the first of its markets.
        repriced: from when to when its fee is overridden.
    """

    ticker: str
    created_us: int
    repriced: tuple[int, int] | None
    markets: list[Market]

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands in lists."""
        return self.created_us, self.ticker

    def updated_at(self, us: int) -> int:
        """The latest change of the event itself by then; its markets have their own."""
        return max(
            (moment for moment in self.repriced or () if moment <= us), default=self.created_us
        )

    def is_repriced_at(self, us: int) -> bool:
        """Whether its fee is overridden at an instant."""
        return self.repriced is not None and self.repriced[0] <= us < self.repriced[1]


def day_of(us: int) -> int:
    """Start of the UTC day of an instant."""
    return us - us % DAY_US
