"""What the UI says about a table's columns: generated from `storage.tables`, units included."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

_UNITS = {
    "_micros": "millionths of a dollar",
    "_micro_centis": "millionths of a dollar times hundredths of a contract",
    "_centis": "hundredths of a contract",
    "_at": "instant, UTC",
    "_on": "UTC day",
}

Sources = Mapping[str, Sequence[tuple[str, str]]]


def table_metadata(table: Table, lineage: Sources | None = None) -> dict[str, Any]:
    """Definition metadata of the asset that `table` holds.

    Args:
        table: its columns, units and comments.
        lineage: per column, the (asset, column) pairs it is made from; left out where unsaid.
    """
    metadata: dict[str, Any] = {
        "dagster/table_name": table.name,
        "dagster/column_schema": column_schema(table),
    }
    if lineage:
        metadata["dagster/column_lineage"] = dg.TableColumnLineage(
            {
                column: [dg.TableColumnDep(dg.AssetKey(asset), name) for asset, name in sources]
                for column, sources in lineage.items()
            }
        )
    return metadata


def column_schema(table: Table) -> dg.TableSchema:
    return dg.TableSchema([_column(column) for column in table.columns])


def same_columns(table: Table, source: Table, asset: str) -> Sources:
    """Lineage of a table whose columns come from the columns of the same name in `source`."""
    shared = [column.name for column in table.columns if column.name in source.columns]
    return {name: [(asset, name)] for name in shared}


def _column(column: Column[Any]) -> dg.TableColumn:
    unit = next((unit for suffix, unit in _UNITS.items() if column.name.endswith(suffix)), "")
    described = [text for text in (column.comment, unit) if text]
    return dg.TableColumn(
        column.name,
        column.type.compile(dialect=postgresql.dialect()),  # type: ignore[no-untyped-call]
        description="; ".join(dict.fromkeys(described)) or None,
        constraints=dg.TableColumnConstraints(
            nullable=bool(column.nullable), unique=bool(column.unique)
        ),
    )
