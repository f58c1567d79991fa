"""Which exchange a database and a home folder record: the first to be recorded claims them.

Simulated and real trades look alike. Once in the same tables nobody could tell them apart, so
whoever is about to record, load or ask asks here first.
"""

from pathlib import Path
from urllib.parse import urlsplit

import psycopg

SIMULATED = "simulated"
_MARK = "recorded_exchange"


class OtherExchange(RuntimeError):
    """What was recorded here so far came from another exchange."""


def exchange_name(rest_url: str, *, simulated: bool) -> str:
    """`simulated`, or the domain of the REST API: one exchange answers under several hosts."""
    if simulated:
        return SIMULATED
    host = urlsplit(rest_url).hostname or rest_url
    labels = host.split(".")
    is_address = labels[-1].isdigit() or ":" in host
    return host if is_address else ".".join(labels[-2:])


def claim_database(connection: psycopg.Connection, exchange: str) -> None:
    """Note that this database records `exchange`, unless that is noted already; commits.

    Raises:
        OtherExchange: it records another one.
    """
    connection.execute(
        "INSERT INTO recorded_exchange (exchange) VALUES (%s) ON CONFLICT DO NOTHING", [exchange]
    )
    connection.commit()
    row = connection.execute("SELECT exchange FROM recorded_exchange").fetchone()
    assert row is not None, "the row was there or has just been made"
    connection.commit()
    if row[0] != exchange:
        raise OtherExchange(_sentence("database", row[0], exchange, "KALSHI_HOME or DATABASE_URL"))


def claim_home(folder: Path, exchange: str) -> None:
    """Note that the tape in this home folder is of `exchange`, unless that is noted already.

    Raises:
        OtherExchange: it is of another one.
    """
    mark = folder / _MARK
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with mark.open("x") as file:
            file.write(f"{exchange}\n")
        return
    except FileExistsError:
        held = mark.read_text().strip()
    if held and held != exchange:
        raise OtherExchange(_sentence("home", held, exchange, "KALSHI_HOME"))


def _sentence(what: str, held: str, wanted: str, settings: str) -> str:
    data = "simulated data" if held == SIMULATED else f"data of {held}"
    other = "the simulated exchange" if wanted == SIMULATED else wanted
    return f"This {what} holds {data}: to record {other}, set {settings} to another place."
