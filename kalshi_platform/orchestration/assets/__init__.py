"""One module per table family: its assets, their checks, their freshness."""
