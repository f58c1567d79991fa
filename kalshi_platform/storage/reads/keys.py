"""Customers' API keys and accounts, as far as they may be seen."""

from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from psycopg.rows import class_row

THIS_MONTH = "date_trunc('month', now() AT TIME ZONE 'UTC')::date"
# Of a row of api_balances: a month that is over has no credits to spend, and none were spent yet.
MONTH_SPENT = f"CASE WHEN month >= {THIS_MONTH} THEN month_spent ELSE 0 END"
CREDITS_LEFT = f"monthly_credits - ({MONTH_SPENT}) + extra_left"

# One row per key: revoked (t or f), expires_at in Unix seconds or null, rotated_until: when the
# hash ends because it is of the key before a rotation, else null.
KEY_BY_HASH = f"""\
SELECT key_id, revoked_at IS NOT NULL AS revoked, extract(epoch FROM expires_at) AS expires_at,
       CASE WHEN key_hash <> %(key_hash)s
            THEN extract(epoch FROM previous_until) END AS rotated_until,
       requests_per_second, {CREDITS_LEFT} AS credits_left
FROM api_keys JOIN api_balances USING (key_id)
WHERE key_hash = %(key_hash)s OR previous_hash = %(key_hash)s"""  # noqa: S608

# One JSON object: the account of `key_id`, with its usage on the days [start, end].
ACCOUNT = f"""\
SELECT json_build_object(
    'name', name, 'plan', plan, 'prefix', prefix, 'monthly_credits', monthly_credits,
    'month', to_char({THIS_MONTH}, 'YYYY-MM'), 'month_spent', {MONTH_SPENT},
    'extra_left', extra_left, 'credits_left', {CREDITS_LEFT},
    'requests_per_second', requests_per_second,
    'expires_at', to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'resets_at', to_char({THIS_MONTH} + interval '1 month', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'usage', (
        SELECT coalesce(json_agg(json_build_object(
            'day', used_on, 'endpoint', endpoint, 'requests', requests, 'credits', credits)
            ORDER BY used_on, endpoint), '[]')
        FROM api_usage
        WHERE api_usage.key_id = api_keys.key_id
          AND used_on BETWEEN coalesce(%(start)s::date, {THIS_MONTH})
          AND coalesce(%(end)s::date, 'infinity')))
FROM api_keys JOIN api_balances USING (key_id)
WHERE key_id = %(key_id)s"""  # noqa: S608


_KEYS = f"""\
SELECT key_id, prefix, name, created_at, expires_at, revoked_at, plan,
       {MONTH_SPENT} AS month_spent, {CREDITS_LEFT} AS credits_left,
       (SELECT max(used_on) FROM api_usage WHERE api_usage.key_id = api_keys.key_id) AS last_used_on
FROM api_keys JOIN api_balances USING (key_id)
ORDER BY key_id"""  # noqa: S608


@dataclass(frozen=True)
class Key:
    """A key without its secret; instants and days are UTC."""

    key_id: int
    prefix: str
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    plan: str
    month_spent: int
    credits_left: int
    last_used_on: date | None


def list_keys(connection: psycopg.Connection) -> list[Key]:
    """All keys ever made, oldest first."""
    with connection.cursor(row_factory=class_row(Key)) as cursor:
        return cursor.execute(_KEYS).fetchall()
