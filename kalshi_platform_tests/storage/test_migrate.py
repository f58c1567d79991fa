"""Migrations: they make exactly the schema that tables.py describes."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from kalshi_platform.storage import partitions, tables
from kalshi_platform.storage.engine import connect, database_engine
from kalshi_platform.storage.migrate import (
    SchemaMismatch,
    head_revision,
    migrate,
    require_current_schema,
)


def _ours(name: str | None, kind: str, parents: object) -> bool:
    """Partitions belong to their parent, and are made at run time."""
    known = set(tables.metadata.tables)
    return kind != "table" or name in known


def test_a_migrated_database_equals_the_metadata(database):
    engine = database_engine(database)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_name": _ours}
        )
        assert compare_metadata(context, tables.metadata) == []
    engine.dispose()


# What comparing by names and types does not see: conditions, included columns, defaults, words.
_FULL_SCHEMA = """
SELECT 'index', indexname::text, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename = ANY(%(tables)s)
UNION ALL
SELECT 'column', table_name || '.' || column_name,
       concat_ws(' | ', data_type, is_nullable, column_default, collation_name, is_identity,
                 generation_expression, col_description(table_name::regclass, ordinal_position))
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name = ANY(%(tables)s)
UNION ALL
SELECT 'table', relname::text, obj_description(oid) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%(tables)s)
ORDER BY 1, 2
"""


def test_a_migrated_database_equals_the_metadata_to_the_letter(database, empty_database):
    engine = database_engine(empty_database)
    tables.metadata.create_all(engine)
    engine.dispose()
    found = []
    for url in (database, empty_database):
        with connect(url) as connection:
            found.append(
                connection.execute(
                    _FULL_SCHEMA, {"tables": list(tables.metadata.tables)}
                ).fetchall()
            )
    migrated, described = found
    assert len(described) > 200
    assert migrated == described


def test_migrating_twice_changes_nothing(empty_database):
    assert migrate(empty_database) == migrate(empty_database) == head_revision()


def test_an_empty_database_is_refused_with_the_remedy(empty_database):
    with connect(empty_database) as connection, pytest.raises(SchemaMismatch, match="migrate"):
        require_current_schema(connection)


def test_a_newer_schema_is_refused(database):
    with connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaMismatch, match="newer"):
        migrate(database)


def test_partitions_are_made_once(database):
    from datetime import date

    with connect(database) as connection:
        made = partitions.ensure_partitions(connection, [date(2031, 5, 31), date(2031, 6, 1)])
        assert "trades_20310531" in made and "candles_1h_203105" in made
        assert partitions.ensure_partitions(connection, [date(2031, 5, 31)]) == []
