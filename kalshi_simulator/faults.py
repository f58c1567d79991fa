"""Faults on command: what can go wrong at the real exchange, made to go wrong now."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

# Spoil or lose the next `count` messages of `channel`.
MESSAGE_KINDS = (
    "drop", "lose", "repeat", "reorder", "malformed", "missing_field", "bad_price", "old_shape",
    "unknown_type", "unknown_field",
)  # fmt: skip
# In force for `seconds` (or, where a count makes sense, for `count` requests).
LASTING_KINDS = (
    "stall", "ws_401", "rest_401", "rest_429", "rest_500", "rest_503", "rest_504", "rest_lag",
    "refuse_connections", "not_found_after_created", "empty_result_after_determined", "slow_rest",
    "out_of_order_replies", "reference_lag",
)  # fmt: skip
# Done once, at once.
IMMEDIATE_KINDS = ("code25", "code10", "close", "drop_connection", "move_cutoff")


class FaultRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of POST /control/faults.

    Attributes:
        kind: one of the kinds above.
        channel: for messages and codes 10 and 25.
        count: how many messages, requests or commands; unset means 1 for messages.
        seconds: how long (wall clock), or for rest_lag, reference_lag, not_found_after_created
            and empty_result_after_determined how old (simulated) things must be to show.
        ms: delay of slow_rest.
        field: which field missing_field takes out.
        price: what bad_price puts in.
        code: close code.
        numbered: whether what a stall swallows uses up sequence numbers.
        to: new cutoff (ISO 8601).
        after_requests: move_cutoff strikes when so many pages of markets or trades, of either
            tier, have been asked for; unset means now.
    """

    kind: str
    channel: str = "trade"
    count: int | None = None
    seconds: float | None = None
    ms: int = 500
    field: str = "yes_price_dollars"
    price: str | None = None
    code: int = 1000
    numbered: bool = False
    to: str | None = None
    after_requests: int | None = None


@dataclass
class Fault:
    """One fault in force."""

    request: FaultRequest
    left: int | None
    until: float | None
    requests_left: int = 0

    def in_force(self) -> bool:
        return (self.left is None or self.left > 0) and (
            self.until is None or time.monotonic() < self.until
        )


# The seconds of these say how old something must be, not how long the fault lasts.
_AGE_KINDS = (
    "rest_lag", "reference_lag", "not_found_after_created", "empty_result_after_determined",
)  # fmt: skip


@dataclass
class Faults:
    """The faults in force, oldest first."""

    active: list[Fault] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)

    def add(self, request: FaultRequest) -> None:
        """Put a fault in force; ValueError for a kind nobody knows or a length that is missing."""
        if request.kind in MESSAGE_KINDS:
            self.active.append(Fault(request, request.count or 1, None))
        elif request.kind in LASTING_KINDS:
            if request.seconds is None and request.count is None:
                raise ValueError(f"{request.kind} needs seconds or count")
            lasting = request.seconds is not None and request.kind not in _AGE_KINDS
            until = time.monotonic() + (request.seconds or 0) if lasting else None
            self.active.append(Fault(request, request.count, until))
        elif request.kind == "move_cutoff" and request.after_requests is not None:
            if request.after_requests < 1:
                raise ValueError("after_requests must be above zero")
            self.active.append(Fault(request, None, None, request.after_requests))
        elif request.kind not in IMMEDIATE_KINDS:
            known = ", ".join(MESSAGE_KINDS + LASTING_KINDS + IMMEDIATE_KINDS)
            raise ValueError(f"unknown kind {request.kind!r}; known are {known}")

    def clear(self) -> None:
        self.active.clear()

    def standing(self, kind: str) -> FaultRequest | None:
        """The fault of a kind that is in force, without using it up."""
        self._forget_past()
        return next((f.request for f in self.active if f.request.kind == kind), None)

    def use(self, kind: str) -> FaultRequest | None:
        """The fault of a kind that is in force, one count of it used up."""
        self._forget_past()
        for fault in self.active:
            if fault.request.kind == kind:
                self._count(fault)
                return fault.request
        return None

    def page_asked(self) -> FaultRequest | None:
        """Count a page of markets or trades; the fault that waited for just so many, taken away."""
        for fault in [fault for fault in self.active if fault.requests_left]:
            fault.requests_left -= 1
            if not fault.requests_left:
                self.active.remove(fault)
                self.note(fault.request.kind)
                return fault.request
        return None

    def use_on_message(self, channel: str) -> FaultRequest | None:
        """The fault that befalls the next message of a channel."""
        if not self.active:
            return None
        self._forget_past()
        for fault in self.active:
            if fault.request.kind in MESSAGE_KINDS and fault.request.channel == channel:
                self._count(fault)
                return fault.request
        return None

    def note(self, kind: str) -> None:
        """Count a fault that was done at once."""
        self.done[kind] = self.done.get(kind, 0) + 1

    def report(self) -> dict[str, Any]:
        """What is in force, and how often each kind has struck."""
        self._forget_past()
        return {
            "active": [
                {
                    "kind": fault.request.kind,
                    "channel": fault.request.channel,
                    "left": fault.left,
                    "requests_left": fault.requests_left,
                    "seconds_left": None
                    if fault.until is None
                    else round(fault.until - time.monotonic(), 3),
                }
                for fault in self.active
            ],
            "done": self.done,
        }

    def _count(self, fault: Fault) -> None:
        self.note(fault.request.kind)
        if fault.left is not None:
            fault.left -= 1

    def _forget_past(self) -> None:
        if self.active:
            self.active = [fault for fault in self.active if fault.in_force()]
