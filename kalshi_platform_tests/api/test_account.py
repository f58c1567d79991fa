"""Credits and rates as customers meet them: costs, headers, 402, 429, GET /account."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import APIRouter
from structlog.testing import capture_logs

from api.auth import SECURITY, KeyedRoute
from api.costs import COSTS
from api.keys import REMEMBERED_SECONDS, Keys
from api.routes.account import Account
from api.schemas import Record
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.plans import PLANS, Plan
from kalshi_platform.storage.reads.keys import list_keys
from kalshi_platform.storage.reads.usage import ledger_differences
from kalshi_platform.storage.writes.keys import (
    create_key,
    grant_credits,
    revoke_key,
    rotate_key,
)
from kalshi_platform_tests.api.rows import TICKER, land, trade

BODY = {"market_ticker": TICKER}
METERED = {
    *("x-credits-cost", "x-credits-remaining"),
    *("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
}


@pytest.fixture
def clock(app):
    """Moves the time by which keys are remembered."""

    class Clock:
        now = 1_000.0

        def forget(self) -> None:
            self.now += REMEMBERED_SECONDS + 0.001

    clock = Clock()
    app.state.keys = Keys(app.state.accounts, clock=lambda: clock.now)
    return clock


@pytest.fixture
def customer(anonymous, database):
    """Makes a key of so many credits and lets the client use it; its number."""

    def make(monthly_credits: int, requests_per_second: int = 1_000) -> int:
        with connect(database) as connection:
            plan = Plan("test", monthly_credits, requests_per_second)
            key = create_key(connection, "customer", plan=plan)
            connection.commit()
            key_id = list_keys(connection)[-1].key_id
        anonymous.headers["X-API-Key"] = key
        return key_id

    return make


def credits_of(response) -> tuple[int, int]:
    assert set(response.headers) >= METERED, response.text
    headers = response.headers
    return int(headers["x-credits-cost"]), int(headers["x-credits-remaining"])


def differences(database):
    with connect(database) as connection:
        return ledger_differences(connection)


def test_every_keyed_route_has_its_cost_and_nothing_else_has(app):
    found = set()
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            if "security" in operation:
                found.add(f"{method.upper()} {path}")
                said = operation["responses"]["200"]["headers"]["X-Credits-Cost"]["description"]
                assert f" {COSTS[f'{method.upper()} {path}']} for a 2xx" in said
                assert ("402" in operation["responses"]) is (COSTS[f"{method.upper()} {path}"] > 0)
                assert "Retry-After" in operation["responses"]["429"]["headers"]
    assert found == set(COSTS)


def test_a_keyed_route_without_a_cost_does_not_start():
    router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY)
    with pytest.raises(LookupError, match="GET /gratis has no cost"):

        @router.get("/gratis")
        async def gratis() -> None: ...


async def test_an_answer_costs_what_the_table_says_and_a_refusal_nothing(
    anonymous, customer, database
):
    land(database, trade())
    key_id = customer(100)
    assert credits_of(await anonymous.post("/trades", json=BODY)) == (2, 98)
    assert credits_of(await anonymous.get(f"/candles/{TICKER}")) == (3, 95)
    assert credits_of(await anonymous.get("/series")) == (1, 94)
    for refused in (
        await anonymous.post("/trades", json={"market_ticker": "KXNONE"}),
        await anonymous.post("/trades", json={}),
        await anonymous.post("/trades", content=b"{", headers={"Content-Type": "application/json"}),
        await anonymous.get("/series/KXNONE"),
    ):
        assert refused.status_code in (404, 422)
        assert credits_of(refused) == (0, 94)
    assert credits_of(await anonymous.get("/account")) == (0, 94)
    with connect(database) as connection:
        assert connection.execute(
            "SELECT endpoint, requests, credits FROM api_usage WHERE key_id = %s ORDER BY 1",
            [key_id],
        ).fetchall() == [
            ("GET /candles/{ticker}", 1, 3),
            ("GET /series", 1, 1),
            ("POST /trades", 1, 2),
        ]
    assert differences(database) == []


async def test_spent_credits_are_a_402_without_data_until_there_are_new_ones(
    anonymous, customer, database, clock
):
    land(database, trade())
    key_id = customer(3)
    assert credits_of(await anonymous.post("/trades", json=BODY)) == (2, 1)
    response = await anonymous.post("/trades", json=BODY)
    assert response.status_code == 402
    assert credits_of(response) == (0, 1)
    problem = response.json()
    assert problem["type"] == "urn:kalshi-platform:problem:credits_spent"
    assert "has 1 left" in problem["detail"]
    assert "data" not in problem
    assert credits_of(await anonymous.get("/series")) == (1, 0)
    with connect(database) as connection:
        assert grant_credits(connection, key_id, 5) == 5
    assert (await anonymous.post("/trades", json=BODY)).status_code == 402  # remembered
    clock.forget()
    assert credits_of(await anonymous.post("/trades", json=BODY)) == (2, 3)
    assert differences(database) == []


async def test_a_key_known_to_be_empty_asks_the_database_for_nothing(
    anonymous, customer, monkeypatch
):
    customer(1)

    def never(*_arguments, **_fields):
        raise AssertionError("the question was asked")

    monkeypatch.setattr("api.routes.trades.trades_page", never)
    assert (await anonymous.post("/trades", json=BODY)).status_code == 402


async def test_a_new_month_brings_new_credits(anonymous, customer, database, clock):
    customer(2)
    assert credits_of(await anonymous.get("/series")) == (1, 1)
    assert credits_of(await anonymous.get("/series")) == (1, 0)
    assert (await anonymous.get("/series")).status_code == 402
    with connect(database) as connection:
        connection.execute("UPDATE api_balances SET month = month - interval '1 month'")
        connection.execute("UPDATE api_usage SET used_on = used_on - interval '1 month'")
    clock.forget()
    assert credits_of(await anonymous.get("/series")) == (1, 1)
    account = (await anonymous.get("/account")).json()["data"]
    assert (account["month_spent"], account["credits_left"]) == (1, 1)
    assert [row["credits"] for row in account["usage"]] == [1]
    assert differences(database) == []


async def test_many_at_once_spend_what_there_is_and_no_more(anonymous, customer, database):
    customer(41)
    land(database, trade())
    questions = [anonymous.post("/trades", json=BODY) for _ in range(30)]
    questions += [anonymous.get("/series") for _ in range(10)]
    answers = await asyncio.gather(*questions)
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 402}
    paid = sum(credits_of(answer)[0] for answer in answers)
    # One credit may be left where only questions of two were refused.
    assert paid in (40, 41)
    assert paid == sum(
        2 if answer.request.method == "POST" else 1
        for answer in answers
        if answer.status_code == 200
    )
    assert differences(database) == []
    with connect(database) as connection:
        [key] = list_keys(connection)
    assert key.month_spent == paid


async def test_who_asks_too_fast_is_told_when_to_come_back(anonymous, customer):
    customer(100, requests_per_second=1)
    answers = [await anonymous.get("/account") for _ in range(7)]
    assert [answer.status_code for answer in answers[:5]] == [200] * 5
    refused = answers[-1]
    assert refused.status_code == 429
    assert refused.json()["type"] == "urn:kalshi-platform:problem:too_many_requests"
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["ratelimit-limit"] == "5"
    assert refused.headers["ratelimit-remaining"] == "0"
    assert credits_of(refused) == (0, 100)


async def test_refused_keys_carry_no_figures(anonymous):
    response = await anonymous.get("/account", headers={"X-API-Key": "kk_wrong"})
    assert response.status_code == 401
    assert not METERED & set(response.headers)


async def test_the_account_tells_plan_credits_and_use(anonymous, database):
    expires_at = datetime(2099, 12, 31, tzinfo=UTC)
    with connect(database) as connection:
        key = create_key(connection, "research", plan=PLANS["basic"], expires_at=expires_at)
        connection.commit()
        key_id = list_keys(connection)[-1].key_id
        grant_credits(connection, key_id, 50)
    anonymous.headers["X-API-Key"] = key
    await anonymous.get("/series")
    response = await anonymous.get("/account")
    Record[Account].model_validate_json(response.content)
    account = response.json()["data"]
    today = datetime.now(UTC).date()
    following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    assert account == {
        "name": "research",
        "plan": "basic",
        "prefix": key[:10],
        "monthly_credits": 1_000_000,
        "month": f"{today:%Y-%m}",
        "month_spent": 1,
        "extra_left": 50,
        "credits_left": 1_000_049,
        "requests_per_second": 10,
        "expires_at": "2099-12-31T00:00:00.000000Z",
        "resets_at": f"{following}T00:00:00.000000Z",
        "usage": [
            {"day": str(today), "endpoint": "GET /series", "requests": 1, "credits": 1},
        ],
    }
    assert key not in response.text
    before = {"start_date": "2026-01-01", "end_date": str(today - timedelta(days=1))}
    assert (await anonymous.get("/account", params=before)).json()["data"]["usage"] == []
    for wrong in (
        {"start_date": "2026-02-01", "end_date": "2026-01-01"},
        {"start_date": "yesterday"},
        {"start_date": "0001-01-01"},
        {"key_id": "1"},
    ):
        assert (await anonymous.get("/account", params=wrong)).status_code == 422


async def test_whoever_has_less_than_nothing_still_sees_the_account(client, database):
    """A plan made smaller in the middle of a month."""
    with connect(database) as connection:
        connection.execute("UPDATE api_keys SET monthly_credits = 5")
        connection.execute("UPDATE api_balances SET month_spent = 10")
    response = await client.get("/account")
    assert response.status_code == 200
    assert response.headers["x-credits-remaining"] == "0"
    assert (await client.get("/series")).status_code == 402


async def test_no_cache_may_keep_what_was_made_for_a_key(client):
    for path in ("/account", "/series", "/series/KXNONE"):
        assert (await client.get(path)).headers["cache-control"] == "no-store"


async def test_one_account_knows_nothing_of_another(anonymous, database, client, customer):
    await client.get("/series")
    del anonymous.headers["Authorization"]
    customer(7)
    account = (await anonymous.get("/account")).json()["data"]
    assert (account["name"], account["usage"]) == ("customer", [])


async def test_a_rotated_key_works_until_its_time_is_over(anonymous, database, clock, monkeypatch):
    with connect(database) as connection:
        old = create_key(connection, "research", plan=Plan("test", 10, 1_000))
        connection.commit()
        [shown] = list_keys(connection)
        new = rotate_key(connection, shown.key_id, timedelta(hours=1))
    assert new is not None
    for key, left in ((old, 9), (new, 8), (old, 7)):
        answer = await anonymous.get("/series", headers={"X-API-Key": key})
        assert credits_of(answer)[0] == 1
        clock.forget()
        answer = await anonymous.get("/account", headers={"X-API-Key": key})
        assert credits_of(answer) == (0, left)
        assert answer.json()["data"]["prefix"] == new[:10]
    later = datetime.now(UTC) + timedelta(hours=1, seconds=1)
    monkeypatch.setattr("api.keys.time.time", later.timestamp)
    refused = await anonymous.get("/series", headers={"X-API-Key": old})
    assert refused.status_code == 401
    assert "replaced" in refused.json()["detail"]
    assert (await anonymous.get("/series", headers={"X-API-Key": new})).status_code == 200


async def test_a_key_rotated_twice_ends_at_once(anonymous, database, clock):
    with connect(database) as connection:
        first = create_key(connection, "research")
        connection.commit()
        [shown] = list_keys(connection)
        second = rotate_key(connection, shown.key_id, timedelta(hours=1))
        third = rotate_key(connection, shown.key_id, timedelta(0))
    statuses = [
        (await anonymous.get("/series", headers={"X-API-Key": key})).status_code
        for key in (first, second, third)
    ]
    assert statuses == [401, 401, 200]


def test_no_key_can_be_rotated_or_credited_that_is_not_in_force(database):
    with connect(database) as connection:
        create_key(connection, "revoked")
        create_key(connection, "expired", expires_at=datetime(2026, 1, 1, tzinfo=UTC))
        revoked, expired = list_keys(connection)
        revoke_key(connection, revoked.key_id)
        for key_id in (revoked.key_id, expired.key_id, 404):
            assert rotate_key(connection, key_id, timedelta(0)) is None
            assert grant_credits(connection, key_id, 5) is None
        assert ledger_differences(connection) == []


async def test_neither_key_nor_hash_is_in_any_log(anonymous, database, customer):
    key_id = customer(3)
    key = anonymous.headers["X-API-Key"]
    with connect(database) as connection:
        [digest] = connection.execute(
            "SELECT encode(key_hash, 'hex') FROM api_keys WHERE key_id = %s", [key_id]
        ).fetchone()
    with capture_logs() as logs:
        for _ in range(5):
            await anonymous.get("/series")
        await anonymous.get("/account")
        await anonymous.get("/series", headers={"X-API-Key": key + "x"})
    assert len(logs) >= 7
    assert key not in str(logs)
    assert digest not in str(logs)
