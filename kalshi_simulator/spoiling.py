"""How a message is spoiled: the trade behind it is real, only its frame is not fit to read."""

from __future__ import annotations

import msgspec

from kalshi_simulator.faults import FaultRequest

_SIDES = ("yes_dollars_fp", "no_dollars_fp")
_BAD_PRICES = ("1.5000", "0.36.1", "-0.3600", "")


def spoiled_body(fault: FaultRequest, body: bytes, turn: int) -> bytes:
    """The `msg` as the fault leaves it; `turn` varies what is done."""
    if fault.kind not in ("missing_field", "bad_price", "old_shape", "unknown_field"):
        return body
    message: dict[str, object] = msgspec.json.decode(body)
    if fault.kind == "missing_field":
        message.pop(fault.field, None)
    elif fault.kind == "bad_price":
        bad = _BAD_PRICES[turn % len(_BAD_PRICES)] if fault.price is None else fault.price
        side = next((message[name] for name in _SIDES if message.get(name)), None)
        if isinstance(side, list):
            side[0][0] = bad
        else:
            name = "yes_price_dollars" if "yes_price_dollars" in message else "price_dollars"
            message[name] = bad
    elif fault.kind == "unknown_field":
        message["Clock"] = turn
        message["novel"] = {"nested": [1, "2"]}
    else:
        message = _old_shape(message)
    return msgspec.json.encode(message)


def spoiled_frame(fault: FaultRequest, frame: bytes, turn: int) -> bytes:
    """The whole frame as the fault leaves it."""
    if fault.kind != "malformed":
        return frame
    return frame[: len(frame) // 2] if turn % 2 == 0 else b"upstream connect error " + frame[:20]


def spoiled_reply(fault: FaultRequest, frame: bytes, turn: int) -> bytes:
    """A frame that has been numbered already, as the fault leaves it."""
    envelope: dict[str, object] = msgspec.json.decode(frame)
    body = msgspec.json.encode(envelope["msg"])
    spoiled = spoiled_body(fault, body, turn)
    if spoiled != body:
        envelope["msg"] = msgspec.Raw(spoiled)
        frame = msgspec.json.encode(envelope)
    return spoiled_frame(fault, frame, turn)


def _old_shape(message: dict[str, object]) -> dict[str, object]:
    """A message as it was before March 2026: whole cents, whole contracts."""
    old: dict[str, object] = {}
    for name, value in message.items():
        if name.endswith("_dollars") and isinstance(value, str):
            old[name.removesuffix("_dollars")] = int(value[0]) * 100 + int(value[2:4])
        elif name.endswith("_fp") and isinstance(value, str):
            old[name.removesuffix("_fp")] = int(value.partition(".")[0])
        else:
            old[name] = value
    return old
