"""Keys in the database."""

import hashlib

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.reads.keys import list_keys
from kalshi_platform.storage.writes.keys import create_key, revoke_key


def test_only_the_hash_of_a_key_is_kept(database):
    with connect(database) as connection:
        key = create_key(connection, "a customer")
        row = connection.execute("SELECT api_keys::text, key_hash FROM api_keys").fetchone()
    assert row is not None
    assert key.startswith("kk_")
    assert len(key) == 46
    assert key not in row[0]
    assert row[1] == hashlib.sha256(key.encode()).digest()


def test_keys_are_listed_by_what_may_be_seen(database):
    with connect(database) as connection:
        first, second = create_key(connection, "one"), create_key(connection, "two")
        listed = list_keys(connection)
    assert first != second
    assert [(key.name, key.prefix) for key in listed] == [("one", first[:10]), ("two", second[:10])]
    assert all(key.revoked_at is None for key in listed)


def test_a_key_is_revoked_once(database):
    with connect(database) as connection:
        create_key(connection, "one")
        [key] = list_keys(connection)
        assert revoke_key(connection, key.key_id) is True
        assert revoke_key(connection, key.key_id) is False
        assert revoke_key(connection, key.key_id + 1) is False
        [key] = list_keys(connection)
    assert key.revoked_at is not None
