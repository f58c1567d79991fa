"""`kalshi-platform backup` and `restore`: both databases, as folders of PostgreSQL's own dumps.

A backup is taken while everything runs; each database is of one instant. What is recorded after it
lies on the tape, whose position is in the database: a loader that starts on a restored database
goes on from there, as far as the tape reaches, and REST fills the rest.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
import psycopg
from psycopg import sql

from kalshi_platform.operations.asking import progress_bar
from kalshi_platform.operations.databases import (
    dagster_url,
    database_name,
    drop_database,
    ensure_database,
)
from kalshi_platform.operations.errors import Refusal
from kalshi_platform.operations.ground import only_up
from kalshi_platform.operations.postgres_tools import contents, run_tool
from kalshi_platform.settings import Settings
from kalshi_platform.storage.engine import connect, sibling_database
from kalshi_platform.storage.migrate import (
    SchemaMismatch,
    current_revision,
    head_revision,
    known_revisions,
)

_MANIFEST = "backup.json"
_KINDS = {"r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES", "n": "SCHEMAS"}
# Two at a time: the machine goes on recording meanwhile.
_JOBS = "2"


class DefaultPrivilege(msgspec.Struct, frozen=True):
    """What a role may do with every table, … that is made in a schema later."""

    schema: str
    kind: str
    privilege: str
    role: str


class Dumped(msgspec.Struct, frozen=True):
    """One database of a backup."""

    tables: int
    """Tables with rows of their own, partitions among them."""
    rows: int
    """As the server estimates them; -1 where it does not know."""
    roles: list[str]
    default_privileges: list[DefaultPrivilege]


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds; written last, so that a folder without one is no backup."""

    made_at: datetime
    release: str
    schema: str
    postgres: str
    databases: dict[str, Dumped]


