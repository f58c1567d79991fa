"""How fresh a table is, read from its own rows.

Revision ID: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"

# Tables of the feed have no index on the time of receipt, which would cost each row of it. They are
# appended to, so that the newest rows lie in the last pages of the newest partition that has any.
# Backfills append to raw_trades, too: the newest row of one source may lie further back, and beyond
# the last of these steps the answer is the latest instant at which there can still be one.
_FUNCTION = """
CREATE FUNCTION newest_received_at(parent REGCLASS, of_source TEXT DEFAULT NULL)
RETURNS TIMESTAMP WITH TIME ZONE LANGUAGE plpgsql STABLE AS $$
DECLARE
    day REGCLASS;
    pages BIGINT;
    tail BIGINT;
    newest TIMESTAMP WITH TIME ZONE;
    earliest TIMESTAMP WITH TIME ZONE;
BEGIN
    FOR day IN
        SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = parent ORDER BY relname DESC
    LOOP
        pages := pg_relation_size(day) / current_setting('block_size')::bigint;
        CONTINUE WHEN pages = 0;
        FOREACH tail IN ARRAY ARRAY[80, 800, 4000] LOOP
            EXECUTE format(
                'SELECT max(received_at)%s, min(received_at) FROM %s WHERE ctid >= %L::tid',
                CASE WHEN of_source IS NULL THEN ''
                     ELSE format(' FILTER (WHERE source = %L)', of_source) END,
                day, format('(%s,0)', greatest(0, pages - tail))
            ) INTO newest, earliest;
            EXIT WHEN newest IS NOT NULL OR tail >= pages;
        END LOOP;
        IF newest IS NOT NULL THEN
            RETURN newest;
        ELSIF tail < pages THEN
            RETURN earliest;
        END IF;
    END LOOP;
    RETURN NULL;
END $$
"""
_COMMENT = """
COMMENT ON FUNCTION newest_received_at IS
'When the newest row of a table of the feed was received (of one source), from its last pages.'
"""


def upgrade() -> None:
    op.execute(_FUNCTION)
    op.execute(_COMMENT)
