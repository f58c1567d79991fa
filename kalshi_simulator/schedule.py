"""When a market trades. The rules by which special things happen, in one place.

The temper of a market (0 to 15) says what befalls it; times are parts of its period.

| temper | what |
|---|---|
| 0 | tick structure changes to deci_cent at the half (where it was linear_cent) |
| 1 | closes early, at three quarters; announced at 0.7 |
| 2 | is paused between 0.40 and 0.45 |
| 3 | is determined wrongly first, then amended |
| 4 | settles to a scalar |
| 5 | ties, 0.5000 |
| 6 | metadata is updated at a tenth (not of combos) |
| 7 | the event's fee is overridden from 0.2 to 0.6 (by its first leg, not of combos) |
| 8 | closes early, at the half, announced at 0.45; is reopened at 0.60 until the planned close |
| 9 | the outcome is disputed for half an hour; half of them upheld, half amended |
| 10 | is void: a result that is neither yes nor no |
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from kalshi_simulator import ticks
from kalshi_simulator.figures import MINUTE_US, SECOND_US
from kalshi_simulator.hashing import Integers
from kalshi_simulator.layout import Layout

Period = TypeVar("Period", int, Integers)

NEW_TICKS, EARLY, PAUSED, AMENDED, SCALAR, TIED, RENAMED, REPRICED = range(8)
REOPENED, DISPUTED, VOID = range(8, 11)

STEP_US = SECOND_US  # orders rest unchanged for so long
DISPUTE_US = 30 * MINUTE_US
SETTLEMENT_TOLD_US = 700_000  # a settlement is told so long after the time it bears


def half(period_us: int) -> int:
    """Offset from open at which a NEW_TICKS market gets finer ticks."""
    return period_us // 2


def renaming(period_us: int) -> int:
    """Offset from open at which a RENAMED market gets other words."""
    return period_us // 10


def early(period_us: Period) -> Period:
    """Offset from open at which an EARLY market closes."""
    return period_us * 3 // 4


def repricing(period_us: int) -> tuple[int, int]:
    """Offsets from open between which the event of a REPRICED market has another fee."""
    return period_us * 20 // 100, period_us * 60 // 100


def reopening(period_us: Period) -> tuple[Period, Period, Period]:
    """Offsets from open: early close announced, closed early, opened again (REOPENED)."""
    return period_us * 45 // 100, period_us * 50 // 100, period_us * 60 // 100


def pause(period_us: Period) -> tuple[Period, Period]:
    """Offsets from open between which a PAUSED market does not trade."""
    return period_us * 40 // 100, period_us * 45 // 100


def trading(layout: Layout, slots: Integers, us: Integers) -> npt.NDArray[np.bool_]:
    """Whether the market that has the slot can trade at the instant."""
    periods = layout.period_us[slots]
    instances = layout.instance_at(slots, us)
    tempers = layout.tempers(slots, instances)
    offsets = us - layout.origin_us[slots] - instances * periods
    closed = (tempers == EARLY) & (offsets >= periods * 3 // 4)
    pauses = (offsets >= periods * 40 // 100) & (offsets < periods * 45 // 100)
    between = (offsets >= periods * 50 // 100) & (offsets < periods * 60 // 100)
    return np.asarray(
        ~closed & ~((tempers == PAUSED) & pauses) & ~((tempers == REOPENED) & between)
    )


def resting(
    layout: Layout, slots: Integers, us: Integers
) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Whose orders rest in the book of the market that has the slot, at instants.

    Returns:
        The instants (starts of steps) as of which the orders are those shown, and where there are
        none at all. A pause holds the orders as they were; they are cancelled when it ends, and
        the book is empty for a step. A market that is closed, for good or for now, has none.
    """
    periods = layout.period_us[slots]
    shown = us // STEP_US * STEP_US
    instances = layout.instance_at(slots, shown)
    tempers = layout.tempers(slots, instances)
    opened = layout.origin_us[slots] + instances * periods
    offsets = shown - opened
    closed = (tempers == EARLY) & (offsets >= early(periods))
    _, begin, end = reopening(periods)
    closed |= (tempers == REOPENED) & (offsets >= begin) & (offsets < end)
    begin, end = pause(periods)
    is_pausing = tempers == PAUSED
    held = is_pausing & (offsets >= begin) & (offsets < end)
    cancelled = is_pausing & (offsets >= end) & (offsets < end + STEP_US)
    before = (opened + begin - 1) // STEP_US * STEP_US
    return np.where(held, before, shown), np.asarray(closed | cancelled)


def structures(layout: Layout, slots: Integers, us: Integers) -> Integers:
    """Tick structure in force, as a number into ticks.STRUCTURES."""
    periods = layout.period_us[slots]
    instances = layout.instance_at(slots, us)
    offsets = us - layout.origin_us[slots] - instances * periods
    changed = (
        (layout.tempers(slots, instances) == NEW_TICKS)
        & (offsets >= periods // 2)
        & (layout.structure[slots] == ticks.LINEAR_CENT)
    )
    return np.where(changed, ticks.DECI_CENT, layout.structure[slots])
