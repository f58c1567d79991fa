"""The doctor, against the simulator over a real socket and against what is broken."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest

from kalshi_platform.operations.doctor import Check, checks, exchange_checks, line_of
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.writes.keys import create_key
from kalshi_platform_tests.ports import free_ports
from kalshi_simulator.testing import RunningSimulator, running_replay, running_simulator


@pytest.fixture(scope="module")
def exchange() -> Iterator[RunningSimulator]:
    with running_simulator() as simulator:
        yield simulator


def settings(home: Path, **changes: Any) -> Settings:
    ports = dict(zip(PORT_FIELDS, free_ports(len(PORT_FIELDS)), strict=True))
    return Settings(_env_file=None, home=home, **{**ports, **changes})


PORT_FIELDS = (
    "dagster_port",
    "dagster_code_port",
    "api_port",
    "simulator_rest_port",
    "simulator_ws_port",
)


def of_exchange(home: Path, simulator: RunningSimulator, **changes: Any) -> Settings:
    return settings(
        home,
        **{
            "rest_url": simulator.rest_url,
            "api_key_id": simulator.key_id,
            "private_key_path": simulator.private_key_path,
            **changes,
        },
    )


def by_name(found: Iterator[Check]) -> dict[str, Check]:
    return {check.name: check for check in found}


def test_all_is_well_with_a_good_key_and_a_migrated_database(
    tmp_path: Path, exchange: RunningSimulator, database: str
) -> None:
    found = by_name(checks(of_exchange(tmp_path, exchange, database_url=database)))
    assert [check for check in found.values() if not check.passed] == []
    assert found["key file"].found.endswith("(Ed25519)")
    assert found["key"].found == f"{exchange.key_id} is accepted"
    assert found["schema"].found == "current"
    assert "answers; it is" in found["exchange"].found
    assert "the exchange's, to within a second" in found["clock"].found


def test_a_recording_served_in_place_of_an_exchange_satisfies_it(tmp_path: Path) -> None:
    source = tmp_path / "recording.ndjson"
    source.write_text('{"received_at_ns":1,"frame":{"id":1,"type":"ok"}}\n')
    with running_replay(source) as replay:
        found = list(exchange_checks(of_exchange(tmp_path, replay)))
    assert {check.name for check in found} == {"key file", "exchange", "clock", "key"}
    assert [check for check in found if not check.passed] == []


def test_nothing_configured_and_nothing_running_is_well(tmp_path: Path) -> None:
    found = by_name(checks(settings(tmp_path)))
    assert all(check.passed for check in found.values())
    assert "`up` starts" in found["database"].found
    assert "simulated" in found["exchange"].found


def test_a_key_the_exchange_does_not_know_is_refused(
    tmp_path: Path, exchange: RunningSimulator
) -> None:
    found = by_name(exchange_checks(of_exchange(tmp_path, exchange, api_key_id="another")))
    assert not found["key"].passed
    assert "KALSHI_API_KEY_ID" in line_of(found["key"])


def test_a_missing_key_file_is_named(tmp_path: Path, exchange: RunningSimulator) -> None:
    missing = tmp_path / "none.pem"
    found = by_name(exchange_checks(of_exchange(tmp_path, exchange, private_key_path=missing)))
    assert not found["key file"].passed
    assert str(missing) in found["key file"].found
    assert "key" not in found


def test_a_key_without_a_file_is_told_apart(tmp_path: Path, exchange: RunningSimulator) -> None:
    found = by_name(exchange_checks(of_exchange(tmp_path, exchange, private_key_path=None)))
    assert "KALSHI_PRIVATE_KEY_PATH is not" in found["key file"].found


def test_an_exchange_that_cannot_be_reached(tmp_path: Path, exchange: RunningSimulator) -> None:
    [port] = free_ports(1)
    broken = of_exchange(tmp_path, exchange, rest_url=f"http://127.0.0.1:{port}/trade-api/v2")
    check = by_name(exchange_checks(broken))["exchange"]
    assert not check.passed
    assert line_of(check).endswith("Check the network and KALSHI_REST_URL.")


def test_an_address_that_is_no_exchange(tmp_path: Path, exchange: RunningSimulator) -> None:
    elsewhere = exchange.rest_url.removesuffix("/v2")
    check = by_name(exchange_checks(of_exchange(tmp_path, exchange, rest_url=elsewhere)))
    assert "not as the exchange would" in check["exchange"].found


@pytest.mark.parametrize(("seconds", "passed"), [(-3, True), (3600, False), (-3600, False)])
def test_the_clock_is_compared_with_the_exchanges(
    tmp_path: Path, exchange: RunningSimulator, seconds: int, passed: bool
) -> None:
    with exchange_with_a_clock(ahead_seconds=seconds) as url:
        found = by_name(exchange_checks(of_exchange(tmp_path, exchange, rest_url=url)))
    assert found["clock"].passed is passed
    assert ("ahead of" if seconds < 0 else "behind") in found["clock"].found
    assert ("timedatectl" in line_of(found["clock"])) is not passed


def test_a_taken_port_and_an_old_schema_and_a_file_for_a_home(
    tmp_path: Path, empty_database: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        changed = settings(file, database_url=empty_database, api_port=server.server_port)
        found = by_name(checks(changed))
        port = found[f"port {server.server_port}"]
    assert line_of(port).endswith("or set API_PORT to a free port.")
    assert "kalshi-platform migrate" in found["schema"].found
    assert "KALSHI_HOME" in line_of(found["tape folder"])


def test_a_database_that_does_not_answer(tmp_path: Path) -> None:
    [port] = free_ports(1)
    url = f"postgresql://postgres@127.0.0.1:{port}/kalshi"
    found = by_name(checks(settings(tmp_path, database_url=url)))
    assert not found["database"].passed
    assert "DATABASE_URL" in found["database"].found


@contextlib.contextmanager
def exchange_with_a_clock(ahead_seconds: int) -> Iterator[str]:
    """An exchange whose Date header is that far ahead of this machine's clock."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"exchange_active": True, "trading_active": True}).encode())

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate((timestamp or time()) + ahead_seconds, usegmt=True)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/trade-api/v2"
        finally:
            server.shutdown()


def test_the_archive_is_written_to_and_read_and_its_url_tells_no_secret(tmp_path: Path) -> None:
    folder = tmp_path / "cold"
    good = by_name(checks(settings(tmp_path, archive_url=f"file://{folder}")))["archive"]
    assert good.passed
    assert list(folder.iterdir()) == []
    (tmp_path / "file").touch()
    bad = by_name(checks(settings(tmp_path, archive_url=str(tmp_path / "file" / "below"))))
    assert not bad["archive"].passed
    odd = by_name(
        checks(settings(tmp_path, archive_url="odd://id:secret-word@bucket/a?key=secret"))
    )
    assert not odd["archive"].passed
    assert "secret" not in line_of(odd["archive"])


def test_a_ledger_that_does_not_balance_is_told(
    tmp_path: Path, exchange: RunningSimulator, database: str
) -> None:
    with connect(database) as connection:
        create_key(connection, "customer")
        connection.execute("UPDATE api_balances SET month_spent = 5")
    check = by_name(checks(of_exchange(tmp_path, exchange, database_url=database)))["credits"]
    assert not check.passed
    assert "1 things do not add up" in check.found
    assert "5 instead of 0" in check.found
