"""When something was started that had been stopped: until it has brought data, it is starting."""

from typing import LiteralString

import psycopg

# A part that ends and is started again and again, and brings nothing, has been starting since the
# first of these times: its predecessor was seen a moment ago, and nothing has come since it began.
_NOTE: LiteralString = """
INSERT INTO ingestion_metrics AS known (name, labels, value)
VALUES ('started_at_seconds', %(label)s, extract(epoch FROM clock_timestamp()))
ON CONFLICT (name, labels) DO UPDATE SET value = excluded.value, updated_at = now()
WHERE NOT (
    EXISTS (SELECT FROM ingestion_metrics WHERE name = 'loader_seen_at_seconds'
            AND value > excluded.value - %(again)s)
    AND NOT EXISTS (SELECT FROM ingestion_metrics WHERE name = 'last_received_at_seconds'
                    AND value >= known.value)
)"""
# A recorder that the exchange refuses is started again after 60 s.
_AGAIN_SECONDS = 120.0


def note_start(connection: psycopg.Connection, part: str) -> None:
    """Note that `part` (platform, loader) starts now; the caller commits."""
    connection.execute(_NOTE, {"label": f'part="{part}"', "again": _AGAIN_SECONDS})
