"""Closed days as Parquet: written, read back, dropped from the database, restored, served."""
