"""Units are in the names of columns; these are their words."""

UNITS = {
    "_micros": "millionths of a dollar",
    "_micro_centis": "millionths of a dollar × hundredths of a contract",
    "_centis": "hundredths of a contract",
    "_at": "instant, UTC",
    "_on": "UTC day",
    "_dollars": "dollars",
}


def unit_of(column: str) -> str:
    """The unit of a column of that name, in words; empty where it has none."""
    # `_micro_centis` ends with `_centis`, too: the longest ending says it.
    endings = [ending for ending in UNITS if column.endswith(ending)]
    return UNITS[max(endings, key=len)] if endings else ""
