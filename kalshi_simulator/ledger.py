"""The ledger: every trade that ever happened on the made-up exchange, in order of execution.

Time is cut into blocks, long ones where trades are few. A block's trades are a function of the
seed, the block and the rate in force, so the ledger is computed where it is looked at and a pause
of the process leaves no hole in it. REST and WebSocket both read from here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from kalshi_simulator.figures import SECOND_US
from kalshi_simulator.generation import Rows, block_key, trades_of_block
from kalshi_simulator.hashing import Integers
from kalshi_simulator.layout import Layout
from kalshi_simulator.tallies import Tallies, Tally, interest_changes

_BLOCK_SECONDS = (3_600, 600, 60, 10, 2)
_ROWS_PER_BLOCK = 10_000
_ROWS_KEPT = 1_500_000


@dataclass(frozen=True)
class Epoch:
    """From an instant on, so many trades a second happen over all markets."""

    from_us: int
    trades_per_second: float

    @property
    def block_us(self) -> int:
        """Length of a block; short enough that computing one is never felt."""
        for seconds in _BLOCK_SECONDS:
            if seconds * self.trades_per_second <= _ROWS_PER_BLOCK:
                return seconds * SECOND_US
        return _BLOCK_SECONDS[-1] * SECOND_US


class Block:
    """The trades of one block, with the orders that questions need, each made when first asked."""

    def __init__(self, start_us: int, end_us: int, rows: Rows) -> None:
        self.start_us = start_us
        self.end_us = end_us
        self.rows = rows

    @cached_property
    def rest_order(self) -> Integers:
        """Rows by (time, trade_id): REST lists this backwards."""
        return np.lexsort((self.rows.low, self.rows.high, self.rows.us))

    @cached_property
    def by_slot(self) -> Integers:
        """Rows by (slot, execution)."""
        return np.argsort(self.rows.slot, kind="stable")

    @cached_property
    def _rest_by_slot(self) -> Integers:
        """Rows by (slot, time, trade_id)."""
        return self.rest_order[np.argsort(self.rows.slot[self.rest_order], kind="stable")]

    @cached_property
    def _sorted_slots(self) -> npt.NDArray[np.int32]:
        return self.rows.slot[self.by_slot]

    @cached_property
    def sums_by_slot(self) -> Integers:
        """Running volume and open interest change along by_slot; two rows, with a leading 0."""
        centis = self.rows.centis[self.by_slot]
        changes = interest_changes(self.rows)[self.by_slot]
        return np.concatenate(
            [np.zeros((2, 1), dtype=np.int64), np.cumsum(np.stack([centis, changes]), axis=1)],
            axis=1,
        )

    def range_of(self, slot: int) -> tuple[int, int]:
        """Where a slot's rows stand in by_slot and rest_of."""
        left, right = np.searchsorted(self._sorted_slots, [slot, slot + 1])
        return int(left), int(right)

    def rest_of(self, slot: int | None) -> Integers:
        """Rows of one slot (or all) by (time, trade_id)."""
        if slot is None:
            return self.rest_order
        left, right = self.range_of(slot)
        return self._rest_by_slot[left:right]

    def rows_of(self, slot: int) -> Integers:
        """Rows of one slot in order of execution."""
        left, right = self.range_of(slot)
        return self.by_slot[left:right]


@dataclass(frozen=True)
class Injected:
    """A trade added by hand."""

    slot: int
    row: Rows


