"""COPY BINARY rows: the quickest way into a table.

A row is a 2-byte field count, then per field a 4-byte length and its bytes (PostgreSQL manual,
COPY, "Binary Format"). Numbers of fixed width are packed by one `struct` call a row; text fields
come last, so that only their lengths vary.
"""

import os
import socket
from collections.abc import Iterable
from struct import Struct

import psycopg
from psycopg import sql

# PostgreSQL counts microseconds from 2000-01-01.
POSTGRES_EPOCH_MICROS = 946_684_800_000_000

_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_LENGTH = Struct(">i")
NULL = _LENGTH.pack(-1)


def text_field(value: str) -> bytes:
    """One text field with its length."""
    data = value.encode()
    return _LENGTH.pack(len(data)) + data


def copy_binary(
    connection: psycopg.Connection, table: str, columns: Iterable[str], rows: Iterable[bytes]
) -> None:
    """COPY ready-made binary rows into `table`."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(_HEADER + b"".join(rows) + _TRAILER)


# As much as a batch of the loader; the system may allow less (net.core.wmem_max).
_SOCKET_BYTES = 4 << 20


def send_far_ahead(connection: psycopg.Connection) -> None:
    """Let the system hold some megabytes that the server has not read yet.

    With its habit of 200 kB, a thread that sends must be woken, and wait for the interpreter, so
    often that the server is idle for a third of the time while other threads compute.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
