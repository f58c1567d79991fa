"""Known failures as one sentence each, with the remedy; everything else keeps its traceback."""

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg
    import pydantic


class Refusal(Exception):
    """Something the operator can put right: its text is one sentence with the remedy.

    Args:
        sentence: what is wrong and what to do about it.
        exit_code: what the process ends with.
    """

    def __init__(self, sentence: str, exit_code: int = 1) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def sentence_for(error: BaseException) -> str | None:
    """What to tell the operator about a known failure, or None for an unexpected one."""
    import psycopg
    import pydantic
    from sqlalchemy.exc import DBAPIError

    from kalshi_platform.archive.errors import ArchiveDamaged
    from kalshi_platform.exchange.errors import ExchangeError
    from kalshi_platform.ingest.recorder import LeaseHeld
    from kalshi_platform.ingest.tape import TapeFull
    from kalshi_platform.settings import SecretUnreadable
    from kalshi_platform.storage.migrate import SchemaMismatch
    from kalshi_platform.storage.recorded_exchange import OtherExchange

    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    if isinstance(
        error,
        Refusal
        | SchemaMismatch
        | ExchangeError
        | LeaseHeld
        | TapeFull
        | OtherExchange
        | SecretUnreadable
        | ArchiveDamaged,
    ):
        return str(error)
    if isinstance(error, pydantic.ValidationError) and error.title == "Settings":
        return _settings_sentence(error)
    if isinstance(error, psycopg.Error):
        return _database_sentence(error)
    if isinstance(error, OSError):
        return _file_sentence(error)
    return None


def _database_sentence(error: "psycopg.Error") -> str | None:
    import psycopg

    if isinstance(error, psycopg.OperationalError):
        if "/postgres/.s.PGSQL" in str(error):
            return (
                "The embedded database does not run: start `kalshi-platform up`, "
                "or set DATABASE_URL to the database to use."
            )
        return (
            f"The database did not answer as it should: {_one_line(error)} "
            "Check DATABASE_URL and that the server runs (with the embedded database: that "
            "`kalshi-platform up` runs); `kalshi-platform doctor` looks at each part."
        )
    if isinstance(error, psycopg.errors.UndefinedTable):
        return "The database has no tables of this platform yet. Run: kalshi-platform migrate"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return (
            f"The user of DATABASE_URL may not do this: {_one_line(error)} "
            "It needs its own database, and CREATEROLE for the first migration (or let an "
            "administrator CREATE ROLE kalshi_reader and kalshi_meter, and GRANT both to it)."
        )
    return None


def _file_sentence(error: OSError) -> str | None:
    where = str(error.filename or "a file")
    if error.errno == errno.ENOSPC:
        place = f" ({error.filename})" if error.filename else ""
        return f"The disk is full{place}: free some space, or set KALSHI_HOME to another disk."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{where} cannot be used ({error.strerror}): give this user the right to it, "
            "or set KALSHI_HOME to another folder."
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{where} is in the way ({error.strerror}): set KALSHI_HOME to another folder."
    return None


def _settings_sentence(error: "pydantic.ValidationError") -> str:
    from kalshi_platform.operations.environment import variable_of

    parts = []
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else "settings"
        parts.append(
            f"{variable_of(field)} is not usable: {problem['msg'].removeprefix('Value error, ')}"
        )
    return "; ".join(parts) + ". Change it in the environment or in .env."


def _one_line(error: BaseException) -> str:
    lines: Iterator[str] = (line.strip() for line in str(error).splitlines())
    text = " ".join(line for line in lines if line)
    return text if text.endswith(".") else f"{text}."
