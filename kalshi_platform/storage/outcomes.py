"""What is known of one market's outcome, and how new evidence changes it.

Evidence comes as messages (`determined`, `settled`) and as REST's statements, in any order and more
than once. All of it is put in order of the exchange's time and read again from the start, so that
the outcome does not depend on the order in which it was told:

- the first determination stands until another one names another result or value: an amendment;
- a repetition makes no version; REST's saying the same confirms the version that is there;
- `settled` makes the result in force final.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

FINALIZED: Final = "finalized"
LIFECYCLE: Final = "lifecycle"
# Messages cut their times to the second.
_ONE_SECOND = timedelta(seconds=1)
# At one instant, the order in which a market can have had them.
_RANKS = {"determined": 0, "disputed": 1, "amended": 2, FINALIZED: 3}
# What the stream tells once a dispute is over; one that is dismissed, REST alone shows.
_REVIEWED = ("disputed", "determined")
_BEFORE_ANY_OUTCOME = {"initialized", "active", "inactive", "closed"}


class Version(NamedTuple):
    """The outcome as it stood from `effective_at` on."""

    status: str
    result: str
    settlement_value_micros: int | None
    effective_at: datetime
    source: str
    recorded_at: datetime
    confirmed_at: datetime | None

    def agrees(self, other: "Version") -> bool:
        """Whether both name the same result; a value that was not told contradicts none."""
        mine, theirs = self.settlement_value_micros, other.settlement_value_micros
        return self.result == other.result and (mine is None or theirs is None or mine == theirs)


class Outcome:
    """All versions of one market's outcome, the last being in force.

    Args:
        versions: as stored, in order.
        determined_at: when the result in force was determined; None where no message told it.
        settled_at: when it was paid.
    """

    def __init__(
        self,
        versions: Iterable[Version] = (),
        determined_at: datetime | None = None,
        settled_at: datetime | None = None,
    ) -> None:
        self.versions = tuple(versions)
        self.determined_at = determined_at
        self.settled_at = settled_at

    @property
    def last(self) -> Version | None:
        return self.versions[-1] if self.versions else None

    @property
    def is_final(self) -> bool:
        """Whether REST itself has told the final state: there is nothing left to ask."""
        last = self.last
        return last is not None and last.status == FINALIZED and last.source != LIFECYCLE

    @property
    def confirmed_at(self) -> datetime | None:
        """When REST first told the result in force, whatever its status was then."""
        return min((v.confirmed_at for v in self._in_force() if v.confirmed_at), default=None)

    def state(self) -> tuple[object, ...]:
        """Everything that is stored of it, to tell a change."""
        return self.versions, self.determined_at, self.settled_at

    # Evidence -----------------------------------------------------------------------------------

    def determined(
        self, result: str, value_micros: int | None, at: datetime, received_at: datetime
    ) -> None:
        """A `determined` message; `at` is its determination_ts."""
        told = Version("determined", result, value_micros, at, LIFECYCLE, received_at, None)
        self._add(told)
        in_force = self._in_force()
        if in_force[0].agrees(told) and in_force[0].effective_at <= at:
            self.determined_at = min(at, self.determined_at or at)

    def settled(self, at: datetime, received_at: datetime) -> None:
        """A `settled` message; `at` is its settled_ts. Without a result it says nothing yet."""
        standing = [v for v in self.versions if v.effective_at < at + _ONE_SECOND]
        if not standing:
            return
        paid = standing[-1]
        following = self.versions[len(standing) : len(standing) + 1]
        if self.settled_at is None and following and following[0].status == FINALIZED:
            paid = following[0]
        if paid.status != FINALIZED:
            self._add(
                paid._replace(
                    status=FINALIZED,
                    effective_at=at,
                    source=LIFECYCLE,
                    recorded_at=received_at,
                    confirmed_at=None,
                )
            )
            self.settled_at = max(at, self.settled_at or at)
        elif self.settled_at is None:
            # REST told the final state without its time, as of when it last changed.
            self._replace(paid, paid._replace(effective_at=at))
            self.settled_at = at

    def told(
        self,
        status: str,
        result: str,
        value_micros: int | None,
        *,
        settled_at: datetime | None,
        updated_at: datetime,
        source: str,
        read_at: datetime,
    ) -> bool:
        """What REST told of a market as of `updated_at`.

        Returns:
            Whether the outcome in force is now the one told.
        """
        if not result:
            return False
        if status in _BEFORE_ANY_OUTCOME:
            status = "determined"  # a result is told: the status lags behind
        at = updated_at
        if status == FINALIZED:
            at = settled_at or self.settled_at or updated_at
        told = Version(status, result, value_micros, at, source, read_at, read_at)
        last = self.last
        if last is not None and not last.agrees(told) and updated_at < last.effective_at:
            return False  # how it was before the version in force
        if last is not None and last.agrees(told) and last.status != FINALIZED:
            self._replace(last, _confirmed(last, told))
        self._add(told)
        if status == FINALIZED and settled_at is not None:
            self.settled_at = settled_at
        return True

    # Order --------------------------------------------------------------------------------------

    def _add(self, version: Version) -> None:
        before = self.last
        self.versions = _in_order((*self.versions, version))
        if before is None or not self.versions[-1].agrees(before):
            self.determined_at = None  # another result is in force

    def _replace(self, old: Version, new: Version) -> None:
        self.versions = tuple(new if version is old else version for version in self.versions)

    def _in_force(self) -> list[Version]:
        """The last versions that name the same result."""
        standing: list[Version] = []
        for version in reversed(self.versions):
            if standing and not version.agrees(standing[0]):
                break
            standing.insert(0, version)
        return standing


def _in_order(versions: Iterable[Version]) -> tuple[Version, ...]:
    kept: list[Version] = []
    for version in sorted(versions, key=_place):
        if not kept:
            kept.append(version)
            continue
        last = kept[-1]
        if version.status == FINALIZED and version.source == LIFECYCLE:
            # The message names no result: it is the one in force.
            version = version._replace(
                result=last.result, settlement_value_micros=last.settlement_value_micros
            )
        elif version.status == last.status == FINALIZED and last.source == LIFECYCLE:
            # REST names the result that was paid; an amendment may have escaped us.
            if version.agrees(last):
                version = _with_value(version, last)
            recorded_at = min(last.recorded_at, version.recorded_at)
            kept[-1] = version._replace(recorded_at=recorded_at)
            continue
        if not version.agrees(last):
            if version.status == "determined":
                version = version._replace(status="amended")
            kept.append(version)
        elif version.source == LIFECYCLE and (last.status, version.status) == _REVIEWED:
            kept.append(version._replace(status="amended"))  # to the same result
        elif _repeats(version, last):
            kept[-1] = _merged(last, version)
        else:
            kept.append(_with_value(version, last))
    return tuple(kept)


def _place(version: Version) -> tuple[datetime, int]:
    return version.effective_at, _RANKS.get(version.status, 1)


def _repeats(version: Version, last: Version) -> bool:
    """Whether a statement that agrees with the one before it says nothing new."""
    if last.status in (version.status, FINALIZED):
        return True
    return version.status == "determined" and last.status == "amended"


def _merged(last: Version, again: Version) -> Version:
    """Two statements of one version: the earlier one, since REST tells when it last changed."""
    merged = _with_value(last, again)
    if last.status != FINALIZED or again.status == FINALIZED:
        merged = _confirmed(merged, again)
    return merged._replace(recorded_at=min(last.recorded_at, again.recorded_at))


def _with_value(version: Version, agreeing: Version) -> Version:
    """`version` with its value, if only the other one told it."""
    if version.settlement_value_micros is not None:
        return version
    return version._replace(settlement_value_micros=agreeing.settlement_value_micros)


def _confirmed(version: Version, told: Version) -> Version:
    """`version` with what confirms it; the first confirmation stands."""
    if version.confirmed_at is not None or told.confirmed_at is None:
        return version
    return version._replace(confirmed_at=told.confirmed_at, source=told.source)
