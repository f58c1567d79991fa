"""The embedded database: found only where it runs, whatever the folder is called."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import psycopg2
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import (
    connect,
    database_engine,
    libpq_url,
    psycopg2_url,
    sibling_database,
)
from kalshi_platform_tests.waiting import until


@pytest.fixture(scope="module")
def server():
    """A server under a home whose name needs care."""
    with tempfile.TemporaryDirectory(prefix="kalshi-tests-") as folder:
        server = EmbeddedDatabase(Path(folder) / "a b+c%20&d#e" / "postgres")
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def home():
    """A folder that the server's own user may enter."""
    with tempfile.TemporaryDirectory(prefix="kalshi-tests-") as folder:
        yield Path(folder)


def test_every_driver_finds_a_home_with_blanks_and_signs(server):
    url = server.create_database("some")
    with connect(url) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("some",)
    engine = database_engine(sibling_database(url, "postgres"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT current_database()").scalar() == "postgres"
    engine.dispose()
    psycopg2.connect(libpq_url(url)).close()
    other = database_engine(psycopg2_url(url))
    assert other.url.query["host"] == str(server.socket_folder)
    assert " " not in psycopg2_url(url)


@pytest.mark.parametrize("password", ["a+b", "a b", "a?b", "50%"])
def test_a_password_survives_every_rendering(password):
    from urllib.parse import quote

    from sqlalchemy import make_url

    url = f"postgresql://me:{quote(password, safe='')}@host/db?application_name=a%20b"
    for rendered in (libpq_url(url), psycopg2_url(url), sibling_database(url, "x")):
        assert make_url(rendered).password == password
        assert rendered.endswith("?application_name=a%20b")


def test_a_running_server_is_known_by_its_folder(server):
    pid = server.pid()
    assert pid is not None
    assert EmbeddedDatabase(server.data_folder).pid() == pid


@pytest.fixture
def other(tmp_path):
    """A folder that was never started, and a child of ours that has nothing to do with it."""
    database = EmbeddedDatabase(tmp_path / "postgres")
    database.data_folder.mkdir()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield database, child
    finally:
        child.kill()
        child.wait()


def note(database: EmbeddedDatabase, pid: int) -> None:
    (database.data_folder / "postmaster.pid").write_text(f"{pid}\n{database.data_folder}\n")


def test_a_number_that_another_process_has_by_now_is_no_server(other, server):
    database, child = other
    note(database, child.pid)
    assert database.pid() is None
    database.stop()
    assert child.poll() is None
    running = server.pid()
    note(database, running)
    assert database.pid() is None
    database.stop()
    assert server.pid() == running
    note(database, 1)
    assert database.pid() is None


def test_a_dead_process_that_nobody_has_waited_for_is_no_server(other):
    database, child = other
    child.kill()
    until(lambda: Path(f"/proc/{child.pid}/cmdline").read_bytes() == b"")
    note(database, child.pid)
    assert database.pid() is None


def test_a_file_without_a_number_is_no_server(other):
    database, _ = other
    (database.data_folder / "postmaster.pid").write_text("")
    assert database.pid() is None


def test_a_server_starts_again_after_it_was_killed_and_its_number_was_given_away(home):
    database = EmbeddedDatabase(home / "postgres")
    database.start()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        os.kill(database.pid(), signal.SIGKILL)
        database.start()  # at once: what the dead server leaves behind is waited for
        connect(database.url("postgres")).close()
        os.kill(database.pid(), signal.SIGKILL)
        until(lambda: database.pid() is None)
        note(database, child.pid)
        database.start()
        connect(database.url("postgres")).close()
    finally:
        child.kill()
        child.wait()
        database.stop()


def test_the_socket_is_for_the_owner_alone_also_outside_a_long_home(home):
    home = home / ("long-" + uuid.uuid4().hex) / ("x" * 60)
    database = EmbeddedDatabase(home / "postgres")
    assert database.socket_folder != database.data_folder
    # As an earlier release left it.
    database.socket_folder.mkdir(mode=0o777)
    try:
        database.start()
        connect(database.url("postgres")).close()
        assert stat.S_IMODE(database.socket_folder.stat().st_mode) == 0o700
        [socket] = [path for path in database.socket_folder.iterdir() if path.is_socket()]
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    finally:
        database.stop()
        for path in database.socket_folder.iterdir():
            path.unlink()
        database.socket_folder.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_socket_folder_of_somebody_else_is_refused(home):
    database = EmbeddedDatabase(home / ("y" * 100) / "postgres")
    database.socket_folder.mkdir()
    try:
        os.chown(database.socket_folder, 12_345, -1)
        with pytest.raises(RuntimeError, match="belongs to somebody else"):
            database._make_socket_folder(None)
    finally:
        database.socket_folder.rmdir()
