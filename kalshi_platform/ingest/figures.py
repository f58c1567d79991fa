"""What the loader says of itself: sizes and times of its batches, how far behind it is.

Kept here between two reports, which are a second apart; so a loader that dies takes the figures of
its last second with it. What counts messages and rows is committed with them instead.
"""

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

from kalshi_platform.exchange import messages

Key = tuple[str, str]
"""Name and labels, as in `ingestion_metrics`."""

ROWS = (10.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ENDLESS = float("inf")
_WINDOW_SECONDS = 60.0

OTHER = "other"
_BOOKS = "orderbook_delta"
_LIFECYCLE = "market_lifecycle_v2"
_CHANNEL_OF_KIND = {
    "trade": "trade",
    "ticker": "ticker",
    "orderbook_snapshot": _BOOKS,
    "orderbook_delta": _BOOKS,
    "market_lifecycle_v2": _LIFECYCLE,
    "event_lifecycle": _LIFECYCLE,
    "event_fee_update": _LIFECYCLE,
    "multivariate_market_lifecycle": "multivariate_market_lifecycle",
}
_CHANNEL_OF_CLASS: Mapping[type, str] = {
    messages.TradeFrame: "trade",
    messages.TickerFrame: "ticker",
    messages.BookSnapshotFrame: _BOOKS,
    messages.BookDeltaFrame: _BOOKS,
    messages.MarketLifecycleFrame: _LIFECYCLE,
    messages.EventLifecycleFrame: _LIFECYCLE,
    messages.EventFeeFrame: _LIFECYCLE,
    messages.ComboLifecycleFrame: "multivariate_market_lifecycle",
}


class Committed(NamedTuple):
    """One batch that is in the tables."""

    rows: int
    seconds: float
    """To write and to commit it."""
    first_received_ns: int | None
    """Its oldest frame, Unix ns."""
    newest: Mapping[str, tuple[int, int]]
    """By channel: receive time (Unix ns) and sending time (Unix ms) of its last message."""


def channel_of(kind: str | None) -> str:
    """The channel that messages of a type come on; whatever the wire says, one of a few."""
    return _CHANNEL_OF_KIND.get(kind or "", OTHER)


def channel_of_class(frame: type) -> str:
    """The same of a frame that was read; replies to our commands are `other`."""
    return _CHANNEL_OF_CLASS.get(frame, OTHER)


class Figures:
    """Filled after each commit, emptied by each report."""

    def __init__(self) -> None:
        # Every bucket is told from the first report on, so that a rate can be had of each.
        self._counters: Counter[Key] = Counter(
            {
                (f"{name}_bucket", _le(bound)): 0
                for name, bounds in (("batch_rows", ROWS), ("batch_seconds", SECONDS))
                for bound in (*bounds, _ENDLESS)
            }
        )
        self._loaded: dict[str, float] = {}
        """Seconds from received to committed, of the last message of a channel."""
        self._received_window = _Window()
        self._loaded_window = _Window()

    def note(self, batch: Committed) -> None:
        """A batch was committed just now."""
        self._observe("batch_rows", ROWS, float(batch.rows))
        self._observe("batch_seconds", SECONDS, batch.seconds)
        now_ns, at = time.time_ns(), time.monotonic()
        for channel, (received_ns, sent_ms) in batch.newest.items():
            first_ns = batch.first_received_ns or received_ns
            self._loaded[channel] = (now_ns - received_ns) / 1e9
            self._received_window.add(channel, at, received_ns / 1e9 - sent_ms / 1e3)
            self._loaded_window.add(channel, at, (now_ns - first_ns) / 1e9)

    def take(self) -> tuple[Counter[Key], dict[Key, float]]:
        """What has gathered since the last report: counters to raise, gauges to set."""
        counters, self._counters = self._counters, Counter()
        gauges: dict[Key, float] = {}
        for channel, seconds in self._loaded.items():
            gauges["loaded_lag_seconds", label(channel)] = seconds
        self._loaded = {}
        at = time.monotonic()
        for name, window in (
            ("received_lag_max_seconds", self._received_window),
            ("loaded_lag_max_seconds", self._loaded_window),
        ):
            for channel, seconds in window.most(at).items():
                gauges[name, label(channel)] = seconds
        return counters, gauges

    def _observe(self, name: str, bounds: tuple[float, ...], value: float) -> None:
        place = bisect_left(bounds, value)
        bound = bounds[place] if place < len(bounds) else _ENDLESS
        self._counters[f"{name}_bucket", _le(bound)] += 1
        self._counters[f"{name}_sum", ""] += value  # type: ignore[assignment]  # seconds


def _le(bound: float) -> str:
    return f'le="{"+Inf" if bound == _ENDLESS else format(bound, "g")}"'


class _Window:
    """The largest value of each channel within the last minute."""

    def __init__(self) -> None:
        self._values: dict[str, deque[tuple[float, float]]] = {}

    def add(self, channel: str, at: float, value: float) -> None:
        values = self._values.setdefault(channel, deque())
        # Whatever is smaller and older will never be the largest again.
        while values and values[-1][1] <= value:
            values.pop()
        values.append((at, value))

    def most(self, at: float) -> dict[str, float]:
        found = {}
        for channel, values in self._values.items():
            while values and values[0][0] < at - _WINDOW_SECONDS:
                values.popleft()
            if values:
                found[channel] = values[0][1]
        return found


def label(channel: str) -> str:
    """The label of a channel, whose name may come from the wire."""
    known = channel if channel.isidentifier() and channel.isascii() else OTHER
    return f'channel="{known[:64]}"'
