"""Wire to tables: record (socket to tape), load (tape to tables), heal (REST to tables)."""