class Ledger:
    """Blocks by ordinal, from the beginning of history on; the most used ones kept."""

    def __init__(self, layout: Layout, epochs: list[Epoch]) -> None:
        """Epochs must begin with the beginning of history and be in order of time."""
        self.layout = layout
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._rows_held = 0
        self._injected: list[Rows] = []
        # Before block i: volume and open interest by slot, and trades executed.
        self._opening: list[Integers] = [np.zeros((2, len(layout.slots)), dtype=np.int64)]
        self._executed: list[int] = [0]
        # Blocks counted in the tallies; each once, whatever is forgotten of the above.
        self._tallies = Tallies(layout)
        self._tallied = 0
        self.epochs = epochs
        self._first_ordinals = [0]
        for epoch, following in pairwise(epochs):
            blocks = -(-(following.from_us - epoch.from_us) // epoch.block_us)
            self._first_ordinals.append(self._first_ordinals[-1] + blocks)

    @property
    def begins_us(self) -> int:
        return self.epochs[0].from_us

    def ordinal_at(self, us: int) -> int:
        """Which block holds an instant; instants before history count as its beginning."""
        us = max(us, self.begins_us)
        which = bisect_right(self.epochs, us, key=lambda epoch: epoch.from_us) - 1
        epoch = self.epochs[which]
        return self._first_ordinals[which] + (us - epoch.from_us) // epoch.block_us

    def bounds(self, ordinal: int) -> tuple[int, int]:
        """Half-open microseconds that a block covers."""
        which, number = self._place(ordinal)
        epoch = self.epochs[which]
        start = epoch.from_us + number * epoch.block_us
        end = start + epoch.block_us
        if which + 1 < len(self.epochs):
            end = min(end, self.epochs[which + 1].from_us)
        return start, end

    def _place(self, ordinal: int) -> tuple[int, int]:
        which = bisect_right(self._first_ordinals, ordinal) - 1
        # An epoch cut to nothing has no blocks and shares its number with the next one.
        return which, ordinal - self._first_ordinals[which]

    def block(self, ordinal: int) -> Block:
        """One block, computed if need be."""
        block = self._blocks.get(ordinal)
        if block is not None:
            self._blocks.move_to_end(ordinal)
            return block
        start, end = self.bounds(ordinal)
        which, number = self._place(ordinal)
        key = block_key(self.layout.seed, which, number)
        rate = self.epochs[which].trades_per_second
        # The whole block is drawn before it is cut, so an epoch's end moves no earlier trade.
        rows = trades_of_block(self.layout, key, start, start + self.epochs[which].block_us, rate)
        rows = rows.take(slice(0, int(np.searchsorted(rows.us, end))))
        block = Block(start, end, self._with_injected(rows, start, end))
        self._blocks[ordinal] = block
        self._rows_held += len(block.rows)
        while self._rows_held > _ROWS_KEPT and len(self._blocks) > 2:
            _, oldest = self._blocks.popitem(last=False)
            self._rows_held -= len(oldest.rows)
        return block

    def _with_injected(self, rows: Rows, start_us: int, end_us: int) -> Rows:
        extra = [row for row in self._injected if start_us <= int(row.us[0]) < end_us]
        if not extra:
            return rows
        joined = Rows.concatenated([rows, *extra])
        return joined.take(np.argsort(joined.us, kind="stable"))

    def inject(self, row: Rows) -> None:
        """Add one trade; everything computed from its block on is forgotten."""
        self._injected.append(row)
        ordinal = self.ordinal_at(int(row.us[0]))
        dropped = self._blocks.pop(ordinal, None)
        self._rows_held -= len(dropped.rows) if dropped else 0
        if ordinal < self._tallied:
            self._tallies.count(row)
        del self._opening[ordinal + 1 :]
        del self._executed[ordinal + 1 :]

    def _open_until(self, ordinal: int) -> None:
        while len(self._opening) <= ordinal:
            number = len(self._opening) - 1
            rows = self.block(number).rows
            if number == self._tallied:
                self._tallies.count(rows)
                self._tallied += 1
            sums = self._opening[-1].copy()
            np.add.at(sums[0], rows.slot, rows.centis)
            np.add.at(sums[1], rows.slot, interest_changes(rows))
            self._opening.append(sums)
            self._executed.append(self._executed[-1] + len(rows))

    def executed_before(self, ordinal: int) -> int:
        """Trades of the whole exchange before a block: the first execution number in it."""
        self._open_until(ordinal)
        return self._executed[ordinal]

    def totals(self, slot: int, before_us: int) -> tuple[int, int]:
        """Volume and open interest change of a slot over all trades before an instant."""
        if before_us <= self.begins_us:
            return 0, 0
        ordinal = self.ordinal_at(before_us)
        self._open_until(ordinal)
        block = self.block(ordinal)
        left, right = block.range_of(slot)
        times = block.rows.us[block.by_slot[left:right]]
        at = left + int(np.searchsorted(times, before_us))
        sums = block.sums_by_slot[:, at] - block.sums_by_slot[:, left]
        volume, interest = self._opening[ordinal][:, slot] + sums
        return int(volume), int(interest)

    def tally(self, slot: int, instance: int, close_us: int) -> Tally | None:
        """What a market that closed at an instant traded in all.

        None when it traded nothing, or when not all of its time has been counted.
        """
        if self.ordinal_at(close_us - 1) >= self._tallied:
            return None
        return self._tallies.of(slot, instance)

    def blocks_between(self, from_us: int, to_us: int) -> range:
        """Ordinals of the blocks that touch [from_us, to_us)."""
        if to_us <= max(from_us, self.begins_us):
            return range(0)
        return range(self.ordinal_at(from_us), self.ordinal_at(to_us - 1) + 1)

    def rows_between(self, from_us: int, to_us: int) -> Rows:
        """All trades in [from_us, to_us), in order of execution."""
        parts = []
        for ordinal in self.blocks_between(from_us, to_us):
            rows = self.block(ordinal).rows
            left, right = np.searchsorted(rows.us, [from_us, to_us])
            parts.append(rows.take(slice(int(left), int(right))))
        return Rows.concatenated(parts) if parts else self.block(0).rows.take(slice(0, 0))

    def rows_of_slot(self, slot: int, from_us: int, to_us: int) -> Rows:
        """Trades of one slot in [from_us, to_us), in order of execution."""
        parts = []
        for ordinal in self.blocks_between(from_us, to_us):
            block = self.block(ordinal)
            rows = block.rows.take(block.rows_of(slot))
            left, right = np.searchsorted(rows.us, [from_us, to_us])
            parts.append(rows.take(slice(int(left), int(right))))
        return Rows.concatenated(parts) if parts else self.block(0).rows.take(slice(0, 0))

    def last_of_slot(self, slot: int, from_us: int, before_us: int) -> tuple[int, int] | None:
        """Price (e4) and count (centis) of a slot's last trade in [from_us, before_us)."""
        for ordinal in reversed(self.blocks_between(from_us, before_us)):
            block = self.block(ordinal)
            own = block.rows_of(slot)
            right = int(np.searchsorted(block.rows.us[own], before_us))
            if right:
                row = int(own[right - 1])
                if int(block.rows.us[row]) < from_us:
                    return None
                return int(block.rows.price_e4[row]), int(block.rows.centis[row])
        return None
