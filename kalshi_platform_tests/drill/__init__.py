"""Drills: the real processes under load, killed and lied to, then held against the ledger."""
