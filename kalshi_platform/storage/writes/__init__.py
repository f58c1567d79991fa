"""Writes, one module per table family; the caller owns the transaction."""
