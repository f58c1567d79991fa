"""Health checks of containers, against servers that answer and a recorder that holds its lease."""

import fcntl
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kalshi_platform.operations.health import recorder, web
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import RECORDER, Lease
from kalshi_platform.storage.writes.feed import set_gauges
from kalshi_platform_tests.ports import free_ports


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None: ...  # noqa: A002

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/health"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "alive"),
    [
        (200, b'{"status": "ok"}', True),
        (200, b'{"status": "degraded"}', True),
        (503, b'{"status": "stale"}', True),
        (503, b'{"status": "down"}', False),
        (503, b"busy", False),
        (500, b"", False),
    ],
)
def test_an_api_with_old_data_is_alive_and_one_without_a_database_is_not(
    status: int, body: bytes, alive: bool
) -> None:
    with answering(status, body) as url:
        assert web(url)[0] is alive


def test_a_port_without_a_server_is_not_alive() -> None:
    [port] = free_ports(1)
    assert web(f"http://127.0.0.1:{port}/")[0] is False


def test_a_recorder_is_alive_while_it_holds_the_lease_and_its_tape_is_loaded(
    tmp_path: Path, database: str
) -> None:
    assert recorder(tmp_path, database) == (False, "no recorder holds the lease")
    lease = Lease(database, RECORDER)
    assert lease.acquire()
    try:
        assert recorder(tmp_path, database) == (False, "nothing has been loaded")
        with connect(database) as connection:
            set_gauges(connection, {("tape_backlog_bytes", ""): 0.0})
        assert recorder(tmp_path, database)[0]
        with connect(database) as connection:
            connection.execute(
                "UPDATE ingestion_metrics SET updated_at = now() - interval '2 minutes'"
            )
        assert recorder(tmp_path, database) == (False, "nothing has been loaded for 120 s")
    finally:
        lease.release()


def test_with_the_database_away_a_recorder_that_holds_its_tape_is_alive(tmp_path: Path) -> None:
    [port] = free_ports(1)
    away = f"postgresql://nobody@127.0.0.1:{port}/kalshi"
    assert recorder(tmp_path, away)[0] is False
    with (tmp_path / "recorder.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert recorder(tmp_path, away)[0] is True
