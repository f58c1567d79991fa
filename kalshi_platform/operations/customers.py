"""Keys and what they used, as an operator reads it."""

from collections.abc import Iterator
from datetime import UTC, datetime

from kalshi_platform.operations.errors import Refusal
from kalshi_platform.storage.reads.keys import Key
from kalshi_platform.storage.reads.usage import Used


def not_in_force(key_id: int) -> Refusal:
    return Refusal(f"No key {key_id} is in force: see `kalshi-platform keys list`.")


def key_lines(keys: list[Key]) -> Iterator[str]:
    """One line a key: number, prefix, day made, state, plan, credits, last use, name."""
    now = datetime.now(UTC)
    for key in keys:
        over = key.expires_at is not None and key.expires_at <= now
        state = "revoked" if key.revoked_at else "expired" if over else "in force"
        word = "since" if over else "until"
        ends = f", {word} {key.expires_at:%Y-%m-%d}" if key.expires_at else ""
        spent = f"{key.month_spent:,} spent, {key.credits_left:,} left"
        used = f"used {key.last_used_on}" if key.last_used_on else "never used"
        yield (
            f"{key.key_id:>4}  {key.prefix}…  {key.created_at:%Y-%m-%d}  {state}{ends}"
            f"  {key.plan}: {spent}  {used}  {key.name}"
        )


def usage_lines(used: list[Used]) -> Iterator[str]:
    """One line a day and endpoint, and their sum."""
    for row in used:
        yield f"{row.day}  {row.endpoint:<28} {row.requests:>12,} {row.credits:>14,}"
    requests, spent = sum(row.requests for row in used), sum(row.credits for row in used)
    yield f"{'requests, credits':<40} {requests:>12,} {spent:>14,}"
