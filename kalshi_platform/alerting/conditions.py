"""A condition that should not hold, and the links that go with it."""

from datetime import date
from typing import Literal, NamedTuple
from urllib.parse import quote, urlencode

from kalshi_platform.alerting.kinds import Kind

Severity = Literal["error", "warning"]


class Condition(NamedTuple):
    """Something that should not be so."""

    name: str
    """What, and of what: the same words as long as it is the same trouble."""
    kind: Kind
    severity: Severity
    summary: str
    remedy: str
    link: str | None = None
    tells: bool = True
    """False: it keeps an alert going that was told, but is no reason for a new one."""
    holds_seconds: float | None = None
    """How long it must hold before it is told; None: what its kind says."""


class Links:
    """Where things are in Dagster's UI."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def run(self, run_id: str) -> str:
        return f"{self._url}/runs/{quote(run_id)}"

    def runs(self, job: str) -> str:
        return f"{self._url}/runs?{urlencode({'q[0]': f'job:{job}'})}"

    def asset(self, key: str, day: date | None = None) -> str:
        query = "" if day is None else f"?{urlencode({'view': 'partitions', 'partition': day})}"
        return f"{self._url}/assets/{quote(key)}{query}"

    def check(self, asset: str, check: str) -> str:
        query = urlencode({"view": "checks", "checkDetail": check})
        return f"{self._url}/assets/{quote(asset)}?{query}"
