"""Charging customers: a batch of charges is one statement, so one transaction.

Exactly once: the statement writes the batch's number beside its charges, and does nothing if the
meter has come that far already. So a batch whose commit got no answer is simply sent again; should
the first one still be on its way, only one of the two takes effect.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from kalshi_platform.storage.reads.keys import MONTH_SPENT, THIS_MONTH

# held: no waiting for rows: a key that somebody else holds just now is left out and asked for
# again, so that it keeps no other key waiting and nothing can deadlock.
# month, used_on: another process may have turned the month before us; a balance never goes back.
# decided: in the order of asking; the month's credits first, then granted ones (extra).
# charged is null where the batch was committed before.
CHARGE = f"""\
WITH asked AS MATERIALIZED (
    SELECT place, key_id, endpoint, credits,
           (sum(credits) OVER (PARTITION BY key_id ORDER BY place))::bigint AS through
    FROM unnest(%(key_ids)s::bigint[], %(endpoints)s::text[], %(credits)s::bigint[])
         WITH ORDINALITY AS asked (key_id, endpoint, credits, place)
), held AS MATERIALIZED (
    SELECT key_id, greatest(month, {THIS_MONTH}) AS month, {MONTH_SPENT} AS spent,
           monthly_credits - ({MONTH_SPENT}) AS month_left, extra_left,
           greatest(month, (now() AT TIME ZONE 'UTC')::date) AS used_on
    FROM api_balances JOIN api_keys USING (key_id)
    WHERE key_id = ANY (%(key_ids)s::bigint[])
    FOR NO KEY UPDATE OF api_balances SKIP LOCKED
), decided AS MATERIALIZED (
    SELECT place, key_id, endpoint, credits, used_on,
           greatest(through - month_left, 0)
           - greatest(through - credits - month_left, 0) AS extra
    FROM asked JOIN held USING (key_id)
    WHERE through <= month_left + extra_left
), metered AS (
    INSERT INTO api_meters AS meter (meter_id, last_batch, charged)
    SELECT %(meter_id)s, %(batch)s, coalesce(array_agg(place::integer ORDER BY place), '{{}}')
    FROM decided
    ON CONFLICT (meter_id) DO UPDATE
    SET last_batch = excluded.last_batch, charged = excluded.charged, updated_at = now()
    WHERE meter.last_batch < excluded.last_batch
    RETURNING charged
), sums AS MATERIALIZED (
    SELECT key_id, sum(credits)::bigint AS credits, sum(extra)::bigint AS extra
    FROM decided GROUP BY key_id
), balanced AS (
    UPDATE api_balances AS balance
    SET month = held.month, month_spent = held.spent + sums.credits - sums.extra,
        extra_left = held.extra_left - sums.extra
    FROM held JOIN sums USING (key_id)
    WHERE balance.key_id = held.key_id AND EXISTS (SELECT FROM metered)
), used AS (
    INSERT INTO api_usage AS usage (key_id, used_on, endpoint, requests, credits, extra_credits)
    SELECT key_id, used_on, endpoint, count(*), sum(credits), sum(extra)
    FROM decided WHERE EXISTS (SELECT FROM metered)
    GROUP BY key_id, used_on, endpoint
    ON CONFLICT (key_id, used_on, endpoint) DO UPDATE
    SET requests = usage.requests + excluded.requests, credits = usage.credits + excluded.credits,
        extra_credits = usage.extra_credits + excluded.extra_credits
)
SELECT (SELECT charged FROM metered), array_agg(key_id),
       array_agg(month_left + extra_left - coalesce(sums.credits, 0))
FROM held LEFT JOIN sums USING (key_id)"""  # noqa: S608

# What a batch that was committed before has charged.
CHARGED = "SELECT charged FROM api_meters WHERE meter_id = %(meter_id)s AND last_batch = %(batch)s"

# A meter says goodbye; and those that could not are forgotten, long after their last charge.
CLOSE_METER = """\
DELETE FROM api_meters
WHERE meter_id = %(meter_id)s OR updated_at < now() - interval '7 days'"""


class Charge(NamedTuple):
    """What one answer costs; `endpoint` is its method and route, credits at least one."""

    key_id: int
    endpoint: str
    credits: int


class Outcome(NamedTuple):
    """What became of a batch.

    charged: places of the charges made, from 0.
    left: credits that keys have left afterwards. A key that somebody else held is missing: ask
        again; so are all where an earlier attempt had committed the batch.
    """

    charged: frozenset[int]
    left: dict[int, int]


async def charge(
    connection: psycopg.AsyncConnection[Any],
    meter_id: UUID,
    batch: int,
    charges: Sequence[Charge],
) -> Outcome:
    """Make a meter's charges as far as their keys' credits suffice, in order.

    Commits: `connection` must be in autocommit mode. After an error the same batch, with the same
    number and charges, may be sent again on another connection.

    Args:
        batch: greater than that of any other batch of this meter.
    """
    names = {"meter_id": meter_id, "batch": batch}
    columns = {
        "key_ids": [charge.key_id for charge in charges],
        "endpoints": [charge.endpoint for charge in charges],
        "credits": [charge.credits for charge in charges],
    }
    cursor = await connection.execute(CHARGE, {**names, **columns}, prepare=True)
    row = await cursor.fetchone()
    assert row is not None, "an aggregate answers one row"
    charged, key_ids, left = row
    if charged is None:
        cursor = await connection.execute(CHARGED, names)
        row = await cursor.fetchone()
        assert row is not None, "batches of one meter are sent one after the other"
        return Outcome(frozenset(place - 1 for place in row[0]), {})
    return Outcome(
        frozenset(place - 1 for place in charged),
        dict(zip(key_ids or (), left or (), strict=True)),
    )
