"""The one partition: a UTC day."""

from datetime import UTC, date, datetime

import dagster as dg

# Earlier days can be loaded by `kalshi-platform backfill`; a range of years would make the filled
# days invisible in the UI. Never by market: there are millions.
FIRST_DAY = "2026-01-01"

utc_days = dg.DailyPartitionsDefinition(start_date=FIRST_DAY, timezone="UTC", end_offset=1)


def today() -> date:
    """The UTC day it is now: the partition that is still filling."""
    return datetime.now(UTC).date()


def day_of(partition_key: str) -> date:
    return date.fromisoformat(partition_key)


def has_partition(day: date) -> bool:
    """Whether the UI knows this day; trades healed on earlier days have no partition to report."""
    return date.fromisoformat(FIRST_DAY) <= day <= today()
