"""Whether two places hold the same rows: their number, and a sum of hashes in any order."""

from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from kalshi_platform.archive.layout import Field, fields_of


class Sum(NamedTuple):
    """What rows are known by."""

    rows: int
    checksum: Decimal

    def __add__(self, other: object) -> "Sum":
        assert isinstance(other, Sum)
        return Sum(self.rows + other.rows, self.checksum + other.checksum)


NOTHING = Sum(0, Decimal(0))


def sum_of(connection: psycopg.Connection[Any], relation: str, table: str) -> Sum:
    """Count and checksum of the rows of `relation`, which has the columns of `table`.

    PostgreSQL hashes a row by adding up what its columns hash to; hashed once more, rows whose
    columns were exchanged among them do not add up to the same.
    """
    row = connection.execute(
        sql.SQL(
            "SELECT count(*), coalesce(sum(hashint8extended("
            "hash_record_extended(ROW({}), 0), 0)), 0) FROM ONLY {}"
        ).format(sql.SQL(", ").join(map(_exactly, fields_of(table))), sql.Identifier(relation)),
        prepare=False,
    ).fetchone()
    assert row is not None, "an aggregate without GROUP BY has one row"
    return Sum(*row)


def _exactly(field: Field) -> sql.Composed:
    # 1 and 1.0 are the same number in JSON, not the same text.
    cast = sql.SQL("::text" if field.is_json else "")
    return sql.SQL("{}{}").format(sql.Identifier(field.name), cast)
