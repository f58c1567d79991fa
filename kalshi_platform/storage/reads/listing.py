"""What the lists of series, events, markets and outcomes have in common: pages of JSON text.

A page is found in two steps: the keys, from indexes alone where that can be, then the records of
those keys. Every value is bound; the statements take the parameters that `Question` holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kalshi_platform.storage.reads.trades import dollars, fixed_contracts, instant
from kalshi_platform.storage.tables import words_of


@dataclass
class Question:
    """Conditions of a WHERE clause, and the values they name."""

    conditions: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def ask(self, condition: str, **parameters: Any) -> None:
        """Add a condition; its parameters are spelled `%(name)s` in it."""
        self.conditions.append(condition)
        self.parameters |= parameters

    def ask_if_given(self, condition: str, **parameter: Any) -> None:
        """Add a condition on one parameter unless its value is None."""
        if any(value is not None for value in parameter.values()):
            self.ask(condition, **parameter)

    def search(self, column: str, text: str | None) -> None:
        """All words of `text` are in the words of a row."""
        if text is not None:
            # In the order of the index, or it would not be used.
            words = f'({words_of("%(search)s::text")}) COLLATE "C"'
            self.ask(f"{column} @> {words}", search=text)

    @property
    def where(self) -> str:
        return " AND ".join(self.conditions) or "true"


def keys_in_order(key: str, sources: Sequence[str]) -> str:
    """The query of the first %(rows)s keys of all sources together.

    Args:
        key: the column, with the alias that each source has.
        sources: what follows FROM; no key is in two of them.
    """
    branches = [
        # Asked for twenty times as many, the planner walks the keys in order only where matches
        # are frequent. It takes them for evenly spread, but words and tickers go together. Rows
        # are made one by one, so the others never are.
        f"(SELECT {key} FROM {source} ORDER BY {key} LIMIT 20 * %(rows)s)"  # noqa: S608
        for source in sources
    ]
    name = key.partition(".")[2]
    first = f"SELECT {name} FROM found ORDER BY {name} LIMIT %(rows)s"  # noqa: S608
    if len(branches) == 1:
        first = first.replace(f" ORDER BY {name}", "")
    return f"WITH found AS MATERIALIZED ({' UNION ALL '.join(branches)}) {first}"


def keys_of_category(key: str, series: str, sources: Sequence[str]) -> str:
    """The query of the first %(rows)s keys of all series of %(category)s, each of which has them
    in order in an index.

    A category may have every second row, or none for half a million in a row. The series with the
    smallest first keys, as many as there are rows, hold the whole page.

    Args:
        key, series: columns, with the alias that each source has.
        sources: what follows FROM, up to a condition; no key is in two of them.
    """
    merged = [
        f"""(
        SELECT each.key
        FROM (
            SELECT c.series_ticker FROM series AS c CROSS JOIN LATERAL (
                SELECT {key} AS key FROM {source} AND {series} = c.series_ticker
                ORDER BY {key} LIMIT 1
            ) AS first
            WHERE c.category = %(category)s ORDER BY first.key LIMIT %(rows)s
        ) AS c CROSS JOIN LATERAL (
            SELECT {key} AS key FROM {source} AND {series} = c.series_ticker
            ORDER BY {key} LIMIT %(rows)s
        ) AS each
        ORDER BY each.key LIMIT %(rows)s)"""  # noqa: S608 (constants)
        for source in sources
    ]
    name = key.partition(".")[2]
    return (
        f"SELECT key AS {name} FROM ({' UNION ALL '.join(merged)}) AS found"  # noqa: S608
        " ORDER BY key LIMIT %(rows)s"
    )


def page_of(keys: str, record: Mapping[str, str], source: str, *, order: str, position: str) -> str:
    """The statement of one page.

    Args:
        keys: query of the page's keys, limited to %(rows)s, which is one more than %(limit)s.
        record: SQL of each member of a record, by name.
        source: what follows FROM for a record; reads the keys as `keys`, one row of it each.
        order: columns of `source` in which the page is sorted.
        position: SQL of a JSON value: where a record stands, for a cursor.

    Returns:
        Text of a query of one row: records (text, JSON objects joined by SEPARATOR of
        `reads.trades`; null when there are none), found (limit + 1 at most) and position (JSON,
        that of record number `limit`; null when there are fewer).
    """
    return f"""\
WITH keys AS MATERIALIZED ({keys})
SELECT string_agg(record, E',\\n' ORDER BY place) AS records, count(*) AS found,
       (array_agg(position ORDER BY place))[%(limit)s] AS position
FROM (
    SELECT {json_object(record)} AS record, {position}::text AS position,
           row_number() OVER (ORDER BY {order}) AS place
    FROM {source}
) AS page"""  # noqa: S608 (constants; every value is bound)


def json_object(record: Mapping[str, str]) -> str:
    """SQL of the text of a JSON object; a member without a value is null."""
    members = ", ".join(f'{value} AS "{name}"' for name, value in record.items())
    return f"(SELECT row_to_json(r)::text FROM (SELECT {members}) AS r)"  # noqa: S608 (constants)


def price(name: str, micros: str) -> dict[str, str]:
    """An amount twice: in cents as a number, in dollars as text."""
    return {name: f"trim_scale({micros} * 0.0001)", f"{name}_dollars": dollars(micros)}


def count_of(name: str, centis: str) -> dict[str, str]:
    """A count of contracts twice: as a number, and as text with two decimals."""
    return {name: f"trim_scale({centis} * 0.01)", f"{name}_fp": fixed_contracts(centis)}


def instants(**columns: str) -> dict[str, str]:
    """Instants as ISO 8601 text in UTC, by the name of the member."""
    return {name: instant(column) for name, column in columns.items()}


def limited(limit: int) -> dict[str, int]:
    """The parameters of a page's size; one row more tells whether another page follows."""
    return {"limit": limit, "rows": limit + 1}
