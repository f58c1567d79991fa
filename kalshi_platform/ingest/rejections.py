"""Rejections: what REST told and we could not read, kept once a day with its bytes."""

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version

import psycopg

from kalshi_platform.storage import tables
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform.storage.reads.sweeps import known_rejections
from kalshi_platform.storage.writes.feed import RejectedRow, add_rejected

_CODE_VERSION = version("kalshi-platform")


def reject(
    connection: psycopg.Connection,
    rejected: Sequence[tuple[bytes, str]],
    source: str,
    received_at: datetime,
) -> None:
    """Keep each object with the reason; the caller commits.

    Args:
        source: rest or historical.
    """
    if not rejected:
        return
    ensure_partitions(connection, [received_at.date()], [tables.rejected_messages])
    # What cannot be read is asked for again and again.
    known = known_rejections(connection, source, received_at, [raw for raw, _ in rejected])
    add_rejected(
        connection,
        [
            RejectedRow(received_at, source, None, None, None, reason, _CODE_VERSION, raw)
            for raw, reason in rejected
            if raw not in known
        ],
    )
