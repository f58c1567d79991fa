"""Keys: who may ask."""

from datetime import UTC, datetime, timedelta

import pytest

from api.charge_database import ACCOUNT_OPTIONS
from api.database import ReadDatabase
from api.keys import REMEMBERED_SECONDS, Keys
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.keys import list_keys
from kalshi_platform.storage.writes.keys import create_key, revoke_key
from kalshi_platform_tests.api.rows import TICKER, land, trade

BODY = {"market_ticker": TICKER}


@pytest.mark.parametrize("form", ["Authorization: Bearer", "authorization: bearer", "X-API-Key:"])
async def test_a_key_opens_in_either_header(asker, form):
    key = asker.headers.pop("X-API-Key")
    name, _, scheme = form.partition(": ")
    value = f"{scheme} {key}".strip()
    response = await asker.post("/trades", json=BODY, headers={name.rstrip(":"): value})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer kk_wrong"},
        {"Authorization": "Basic a2s6"},
        {"X-API-Key": ""},
        {"X-API-Key": "kk_' OR 1=1 --"},
        {"X-API-Key": "é".encode("latin-1")},
    ],
)
async def test_without_a_valid_key_nothing_opens(asker, headers):
    del asker.headers["X-API-Key"]
    for response in (
        await asker.post("/trades", json=BODY, headers=headers),
        await asker.get(f"/candles/{TICKER}", headers=headers),
        await asker.get(f"/quotes/{TICKER}", headers=headers),
        await asker.post("/orderbook", json=BODY, headers=headers),
        await asker.post("/deltas", json=BODY, headers=headers),
    ):
        assert response.status_code == 401
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["www-authenticate"].startswith("Bearer")


async def test_the_key_is_looked_at_before_the_request(asker):
    del asker.headers["X-API-Key"]
    headers = {"Content-Type": "application/json"}
    assert (await asker.post("/trades", content=b"{", headers=headers)).status_code == 401
    assert (await asker.get("/candles/KX?interval=9")).status_code == 401


async def test_an_expired_key_is_refused(anonymous, database):
    with connect(database) as connection:
        key = create_key(
            connection, "old", expires_at=datetime.now(UTC) - timedelta(microseconds=1)
        )
    response = await anonymous.post("/trades", json=BODY, headers={"X-API-Key": key})
    assert response.status_code == 401
    assert "expired" in response.json()["detail"]


async def test_a_revoked_key_is_refused_within_ten_seconds(app, client, database, key):
    land(database, trade())
    now = 1_000.0
    app.state.keys = Keys(app.state.accounts, clock=lambda: now)
    assert (await client.post("/trades", json=BODY)).status_code == 200
    with connect(database) as connection:
        [shown] = list_keys(connection)
        assert revoke_key(connection, shown.key_id)
        connection.commit()
    assert (await client.post("/trades", json=BODY)).status_code == 200  # remembered
    now += REMEMBERED_SECONDS + 0.001
    response = await client.post("/trades", json=BODY)
    assert response.status_code == 401
    assert "revoked" in response.json()["detail"]


async def test_a_remembered_key_still_expires_on_time(app, anonymous, database, monkeypatch):
    land(database, trade())
    expires_at = datetime.now(UTC) + timedelta(hours=1)
    with connect(database) as connection:
        key = create_key(connection, "short", expires_at=expires_at)
    anonymous.headers["X-API-Key"] = key
    assert (await anonymous.post("/trades", json=BODY)).status_code == 200
    monkeypatch.setattr("api.keys.time.time", expires_at.timestamp)
    assert (await anonymous.post("/trades", json=BODY)).status_code == 401


async def test_guessing_does_not_fill_the_memory(standing, monkeypatch):
    monkeypatch.setattr("api.keys._REMEMBERED_KEYS", 5)
    database = ReadDatabase(standing[0], connections=1, options=ACCOUNT_OPTIONS)
    await database.open()
    keys = Keys(database)
    for number in range(20):
        with pytest.raises(Exception, match="unknown"):
            await keys.check(f"kk_{number}")
    assert len(keys._known) <= 5
    await database.close()
