"""Customers' API keys, as far as they may be seen."""

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

# One row per key: revoked (t or f), expires_at in Unix seconds or null.
KEY_BY_HASH = """\
SELECT key_id, revoked_at IS NOT NULL AS revoked, extract(epoch FROM expires_at) AS expires_at
FROM api_keys WHERE key_hash = %(key_hash)s"""


@dataclass(frozen=True)
class Key:
    """A key without its secret; instants are UTC."""

    key_id: int
    prefix: str
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def list_keys(connection: psycopg.Connection) -> list[Key]:
    """All keys ever made, oldest first."""
    with connection.cursor(row_factory=class_row(Key)) as cursor:
        return cursor.execute(
            "SELECT key_id, prefix, name, created_at, expires_at, revoked_at"
            " FROM api_keys ORDER BY key_id"
        ).fetchall()
