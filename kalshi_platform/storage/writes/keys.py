"""Customers' API keys: made and revoked. Only a hash is kept; the key is shown once."""

import hashlib
import secrets
from datetime import datetime

import psycopg

KEY_PREFIX = "kk_"
_SHOWN_CHARACTERS = 10


def create_key(
    connection: psycopg.Connection, name: str, *, expires_at: datetime | None = None
) -> str:
    """Make a key for `name`; the caller commits.

    Returns:
        The key, "kk_" and 43 random characters: the only time it is seen.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    connection.execute(
        "INSERT INTO api_keys (key_hash, prefix, name, expires_at,"
        " plan, monthly_credits, requests_per_second) VALUES (%s, %s, %s, %s, 'local', %s, %s)",
        [
            hashlib.sha256(key.encode()).digest(),
            key[:_SHOWN_CHARACTERS],
            name,
            expires_at,
            1_000_000_000,
            10_000,
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