def backup(settings: Settings, folder: Path, say: Callable[[str], None]) -> None:
    """Dump both databases into `folder`, which appears when it is complete.

    Raises:
        Refusal: there is something in the folder, or a dump failed.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refusal(f"{folder} is not empty: a backup overwrites nothing. Name a new folder.")
    urls = {"kalshi": settings.url, "dagster": dagster_url(settings)}
    with connect(settings.url) as connection:
        schema = current_revision(connection)
        if schema is None:
            raise Refusal("The database has no tables of this platform: there is nothing to keep.")
        postgres = connection.info.parameter_status("server_version") or "unknown"
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        partial.mkdir(parents=True, mode=0o700)
    except FileExistsError as error:
        raise Refusal(
            f"{partial} is in the way: another backup is being made, or one was killed. If none "
            "runs, delete it."
        ) from error
    except OSError as error:
        raise Refusal(
            f"{partial} cannot be made ({error.strerror}): name a folder where you may write."
        ) from error
    try:
        dumped = {name: _dump(name, url, partial / name) for name, url in urls.items()}
        made = Manifest(datetime.now(UTC), version("kalshi-platform"), schema, postgres, dumped)
        (partial / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(made)))
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    for name, one in dumped.items():
        say(f"{name}: {one.tables:,} tables, about {one.rows:,} rows")
    say(f"Backup of schema {schema} in {folder}: {size / 1e6:,.1f} MB.")


def restore(
    settings: Settings, folder: Path, say: Callable[[str], None], to: str | None = None
) -> None:
    """Fill the configured databases, or those on the server of `to`, from a backup.

    Raises:
        Refusal: a database holds something already, or `up` runs, or a step failed.
        SchemaMismatch: the backup is of a newer release.
    """
    try:
        made = msgspec.json.decode((folder / _MANIFEST).read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError) as error:
        raise Refusal(f"{folder} is no complete backup: it has no readable {_MANIFEST}.") from error
    if made.schema not in known_revisions():
        raise SchemaMismatch(
            f"The backup has schema {made.schema}, newer than this release knows "
            f"({head_revision()}). Install release {made.release} of kalshi-platform or newer."
        )
    with _server(settings, to) as urls:
        for url in urls.values():
            _refuse_filled(url)
        for name, url in urls.items():
            _fill(name, url, folder / name, made.databases[name])
            say(f"{name}: {made.databases[name].tables:,} tables restored")
    say(f"Restored the backup of {made.made_at:%Y-%m-%d %H:%M} UTC, schema {made.schema}.")
    if made.schema != head_revision():
        say(f"This release needs {head_revision()}: `kalshi-platform migrate`, or `up`, brings it.")


@contextmanager
def _server(settings: Settings, to: str | None) -> Iterator[dict[str, str]]:
    """The URLs to fill; the embedded server runs for as long as that takes."""
    if to is not None:
        yield {"kalshi": to, "dagster": sibling_database(to, "dagster")}
        return
    urls = {"kalshi": settings.url, "dagster": dagster_url(settings)}
    embedded = settings.embedded_database
    if embedded is None:
        yield urls
        return
    home = settings.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with only_up(home, wait_seconds=0):
        try:
            embedded.start()
            yield urls
        except RuntimeError as error:
            raise Refusal(str(error)) from error
        finally:
            embedded.stop()


def _dump(name: str, url: str, folder: Path) -> Dumped:
    with connect(url) as connection:
        found = _describe(connection)
    with progress_bar() as progress:
        task = progress.add_task(f"dumping {name}", total=found.tables)

        def count(line: str) -> None:
            if "dumping contents of table" in line:
                progress.advance(task)

        run_tool(
            "pg_dump",
            [
                *("--format=directory", f"--jobs={_JOBS}", "--compress=gzip:1"),
                *("--no-owner", "--verbose", "--lock-wait-timeout=60s", f"--file={folder}"),
            ],
            url,
            count,
        )
        progress.update(task, completed=found.tables)
    return found


def _describe(connection: psycopg.Connection) -> Dumped:
    row = connection.execute(
        "SELECT count(*), coalesce(sum(greatest(reltuples, 0)), -1)::bigint FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ).fetchone()
    assert row is not None, "an aggregate answers one row"
    roles = connection.execute(
        "SELECT DISTINCT grantee::regrole::text FROM pg_class, aclexplode(relacl)"
        " WHERE relnamespace = 'public'::regnamespace AND grantee NOT IN (0, relowner)"
    ).fetchall()
    defaults = connection.execute(
        "SELECT defaclnamespace::regnamespace::text, defaclobjtype::text, privilege_type,"
        " grantee::regrole::text FROM pg_default_acl, aclexplode(defaclacl)"
        " WHERE defaclnamespace <> 0 AND grantee NOT IN (0, defaclrole) ORDER BY 1, 2, 3, 4"
    ).fetchall()
    return Dumped(
        row[0],
        row[1],
        sorted(role for (role,) in roles),
        [
            DefaultPrivilege(schema, _KINDS[kind], what, role)
            for schema, kind, what, role in defaults
        ],
    )


def _refuse_filled(url: str) -> None:
    try:
        with connect(url) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            ).fetchone()
    except psycopg.OperationalError as error:
        if "does not exist" in str(error):
            return
        raise
    if row != (0,):
        raise Refusal(
            f"The database {database_name(url)} is not empty: a restore overwrites nothing. Name "
            "another one (--to), or set KALSHI_HOME to a new folder."
        )


def _fill(name: str, url: str, folder: Path, dumped: Dumped) -> None:
    made_here = ensure_database(url)
    try:
        with connect(url, autocommit=True) as connection:
            for role in dumped.roles:
                _ensure_role(connection, role)
        with progress_bar() as progress:
            task = progress.add_task(f"restoring {name}", total=dumped.tables)

            def count(line: str) -> None:
                if "finished item" in line and "TABLE DATA" in line:
                    progress.advance(task)

            with tempfile.NamedTemporaryFile("w", suffix=".list") as wanted:
                # Default privileges name the user who dumped; they are granted below instead.
                wanted.writelines(line for line in contents(folder) if "DEFAULT ACL" not in line)
                wanted.flush()
                run_tool(
                    "pg_restore",
                    [
                        *("--no-owner", "--exit-on-error", f"--jobs={_JOBS}", "--verbose"),
                        *(f"--use-list={wanted.name}", str(folder)),
                    ],
                    url,
                    count,
                )
            progress.update(task, completed=dumped.tables)
        with connect(url, autocommit=True) as connection:
            for default in dumped.default_privileges:
                connection.execute(
                    sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA {} GRANT {} ON {} TO {}").format(
                        sql.Identifier(default.schema),
                        sql.SQL(default.privilege),
                        sql.SQL(default.kind),
                        sql.Identifier(default.role),
                    )
                )
            # A dump holds no statistics, without which the first questions would be slow.
            connection.execute("ANALYZE")
    except BaseException:
        if made_here:
            drop_database(url)
        raise


def _ensure_role(connection: psycopg.Connection, role: str) -> None:
    name = sql.Identifier(role)
    if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchall():
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(name))
    connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(name))
