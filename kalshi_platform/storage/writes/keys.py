"""Customers' API keys: made, rotated, revoked, given credits.

Only hashes are kept; a key is shown once.
"""

import hashlib
import secrets
from datetime import datetime, timedelta

import psycopg

from kalshi_platform.storage.plans import LOCAL, Plan
from kalshi_platform.storage.reads.keys import THIS_MONTH

KEY_PREFIX = "kk_"
_SHOWN_CHARACTERS = 10
_CREATE = f"""\
WITH made AS (
    INSERT INTO api_keys (key_hash, prefix, name, expires_at, plan, monthly_credits,
                          requests_per_second)
    VALUES (%s, %s, %s, %s, %s, %s, %s)
    RETURNING key_id
)
INSERT INTO api_balances (key_id, month, month_spent, extra_left)
SELECT key_id, {THIS_MONTH}, 0, 0 FROM made"""  # noqa: S608


def create_key(
    connection: psycopg.Connection,
    name: str,
    *,
    plan: Plan = LOCAL,
    monthly_credits: int | None = None,
    requests_per_second: int | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Make a key for `name`; the caller commits.

    Args:
        monthly_credits, requests_per_second: in place of the plan's.

    Returns:
        The key, "kk_" and 43 random characters: the only time it is seen.
    """
    key = _new_key()
    connection.execute(
        _CREATE,
        [
            _hash(key),
            _shown(key),
            name,
            expires_at,
            plan.name,
            plan.monthly_credits if monthly_credits is None else monthly_credits,
            plan.requests_per_second if requests_per_second is None else requests_per_second,
        ],
    )
    return key


def revoke_key(connection: psycopg.Connection, key_id: int) -> bool:
    """Revoke a key; the caller commits. A running API notices within ten seconds.

    Returns:
        Whether it was in force until now.
    """
    revoked = connection.execute(
        "UPDATE api_keys SET revoked_at = now() WHERE key_id = %s AND revoked_at IS NULL", [key_id]
    )
    return revoked.rowcount == 1


def rotate_key(connection: psycopg.Connection, key_id: int, grace: timedelta) -> str | None:
    """Give a key a new secret; the old one works for `grace`, one before that ends now.

    Credits, plan and usage stay; the caller commits.

    Returns:
        The new key, the only time it is seen; None if no such key is in force.
    """
    key = _new_key()
    rotated = connection.execute(
        "UPDATE api_keys SET previous_hash = key_hash, previous_until = now() + %s,"
        " key_hash = %s, prefix = %s"
        " WHERE key_id = %s AND revoked_at IS NULL AND (expires_at > now()) IS NOT FALSE",
        [grace, _hash(key), _shown(key), key_id],
    )
    return key if rotated.rowcount == 1 else None


def grant_credits(
    connection: psycopg.Connection, key_id: int, amount: int, note: str | None = None
) -> int | None:
    """Give a key credits beyond its plan's; they do not expire. The caller commits.

    Returns:
        How many granted credits it now has left; None if no such key is in force.
    """
    row = connection.execute(
        "UPDATE api_balances SET extra_left = extra_left + %(credits)s FROM api_keys"
        " WHERE api_balances.key_id = %(key_id)s AND api_keys.key_id = %(key_id)s"
        " AND revoked_at IS NULL AND (expires_at > now()) IS NOT FALSE RETURNING extra_left",
        {"key_id": key_id, "credits": amount},
    ).fetchone()
    if row is None:
        return None
    connection.execute(
        "INSERT INTO credit_grants (key_id, credits, note) VALUES (%s, %s, %s)",
        [key_id, amount, note],
    )
    return int(row[0])


def _new_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(32)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _shown(key: str) -> str:
    return key[:_SHOWN_CHARACTERS]
