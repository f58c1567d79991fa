"""Alembic's entry: runs the migrations on the connection that `storage.migrate` hands over."""

from alembic import context
from sqlalchemy import text

from kalshi_platform.storage.tables import metadata

connection = context.config.attributes["connection"]
# A migration that waits for a lock holds up every later query on that table: give up instead.
connection.execute(text("SET lock_timeout = '10s'"))
context.configure(connection=connection, target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
