"""Price level structures: which prices a market may trade at.

The names are the exchange's labels; the rule is the list of ranges with a step each
(protocol of October 2026). A grid leaves out 0 and 1 dollar.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kalshi_simulator.figures import DOLLAR_E4, dollars
from kalshi_simulator.hashing import Integers

# label: (start, end, step) in e4
_RANGES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "linear_cent": ((0, 10_000, 100),),
    "deci_cent": ((0, 10_000, 10),),
    "tapered_deci_cent": ((0, 1_000, 10), (1_000, 9_000, 100), (9_000, 10_000, 10)),
    "center_half_edge_deci_cent": ((0, 1_000, 10), (1_000, 9_000, 50), (9_000, 10_000, 10)),
    "center_deci_edge_centi_cent": ((0, 100, 1), (100, 9_900, 10), (9_900, 10_000, 1)),
}

STRUCTURES = tuple(_RANGES)
LINEAR_CENT = STRUCTURES.index("linear_cent")
DECI_CENT = STRUCTURES.index("deci_cent")


def price_ranges(structure: str) -> list[dict[str, str]]:
    """The ranges as the wire carries them."""
    return [
        {"start": dollars(start), "end": dollars(end), "step": dollars(step)}
        for start, end, step in _RANGES[structure]
    ]


def allows(structure: str, e4: int) -> bool:
    """Whether a market of this structure can trade at the price."""
    return 0 < e4 < DOLLAR_E4 and any(
        start <= e4 <= end and (e4 - start) % step == 0 for start, end, step in _RANGES[structure]
    )


def _grid(structure: str) -> list[int]:
    prices = {
        e4 for start, end, step in _RANGES[structure] for e4 in range(start, end + 1, step)
    } - {0, DOLLAR_E4}
    return sorted(prices)


_GRIDS = [_grid(structure) for structure in STRUCTURES]
_LENGTHS = np.array([len(grid) for grid in _GRIDS], dtype=np.int64)
_PRICES = np.zeros((len(_GRIDS), int(_LENGTHS.max())), dtype=np.int64)
_INDEX = np.zeros((len(_GRIDS), DOLLAR_E4 + 1), dtype=np.int64)
for _row, _prices in enumerate(_GRIDS):
    _PRICES[_row, : len(_prices)] = _prices
    _PRICES[_row, len(_prices) :] = _prices[-1]
    _INDEX[_row] = np.maximum(
        np.searchsorted(_prices, np.arange(DOLLAR_E4 + 1), side="right") - 1, 0
    )


def index_at(structures: Integers, e4: Integers) -> Integers:
    """Position in the grid of the highest price at or below e4 (0 when all are above)."""
    return np.asarray(_INDEX[structures, e4])


def price_at(structures: Integers, index: Integers) -> Integers:
    """Price in e4 at a position of the grid; positions beyond the ends give the ends."""
    return np.asarray(_PRICES[structures, np.maximum(index, 0)])


def last_index(structures: Integers) -> Integers:
    """Position of the highest price below one dollar."""
    return np.asarray(_LENGTHS[structures] - 1)


def grid(structure: int) -> npt.NDArray[np.int64]:
    """All prices of one structure, ascending, in e4."""
    return _PRICES[structure, : int(_LENGTHS[structure])]
