"""The kinds of alerts: how long each must hold, and be gone, before it is told.

What is late by a limit of its own has waited long enough; what comes and goes is told once.
`docs/operations.md` says of each what to do.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of alert."""

    name: str
    recovery: str
    """The sentence that says it is over."""
    holds_seconds: float = 0
    gone_seconds: float = 15


STALE = Kind("stale", "What was missing comes again.")
GAP = Kind("gap", "No gap has been open for longer than its limit.")
CHECK = Kind("check", "The check passes, or is gone.", gone_seconds=0)
RUN = Kind("run", "A later run has succeeded, or the failure is a day old.")
REJECTED = Kind("rejected", "Every message of the last ten minutes could be read.")
DISK = Kind("disk", "The disk is below its limit again.")
# A recorder that ends is followed by another within seconds.
STOPPED = Kind("stopped", "It runs again.", holds_seconds=30)
# The recorder says how they are every 15 s; after a lost connection they are known again by then.
BOOKS = Kind("books", "Every order book that is wanted is watched.", holds_seconds=30)
# Days that a backfill has brought are archived in the next night, like those that were missed.
ARCHIVE = Kind("archive", "Every day is archived that should be.", holds_seconds=26 * 3600)
DELIVERY = Kind("delivery", "Nothing waits for this channel any more.")

KINDS = {
    kind.name: kind
    for kind in (
        STALE,
        GAP,
        CHECK,
        RUN,
        REJECTED,
        DISK,
        STOPPED,
        BOOKS,
        ARCHIVE,
        DELIVERY,
    )
}
