"""The making of a market: its dates and its words, out of the seed and its place."""

from __future__ import annotations

from functools import lru_cache

from kalshi_simulator import schedule, ticks
from kalshi_simulator.figures import SECOND_US
from kalshi_simulator.hashing import hash_of
from kalshi_simulator.layout import QUIET, Layout
from kalshi_simulator.markets import NEVER, Market
from kalshi_simulator.names import Names, names_of


def build(layout: Layout, slot: int, instance: int) -> Market:
    """Compute one market, whether its time has come or not."""
    plan = layout.slots[slot].series
    open_us = int(layout.origin_us[slot]) + instance * int(layout.period_us[slot])
    planned = close = open_us + int(layout.period_us[slot])
    period = planned - open_us
    key = hash_of(int(layout.key[slot]), instance)
    temper = temper_of(layout, slot, instance)
    created = created_us(layout, slot, instance)
    changes = [created]
    recess: tuple[int, int, str] | None = None
    if temper == schedule.EARLY:
        close = open_us + schedule.early(period)
        changes.append(open_us + period * 70 // 100)
    elif temper == schedule.PAUSED:
        begin, end = schedule.pause(period)
        recess = open_us + begin, open_us + end, "inactive"
        changes += recess[:2]
    elif temper == schedule.REOPENED:
        announced, begin, end = schedule.reopening(period)
        recess = open_us + begin, open_us + end, "closed"
        changes += (open_us + announced, open_us + end)
    elif temper == schedule.RENAMED:
        changes.append(open_us + schedule.renaming(period))
    elif temper == schedule.NEW_TICKS:
        changes.append(open_us + schedule.half(period))
    determined = close + plan.deciding_us + key % (plan.deciding_us // 2)
    timer = plan.timer_us + key % (2 * SECOND_US)
    disputed = reviewed = NEVER
    settled = determined + timer
    if temper == schedule.AMENDED:
        reviewed = (determined + settled) // 2
    elif temper == schedule.DISPUTED:
        disputed = determined + timer // 2
        reviewed = disputed + schedule.DISPUTE_US
        settled = reviewed + timer
        changes.append(disputed)
    if reviewed != NEVER:
        changes.append(reviewed)
    changes += (determined, settled + schedule.SETTLEMENT_TOLD_US)
    words = names(layout, slot, instance, planned)
    return Market(
        slot, instance, key, temper, words.ticker, words.event_ticker, created, open_us,
        planned, close, recess, determined, disputed, reviewed, settled,
        tuple(sorted(changes)),
    )  # fmt: skip


def created_us(layout: Layout, slot: int, instance: int) -> int:
    """When a market is created."""
    open_us = int(layout.origin_us[slot]) + instance * int(layout.period_us[slot])
    return open_us - layout.slots[slot].series.lead_us - slot % 7 * 1_013 - 500_017


def temper_of(layout: Layout, slot: int, instance: int) -> int:
    """What befalls a market; QUIET where its series leaves nothing to tell of it."""
    temper = layout.temper(slot, hash_of(int(layout.key[slot]), instance))
    plan = layout.slots[slot].series
    if plan.is_combo and temper in (schedule.RENAMED, schedule.REPRICED):
        return QUIET
    if temper == schedule.NEW_TICKS and plan.structure != ticks.STRUCTURES[ticks.LINEAR_CENT]:
        return QUIET
    return temper


@lru_cache(maxsize=16_384)
def names(layout: Layout, slot: int, instance: int, close_us: int) -> Names:
    """The words of a market that was created with a close."""
    return names_of(layout, layout.slots[slot], instance, close_us)
