"""Whether a service is alive, for a container's health check; ends with 1 if it is not:

    python -m kalshi_platform.operations.health recorder
    python -m kalshi_platform.operations.health http://127.0.0.1:8000/health

It asks for what the service itself is to do. Data that is old because the exchange is silent, or a
database that is away, is told by `GET /health` and by alerts; no restart of the recorder or of the
API would mend it.
"""

import fcntl
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

_TIMEOUT_SECONDS = 5
# The loader notes each second that it is there; a batch may take longer on a busy machine.
_LOADER_SECONDS = 60


def main(what: str) -> int:
    """Say in a line how it is; 0 if the service is alive."""
    if "://" in what:
        alive, sentence = web(what)
    else:
        # Imported where needed: a check of a web service is to cost next to nothing.
        from kalshi_platform.settings import Settings

        settings = Settings()
        alive, sentence = recorder(settings.tape_folder, settings.url)
    print(sentence)  # noqa: T201
    return 0 if alive else 1


def web(url: str) -> tuple[bool, str]:
    """Whether the service answers in time, and as one that serves.

    The API answers 503 also when it serves, but the newest data is older than it should be.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return True, f"answers {answer.status}"
    except urllib.error.HTTPError as error:
        status = _status_in(error.read())
        return status == "stale", f"answers {error.code}, {status or 'no status'}"
    except OSError as error:
        return False, f"does not answer: {error}"


def recorder(tape_folder: Path, url: str) -> tuple[bool, str]:
    """Whether a recorder holds the tape and, as far as the database tells, its lease; or stands by.

    With the database away the tape alone counts: frames go there.
    """
    import psycopg

    from kalshi_platform.storage.engine import connect
    from kalshi_platform.storage.leases import RECORDER, held
    from kalshi_platform.storage.reads.status import TAPE_BACKLOG

    writes_tape = _is_locked(tape_folder / "recorder.lock")
    try:
        with connect(url, autocommit=True) as connection:
            records = held(connection, RECORDER)
            row = connection.execute(
                "SELECT extract(epoch FROM now() - updated_at)::float8 FROM ingestion_metrics"
                " WHERE name = %s AND labels = ''",
                [TAPE_BACKLOG],
            ).fetchone()
    except psycopg.OperationalError:
        return writes_tape, f"the database is away; the tape is {'' if writes_tape else 'not '}held"
    if not records:
        return False, "no recorder holds the lease"
    age = None if row is None else row[0]
    if age is None or age > _LOADER_SECONDS:
        return False, "nothing has been loaded" + ("" if age is None else f" for {age:.0f} s")
    return True, f"records; loaded {age:.0f} s ago"


def _is_locked(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _status_in(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["status"])
    except (ValueError, KeyError, TypeError):
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
