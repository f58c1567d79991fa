"""What is noted of archived days; each function in its caller's transaction."""

from datetime import date
from typing import Any

import psycopg

from kalshi_platform.storage.reads.archives import Archive


def note_archived(connection: psycopg.Connection[Any], archive: Archive) -> None:
    """A day has its file, which was read back; whatever was noted of it before is replaced."""
    connection.execute(
        "INSERT INTO archives (table_name, day, path, schema_version, row_count, bytes, sha256,"
        " checksum, verified_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, now())"
        " ON CONFLICT (table_name, day) DO UPDATE SET path = excluded.path,"
        " schema_version = excluded.schema_version, row_count = excluded.row_count,"
        " bytes = excluded.bytes, sha256 = excluded.sha256, checksum = excluded.checksum,"
        " archived_at = now(), verified_at = now()",
        [*archive[:8]],
    )


def note_verified(
    connection: psycopg.Connection[Any], table: str, day: date, *, verified: bool
) -> None:
    """The file was read once more, and found right or wrong."""
    connection.execute(
        "UPDATE archives SET verified_at = CASE WHEN %s THEN now() END"
        " WHERE table_name = %s AND day = %s",
        [verified, table, day],
    )


def note_dropped(connection: psycopg.Connection[Any], table: str, day: date) -> None:
    """The rows leave the database with this transaction."""
    connection.execute(
        "UPDATE archives SET dropped_at = now(), restored_at = NULL"
        " WHERE table_name = %s AND day = %s AND verified_at IS NOT NULL",
        [table, day],
    )


def note_restored(connection: psycopg.Connection[Any], table: str, day: date) -> None:
    """The rows are back in the database with this transaction."""
    connection.execute(
        "UPDATE archives SET dropped_at = NULL, restored_at = now()"
        " WHERE table_name = %s AND day = %s",
        [table, day],
    )
