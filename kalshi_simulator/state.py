"""What survives a restart: a small file from which the same world goes on."""

from __future__ import annotations

from pathlib import Path

import msgspec

_FILE = "simulator.json"
_VERSION = 1


class EpochState(msgspec.Struct, frozen=True):
    """A rate of trades and the instant (microseconds) from which it holds."""

    from_us: int
    trades_per_second: float


class TradeState(msgspec.Struct, frozen=True):
    """A trade added by hand; units as in the ledger."""

    slot: int
    us: int
    price_e4: int
    centis: int
    flags: int
    high: int
    low: int


class TouchState(msgspec.Struct, frozen=True):
    """Dormant markets changed by hand: `count` from number `first` on, round and round."""

    us: int
    first: int
    count: int


class WorldState(msgspec.Struct):
    """Seed, size, clock and rates of a world; times in microseconds since 1970.

    `plan` is the layout a world was begun with; files from before there were several have none.
    """

    seed: int
    markets: int
    begins_us: int
    started_us: int
    cutoff_us: int
    wall_anchor_us: int
    simulated_anchor_us: int
    speed_milli: int
    epochs: list[EpochState]
    injected: list[TradeState] = []
    plan: int = 1
    touches: list[TouchState] = []
    version: int = _VERSION


class StateError(Exception):
    """The state file cannot be used; the message says why and what to do."""


def load(folder: Path) -> WorldState | None:
    """The state kept in a folder, or None when there is none."""
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        state = msgspec.json.decode(path.read_bytes(), type=WorldState)
    except msgspec.DecodeError as error:
        raise StateError(f"{path} is damaged ({error}); delete it to begin a new world") from error
    if state.version != _VERSION:
        raise StateError(f"{path} is of version {state.version}; delete it to begin a new world")
    return state


def save(folder: Path, state: WorldState) -> None:
    """Write the state whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{_FILE}.draft"
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    draft.replace(folder / _FILE)
