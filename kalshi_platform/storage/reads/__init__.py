"""Queries, one module per table family."""
