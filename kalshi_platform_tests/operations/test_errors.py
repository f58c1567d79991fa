"""Known failures are one sentence with the remedy; unknown ones keep their traceback."""

import errno

import psycopg
import pytest
from sqlalchemy.exc import ProgrammingError

from kalshi_platform.operations.errors import sentence_for
from kalshi_platform.storage.recorded_exchange import OtherExchange

DENIED = psycopg.errors.InsufficientPrivilege("permission denied to create role")


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (DENIED, "CREATE ROLE kalshi_reader"),
        (ProgrammingError("CREATE ROLE", {}, DENIED), "CREATE ROLE kalshi_reader"),
        (PermissionError(errno.EACCES, "Permission denied", "/data"), "/data cannot be used"),
        (OSError(errno.EROFS, "Read-only file system", "/data"), "set KALSHI_HOME"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/f/x"), "/f/x is in the way"),
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (psycopg.errors.UndefinedTable("no such relation"), "kalshi-platform migrate"),
        (OtherExchange("This home holds simulated data."), "This home holds simulated data."),
    ],
)
def test_a_known_failure_is_one_sentence(error: Exception, part: str) -> None:
    sentence = sentence_for(error)
    assert sentence is not None
    assert part in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), psycopg.errors.UniqueViolation("x"), ConnectionResetError()]
)
def test_a_fault_of_ours_keeps_its_traceback(error: Exception) -> None:
    assert sentence_for(error) is None


def test_a_password_is_not_repeated() -> None:
    import pydantic

    from kalshi_platform.settings import Settings

    with pytest.raises(pydantic.ValidationError) as refused:
        Settings(_env_file=None, database_url="postgresql://me:hunter2@h/d?nonsense=1")
    assert "hunter2" not in (sentence_for(refused.value) or "hunter2")
