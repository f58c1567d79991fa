"""Two exchanges never meet in one database, nor on one tape."""

import pytest

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.recorded_exchange import (
    OtherExchange,
    claim_database,
    claim_home,
    exchange_name,
)

REAL = "https://external-api.kalshi.com/trade-api/v2"


@pytest.mark.parametrize(
    ("url", "simulated", "name"),
    [
        (REAL, False, "kalshi.com"),
        ("https://api.elections.kalshi.com/trade-api/v2", False, "kalshi.com"),
        ("https://demo-api.kalshi.co/trade-api/v2", False, "kalshi.co"),
        ("http://127.0.0.1:8090/trade-api/v2", True, "simulated"),
        ("http://127.0.0.1:8090/trade-api/v2", False, "127.0.0.1"),
        ("http://[::1]:8090/trade-api/v2", False, "::1"),
        ("http://simulator:8090/trade-api/v2", False, "simulator"),
    ],
)
def test_an_exchange_is_known_by_its_domain(url, simulated, name):
    assert exchange_name(url, simulated=simulated) == name


def test_a_database_keeps_to_the_exchange_that_came_first(database):
    with connect(database) as connection:
        claim_database(connection, "simulated")
        claim_database(connection, "simulated")
        with pytest.raises(OtherExchange, match=r"holds simulated data: .* set KALSHI_HOME"):
            claim_database(connection, "kalshi.com")
    with connect(database) as connection:
        assert connection.execute("SELECT exchange FROM recorded_exchange").fetchall() == [
            ("simulated",)
        ]


def test_a_home_keeps_to_the_exchange_that_came_first(tmp_path):
    claim_home(tmp_path, "kalshi.com")
    claim_home(tmp_path, "kalshi.com")
    with pytest.raises(OtherExchange, match=r"data of kalshi.com: .* the simulated exchange"):
        claim_home(tmp_path, "simulated")
