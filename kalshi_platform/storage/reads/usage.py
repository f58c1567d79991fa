"""What keys used, and whether the books of it balance."""

from datetime import date
from typing import NamedTuple

import psycopg
from psycopg.rows import class_row

# Each row is a sentence that must hold of a key and does not. Balances, usage and grants are
# committed together, so one statement sees them agree at any moment.
_DIFFERENCES = """\
WITH used AS (
    SELECT key_id, sum(extra_credits) AS extra,
           sum(credits - extra_credits)
               FILTER (WHERE date_trunc('month', used_on)::date = month) AS of_month,
           count(*) FILTER (WHERE used_on >= month + interval '1 month') AS of_later_months,
           count(*) FILTER (WHERE requests < 1 OR credits < 0 OR extra_credits < 0
                               OR extra_credits > credits) AS impossible
    FROM api_usage LEFT JOIN api_balances USING (key_id)
    GROUP BY key_id
), given AS (
    SELECT key_id, sum(credits) AS credits FROM credit_grants GROUP BY key_id
), kept AS (
    SELECT key_id, api_keys.key_id IS NOT NULL AND month IS NOT NULL AS whole, month_spent,
           extra_left, monthly_credits, coalesce(used.extra, 0) AS extra,
           coalesce(of_month, 0) AS of_month, coalesce(of_later_months, 0) AS of_later_months,
           coalesce(impossible, 0) AS impossible, coalesce(given.credits, 0) AS given
    FROM api_keys FULL JOIN api_balances USING (key_id) FULL JOIN used USING (key_id)
         FULL JOIN given USING (key_id)
)
SELECT key_id, what, expected::bigint, found::bigint
FROM kept, LATERAL (VALUES
    ('has a key and a balance', 1, whole::int),
    ('granted credits used: grants less what is left', given - extra_left, extra),
    ('credits of the month: its usage less granted credits', of_month, month_spent),
    ('credits of the month beyond the plan', 0, greatest(month_spent - monthly_credits, 0)),
    ('rows of usage after the month of the balance', 0, of_later_months),
    ('impossible rows of usage', 0, impossible)) AS rule (what, expected, found)
WHERE expected IS DISTINCT FROM found
ORDER BY key_id, what"""


class Difference(NamedTuple):
    """Something that does not add up; `found` is what it should equal `expected` to."""

    key_id: int
    what: str
    expected: int | None
    found: int | None


class Used(NamedTuple):
    """What one key used of one endpoint on one UTC day; credits include granted ones."""

    day: date
    endpoint: str
    requests: int
    credits: int


def ledger_differences(connection: psycopg.Connection) -> list[Difference]:
    """Where balances, usage and grants disagree; empty if the ledger balances to the credit."""
    with connection.cursor(row_factory=class_row(Difference)) as cursor:
        return cursor.execute(_DIFFERENCES).fetchall()


def usage_between(
    connection: psycopg.Connection, key_id: int, first: date, last: date
) -> list[Used]:
    """What a key used on the days [first, last], by day and endpoint."""
    with connection.cursor(row_factory=class_row(Used)) as cursor:
        return cursor.execute(
            "SELECT used_on AS day, endpoint, requests, credits FROM api_usage"
            " WHERE key_id = %s AND used_on BETWEEN %s AND %s ORDER BY used_on, endpoint",
            [key_id, first, last],
        ).fetchall()
