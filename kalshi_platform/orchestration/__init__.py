"""When each table is made, for which day, and whether the result is right (Dagster)."""
