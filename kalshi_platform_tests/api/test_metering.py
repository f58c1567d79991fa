"""The meter: what happens to charges while the database or another process is in the way."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

import pytest

from api.charge_database import METER_OPTIONS, ChargeDatabase
from api.database import DatabaseUnavailable
from api.metering import Meter, Verdict
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.plans import Plan
from kalshi_platform.storage.reads.keys import Key, list_keys
from kalshi_platform.storage.reads.usage import ledger_differences
from kalshi_platform.storage.writes.keys import create_key
from kalshi_platform.storage.writes.metering import Outcome
from kalshi_platform_tests.api.rows import TICKER, land, trade
from kalshi_platform_tests.storage.cut_proxy import cut_proxy

TRADES, SERIES = "POST /trades", "GET /series"


def new_key(url: str, credits_a_month: int) -> int:
    with connect(url) as connection:
        create_key(connection, "tests", plan=Plan("test", credits_a_month, 10_000))
        return list_keys(connection)[-1].key_id


def account(url: str, key_id: int) -> Key:
    """The key, once its ledger was found to balance."""
    with connect(url) as connection:
        assert ledger_differences(connection) == []
        [key] = [key for key in list_keys(connection) if key.key_id == key_id]
    return key


@pytest.fixture
def folder() -> Iterator[Path]:
    # A socket's path may have 107 bytes; pytest's own folders are longer.
    with tempfile.TemporaryDirectory(prefix="kk-") as name:
        yield Path(name)


def through(folder: Path, database: str) -> str:
    name = database.partition("?")[0].rpartition("/")[2]
    return f"postgresql://postgres@/{name}?host={quote(str(folder), safe='/')}"


async def opened(url: str) -> tuple[ChargeDatabase, Meter]:
    charges = ChargeDatabase(url)
    await charges.open()
    return charges, Meter(charges)


async def test_charges_that_wait_together_are_one_transaction(database):
    key_id = new_key(database, 1_000)
    charges, meter = await opened(database)
    verdicts = await asyncio.gather(*[meter.charge(key_id, TRADES, 2) for _ in range(100)])
    assert all(verdict.charged for verdict in verdicts)
    with connect(database) as connection:
        [[batches]] = connection.execute("SELECT last_batch FROM api_meters").fetchall()
    assert batches <= 2
    await meter.close()
    await charges.close()
    with connect(database) as connection:
        assert connection.execute("SELECT FROM api_meters").fetchall() == []
    assert account(database, key_id).month_spent == 200


async def test_a_cheaper_charge_behind_one_that_is_refused_is_still_made(database):
    key_id = new_key(database, 4)
    charges, meter = await opened(database)
    verdicts = await asyncio.gather(
        meter.charge(key_id, TRADES, 3),
        meter.charge(key_id, TRADES, 3),
        meter.charge(key_id, SERIES, 1),
    )
    assert [verdict.charged for verdict in verdicts] == [True, False, True]
    assert account(database, key_id).credits_left == 0
    await charges.close()


async def test_two_processes_spend_a_keys_credits_once(database):
    keys = [new_key(database, 151), new_key(database, 100_000)]
    dice = Random(11)
    meters = [await opened(database), await opened(database)]

    async def customer(meter: Meter) -> dict[int, int]:
        paid = dict.fromkeys(keys, 0)
        for _ in range(40):
            key_id, cost = dice.choice(keys), dice.choice([1, 2, 3, 5])
            verdict = await meter.charge(key_id, TRADES, cost)
            paid[key_id] += cost * verdict.charged
            assert verdict.charged or key_id == keys[0]
        return paid

    paid = await asyncio.gather(*[customer(meter) for _, meter in meters for _ in range(6)])
    for key_id in keys:
        assert account(database, key_id).month_spent == sum(one[key_id] for one in paid)
    # Some customer asked for one credit until none was left.
    assert account(database, keys[0]).credits_left == 0
    for charges, meter in meters:
        await meter.close()
        await charges.close()


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_commit_whose_answer_is_lost_is_not_made_twice(
    postgres: EmbeddedDatabase, database, folder, seed
):
    key_id = new_key(database, 700)
    dice = Random(seed)
    async with cut_proxy(postgres.socket_folder, folder, b"POST /trades") as proxy:
        charges, meter = await opened(through(folder, database))
        charged = 0
        for _ in range(12):
            proxy.due.append(dice.choice(["before", "after", "after"]))
            verdicts = await asyncio.gather(
                *[meter.charge(key_id, TRADES, 3) for _ in range(dice.randint(1, 40))]
            )
            charged += sum(verdict.charged for verdict in verdicts)
        assert len(proxy.done) == 12
        assert {"before", "after"} == set(proxy.done)
        assert account(database, key_id).month_spent == charged * 3
        await charges.close()


async def test_without_a_database_nobody_waits_for_ever_and_nothing_is_charged(
    postgres: EmbeddedDatabase, database, folder, monkeypatch
):
    monkeypatch.setattr("api.metering.PATIENCE_SECONDS", 0.5)
    key_id = new_key(database, 100)
    async with cut_proxy(postgres.socket_folder, folder, b"POST /trades") as proxy:
        charges, meter = await opened(through(folder, database))
        assert (await meter.charge(key_id, TRADES, 2)).charged
        proxy.refuse()
        failed = await asyncio.gather(
            *[meter.charge(key_id, TRADES, 2) for _ in range(5)], return_exceptions=True
        )
        assert {type(one) for one in failed} == {DatabaseUnavailable}
        proxy.accept()
        assert (await meter.charge(key_id, TRADES, 2)).charged
        assert account(database, key_id).month_spent == 4
        await charges.close()


async def test_a_balance_that_stays_locked_is_an_outage_for_its_key_alone(database, monkeypatch):
    monkeypatch.setattr("api.metering.PATIENCE_SECONDS", 0.3)
    held, free = new_key(database, 100), new_key(database, 100)
    charges, meter = await opened(database)
    with connect(database) as connection:
        connection.execute("SELECT FROM api_balances WHERE key_id = %s FOR UPDATE", [held])
        waiting = asyncio.create_task(meter.charge(held, TRADES, 2))
        assert (await meter.charge(free, TRADES, 2)).charged
        with pytest.raises(DatabaseUnavailable):
            await waiting
    assert (await meter.charge(held, TRADES, 2)).charged
    assert account(database, held).month_spent == account(database, free).month_spent == 2
    await charges.close()


async def test_a_crowd_at_a_locked_balance_keeps_no_other_key_waiting(database, monkeypatch):
    monkeypatch.setattr("api.metering.PATIENCE_SECONDS", 2)
    monkeypatch.setattr("api.metering._MOST_CHARGES", 10)
    held, free = new_key(database, 100), new_key(database, 100)
    charges, meter = await opened(database)
    with connect(database) as connection:
        connection.execute("SELECT FROM api_balances WHERE key_id = %s FOR UPDATE", [held])
        crowd = [asyncio.create_task(meter.charge(held, TRADES, 2)) for _ in range(20)]
        await asyncio.sleep(0)
        assert (await meter.charge(free, TRADES, 2)).charged
        assert not any(task.done() for task in crowd)
    assert all(verdict.charged for verdict in await asyncio.gather(*crowd))
    assert account(database, held).month_spent == 40
    await charges.close()


async def test_a_fault_with_one_batch_leaves_nobody_of_the_next_waiting(database, monkeypatch):
    monkeypatch.setattr("api.metering._MOST_CHARGES", 10)
    key_id = new_key(database, 100)
    charges, meter = await opened(database)
    charge = charges.charge

    async def wrong_once(*batch: Any) -> Outcome:
        monkeypatch.setattr(charges, "charge", charge)
        raise LookupError("a fault of ours")

    monkeypatch.setattr(charges, "charge", wrong_once)
    async with asyncio.timeout(10):
        verdicts = await asyncio.gather(
            *[meter.charge(key_id, TRADES, 2) for _ in range(15)], return_exceptions=True
        )
    assert [type(verdict) for verdict in verdicts] == [LookupError] * 10 + [Verdict] * 5
    assert account(database, key_id).month_spent == 10
    await meter.close()
    await charges.close()


async def test_a_server_that_only_reads_is_an_outage(database, monkeypatch):
    monkeypatch.setattr("api.metering.PATIENCE_SECONDS", 0.3)
    monkeypatch.setitem(METER_OPTIONS, "default_transaction_read_only", "on")
    charges, meter = await opened(database)
    with pytest.raises(DatabaseUnavailable):
        await meter.charge(new_key(database, 100), TRADES, 2)
    await charges.close()


async def test_who_hangs_up_before_the_charge_is_not_charged(database):
    key_id = new_key(database, 100)
    charges, meter = await opened(database)
    first = asyncio.create_task(meter.charge(key_id, TRADES, 2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # on its way
    later = [asyncio.create_task(meter.charge(key_id, TRADES, 2)) for _ in range(5)]
    await asyncio.sleep(0)
    for task in later[:3]:
        task.cancel()
    assert (await first).charged
    assert all(verdict.charged for verdict in await asyncio.gather(*later[3:]))
    await meter.close()
    assert account(database, key_id).month_spent == 6
    await charges.close()


async def test_an_answer_that_cannot_be_charged_becomes_a_503(client, database, monkeypatch):
    """Charging away, data there: no data leaves."""
    monkeypatch.setattr("api.metering.PATIENCE_SECONDS", 0.3)
    land(database, trade())
    with connect(database) as connection:
        before = list_keys(connection)[-1]
    assert (await client.post("/trades", json={"market_ticker": TICKER})).status_code == 200
    with connect(database) as connection:
        connection.execute("REVOKE SELECT, UPDATE ON api_balances FROM kalshi_meter")
    try:
        response = await client.post("/trades", json={"market_ticker": TICKER})
    finally:
        with connect(database) as connection:
            connection.execute("GRANT SELECT, UPDATE ON api_balances TO kalshi_meter")
    assert response.status_code == 503
    assert "trade_id" not in response.text
    assert response.headers["x-credits-cost"] == "0"
    assert account(database, before.key_id).month_spent == 2


async def test_a_charging_connection_that_is_ended_costs_no_answer(client, database):
    land(database, trade())
    ended = 0

    async def end_it() -> None:
        nonlocal ended
        dice = Random(3)
        with connect(database, autocommit=True) as connection:
            while True:
                await asyncio.sleep(dice.uniform(0.02, 0.2))
                ended += connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'kalshi-platform api charges'"
                ).rowcount

    async def ask() -> int:
        seen = 0
        while ended < 4:
            response = await client.post("/trades", json={"market_ticker": TICKER})
            assert response.status_code == 200
            seen += int(response.headers["x-credits-cost"])
        return seen

    ending = asyncio.create_task(end_it())
    seen = await asyncio.gather(*[ask() for _ in range(8)])
    ending.cancel()
    with connect(database) as connection:
        [key] = list_keys(connection)
    assert sum(seen) >= 2 * 8
    assert account(database, key.key_id).month_spent == sum(seen)
