"""`kalshi-platform record`: records when it is this process's turn."""

import threading

import psycopg
import structlog

from kalshi_platform.ingest import service
from kalshi_platform.ingest.recorder import LeaseHeld
from kalshi_platform.ingest.service import RecordingOptions
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.leases import RECORDER, held

log = structlog.get_logger(__name__)

STAND_BY_SECONDS = 0.5


def record_in_turn(
    options: RecordingOptions, stop: threading.Event, *, load: bool, heal: bool
) -> None:
    """Record until `stop` is set; while another recorder holds the lease, stand by for it.

    So a second recorder is a spare: it takes over within a second of the first one's end. What
    `ingest.service.record` raises ends this, too, except LeaseHeld.
    """
    standing_by = False
    while not stop.is_set():
        if not _other_records(options.database_url):
            if standing_by:
                log.info("taking_over")
            try:
                service.record(options, stop, load=load, heal=heal)
            except LeaseHeld as other:
                # Another one was quicker, or writes to the same tape.
                log.info("lease_held", reason=str(other))
            else:
                return
        if not standing_by:
            log.info("standing_by", reason="another recorder holds the lease of this database")
            standing_by = True
        stop.wait(STAND_BY_SECONDS)


def _other_records(url: str) -> bool:
    try:
        with connect(url, autocommit=True) as connection:
            return held(connection, RECORDER)
    except psycopg.OperationalError:
        return False  # then nobody can tell; the recorder begins with the tape
