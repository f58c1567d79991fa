"""Known failures as one sentence each, with the remedy; everything else keeps its traceback."""

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

    from kalshi_platform.exchange.errors import ExchangeError
    from kalshi_platform.ingest.recorder import LeaseHeld
    from kalshi_platform.ingest.tape import TapeFull
    from kalshi_platform.storage.migrate import SchemaMismatch

    if isinstance(error, Refusal | SchemaMismatch | ExchangeError | LeaseHeld | TapeFull):
        return str(error)
    if isinstance(error, pydantic.ValidationError) and error.title == "Settings":
        return _settings_sentence(error)
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
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" ({error.filename})" if error.filename else ""
        return f"The disk is full{where}: free some space, or set KALSHI_HOME to another disk."
    return None


def _settings_sentence(error: "pydantic.ValidationError") -> str:
    from kalshi_platform.operations.environment import variable_of

    parts = []
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else "settings"
        parts.append(f"{variable_of(field)} is not usable: {problem['msg']}")
    return "; ".join(parts) + ". Change it in the environment or in .env."


def _one_line(error: BaseException) -> str:
    lines: Iterator[str] = (line.strip() for line in str(error).splitlines())
    text = " ".join(line for line in lines if line)
    return text if text.endswith(".") else f"{text}."
