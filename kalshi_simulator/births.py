"""Births: combos that are created, a message each, and never heard of again.

The exchange makes a million of them a day. REST does not know them: a provisional market
disappears unless it trades.
"""

from __future__ import annotations

import msgspec

from kalshi_simulator.figures import DAY_US, SECOND_US
from kalshi_simulator.hashing import hash_of
from kalshi_simulator.hub import Message
from kalshi_simulator.layout import COMBO
from kalshi_simulator.subscriptions import COMBO_LIFECYCLE


class Births:
    """Makes up `created` messages at a rate."""

    def __init__(self, per_second: int, begins_us: int) -> None:
        """No two processes share a beginning, so no ticker comes twice."""
        self.per_second = per_second
        self._salt = hash_of(begins_us, 31)
        self._owed = 0.0
        self._born = 0

    def after(self, seconds: float, us: int) -> list[Message]:
        """The births of a stretch of the wall clock, as happened at an instant (microseconds)."""
        self._owed += self.per_second * seconds
        due = int(self._owed)
        self._owed -= due
        return [self._birth(us) for _ in range(due)]

    def _birth(self, us: int) -> Message:
        self._born += 1
        draw = hash_of(self._salt, self._born)
        event = f"{COMBO.ticker}-S2026{draw >> 20:011X}"
        ticker = f"{event}-E{hash_of(draw, 0) >> 24:010X}"
        legs = f"yes leg {draw % 90},no leg {draw % 70}"
        body = {
            "market_ticker": ticker,
            "event_type": "created",
            "exchange_index": 1,
            "open_ts": us // SECOND_US,
            "close_ts": (us + 2 * DAY_US) // SECOND_US,
            "price_level_structure": COMBO.structure,
            "additional_metadata": {
                "name": legs,
                "title": legs,
                "yes_sub_title": legs,
                "no_sub_title": legs,
                "rules_primary": "",
                "rules_secondary": "",
                "can_close_early": True,
                "event_ticker": event,
                "expected_expiration_ts": (us + 2 * DAY_US) // SECOND_US,
                "strike_type": "custom",
            },
        }
        return Message(COMBO_LIFECYCLE, COMBO_LIFECYCLE, ticker, msgspec.json.encode(body))
