"""Backup and restore: PostgreSQL's own programs, real servers, every row compared."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from kalshi_platform.operations.backup import backup, restore
from kalshi_platform.operations.databases import drop_database
from kalshi_platform.operations.errors import Refusal
from kalshi_platform.settings import Settings
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect, sibling_database
from kalshi_platform.storage.migrate import SchemaMismatch, require_current_schema
from kalshi_platform.storage.writes.keys import create_key
from kalshi_platform_tests.api.rows import land, trade


@pytest.fixture
def settings(tmp_path: Path, database: str) -> Iterator[Settings]:
    """Of a database with trades and a key, and of Dagster's books beside it."""
    books = sibling_database(database, "books_of_test_backup")
    with connect(sibling_database(database, "postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE books_of_test_backup")
    land(database, *(trade(f"10:00:{second:02}") for second in range(60)))
    with connect(database) as connection:
        create_key(connection, "customer")
    with connect(books) as connection:
        connection.execute("CREATE TABLE runs (id serial PRIMARY KEY, body text)")
        connection.execute(
            "INSERT INTO runs (body) SELECT 'run ' || n FROM generate_series(1, 9) n"
        )
    yield Settings(
        _env_file=None,
        home=tmp_path / "home",
        database_url=database,
        dagster_database_url=books,
    )
    drop_database(books)


@contextmanager
def embedded(home: Path) -> Iterator[EmbeddedDatabase]:
    server = EmbeddedDatabase(home / "postgres")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def contents(url: str) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with connect(url) as connection:
        names = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r'"
            " AND relnamespace = 'public'::regnamespace ORDER BY 1"
        ).fetchall()
        return {
            name: [
                row
                for (row,) in connection.execute(
                    sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(sql.Identifier(name))
                )
            ]
            for (name,) in names
        }


def rights(url: str) -> list[tuple[str, ...]]:
    """Who may do what with the tables, owners apart."""
    with connect(url) as connection:
        return connection.execute(
            "SELECT relname, grantee::regrole::text, privilege_type"
            " FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'public'::regnamespace"
            " AND grantee NOT IN (0, relowner) ORDER BY 1, 2, 3"
        ).fetchall()


def test_a_new_home_restored_from_a_backup_holds_the_same_rows_and_rights(
    settings: Settings, tmp_path: Path
) -> None:
    said: list[str] = []
    folder = tmp_path / "backups" / "monday"
    backup(settings, folder, said.append)
    assert "Backup of schema" in said[-1]
    held, may, books = contents(settings.url), rights(settings.url), contents(books_of(settings))
    assert sum(map(len, held.values())) > 60

    new = Settings(_env_file=None, home=tmp_path / "new")
    restore(new, folder, said.append)
    assert "Restored the backup" in said[-1]
    assert EmbeddedDatabase(new.home / "postgres").pid() is None, "`up` starts it"
    with embedded(new.home):
        assert contents(new.url) == held
        assert contents(sibling_database(new.url, "dagster")) == books
        assert rights(new.url) == may
        with connect(new.url) as connection:
            require_current_schema(connection)
            connection.execute("CREATE TABLE made_later (a int)")
            connection.execute("SET ROLE kalshi_reader")
            connection.execute("SELECT count(*) FROM trades")
            connection.execute("SELECT FROM made_later")  # the rights to come are kept, too

    with pytest.raises(Refusal, match="not empty"):
        restore(new, folder, said.append)


def test_from_embedded_to_the_server_of_another_user(
    settings: Settings, tmp_path: Path, postgres: EmbeddedDatabase
) -> None:
    """As a hosting provider gives it: no superuser, but the right to make databases and roles."""
    folder = tmp_path / "backup"
    backup(settings, folder, lambda _: None)
    with embedded(tmp_path / "server") as server:
        with connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE ROLE owner LOGIN CREATEDB CREATEROLE")
        to = server.url("platform").replace("postgres@", "owner@")
        restore(settings, folder, lambda _: None, to)
        assert contents(to) == contents(settings.url)
        assert contents(sibling_database(to, "dagster")) == contents(books_of(settings))
        with connect(to) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("owner",)
            connection.execute("SET ROLE kalshi_meter")
            connection.execute("SELECT count(*) FROM api_keys")


def test_a_backup_overwrites_nothing_and_leaves_nothing_half_done(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(Refusal, match="not empty"):
        backup(settings, folder, lambda _: None)
    assert [file.name for file in folder.iterdir()] == ["mine"]

    books = "postgresql://nobody:secret-word@127.0.0.1:1/books"
    broken = Settings(
        _env_file=None, home=settings.home, database_url=settings.url, dagster_database_url=books
    )
    with pytest.raises((Refusal, psycopg.OperationalError)):
        backup(broken, tmp_path / "other", lambda _: None)
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "other.partial").exists()


def test_a_backup_keeps_out_of_the_way_of_another_and_of_what_it_did_not_make(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "backup.partial"
    other.mkdir()
    (other / "kalshi").touch()
    with pytest.raises(Refusal, match="another backup is being made"):
        backup(settings, tmp_path / "backup", lambda _: None)
    assert [file.name for file in other.iterdir()] == ["kalshi"]
    with pytest.raises(Refusal, match=r"cannot be made .*may write"):
        backup(settings, Path("/proc/backup"), lambda _: None)

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    backup(settings, Path(), lambda _: None)
    assert (here / "backup.json").exists()


def test_a_damaged_backup_or_one_of_a_newer_release_leaves_no_database(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    backup(settings, folder, lambda _: None)
    manifest = (folder / "backup.json").read_text()
    new = Settings(_env_file=None, home=tmp_path / "new")

    (folder / "backup.json").write_text(manifest.replace('"schema": "0', '"schema": "9'))
    with pytest.raises(SchemaMismatch, match="newer than this release"):
        restore(new, folder, lambda _: None)

    (folder / "backup.json").write_text(manifest)
    data = max((folder / "kalshi").glob("*.dat.gz"), key=lambda file: file.stat().st_size)
    data.write_bytes(data.read_bytes()[:-20])
    with pytest.raises(Refusal, match="pg_restore failed"):
        restore(new, folder, lambda _: None)
    with embedded(new.home) as server, connect(server.url("postgres")) as connection:
        names = connection.execute("SELECT datname FROM pg_database").fetchall()
        assert not {"kalshi", "dagster"} & {name for (name,) in names}

    shutil.rmtree(folder / "kalshi")
    (folder / "backup.json").unlink()
    with pytest.raises(Refusal, match="no complete backup"):
        restore(new, folder, lambda _: None)


def books_of(settings: Settings) -> str:
    assert settings.dagster_database_url is not None
    return settings.dagster_database_url.get_secret_value()
