"""What the UI says about a table's columns: generated from `storage.tables`, units included."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from kalshi_platform.storage.units import unit_of

# Of columns that need no comment where they stand, whatever the table.
_COMMON = {
    "market_ticker": "the exchange's name of the market",
    "event_ticker": "the exchange's name of the event: what its markets ask together",
    "series_ticker": "the exchange's name of the series",
    "trade_id": "the exchange's identity of the trade (UUID)",
    "trade_count": "trades within the interval",
    "connection": "WebSocket connection: Unix seconds of its opening",
    "sid": "subscription on that connection",
    "seq": "number of the message on its subscription",
    "read_attempts": "times REST has been asked in vain since it last told",
    "title": "in the exchange's words",
    "sub_title": "in the exchange's words",
    "yes_sub_title": "what yes means, in the exchange's words",
    "no_sub_title": "what no means, in the exchange's words",
    "category": "in the exchange's words",
    "categories": "in the exchange's words",
    "tags": "in the exchange's words",
    "mutually_exclusive": "whether at most one of its markets can settle yes",
    "can_close_early": "whether trading may end before closes_at",
    "strike_type": "how the outcome follows from the strikes: greater, between, …",
    "floor_strike": "lower strike, in the unit of what is measured",
    "cap_strike": "upper strike, in the unit of what is measured",
    "functional_strike": "strike told as a formula",
    "custom_strike": "strike told as JSON",
    "strike_date": "instant, UTC, that the event is about",
    "strike_period": "period that the event is about",
    "price_level_structure": "the exchange's name of its price grid",
    "fee_type": "how fees are computed, in the exchange's words",
    "fee_multiplier": "factor of the exchange's fee formula",
    "fee_multiplier_override": "factor of the fee formula; null where it is the series' own",
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
    unit = unit_of(column.name)
    comment = column.comment or _COMMON.get(column.name)
    if comment and any(word in comment for word in [*unit.split()[:1], "UTC"]):
        unit = ""  # it is said already
    described = [text for text in (comment, unit) if text]
    return dg.TableColumn(
        column.name,
        column.type.compile(dialect=postgresql.dialect()),  # type: ignore[no-untyped-call]
        description="; ".join(dict.fromkeys(described)) or None,
        constraints=dg.TableColumnConstraints(
            nullable=bool(column.nullable), unique=bool(column.unique)
        ),
    )
