"""The HTTP API that serves the published tables to customers, read-only."""
