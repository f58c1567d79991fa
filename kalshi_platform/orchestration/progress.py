"""How far long work is, in the run's log."""

from collections.abc import Callable

import dagster as dg

_LOG_EVERY = 0.1


def log_progress(log: dg.DagsterLogManager, sentence: str) -> Callable[[float], None]:
    """A function that is told the fraction done and logs it in steps of a tenth.

    Args:
        sentence: what is so far done: "of the day compared".
    """
    logged = 0.0

    def tell(fraction: float) -> None:
        nonlocal logged
        if fraction >= logged + _LOG_EVERY or fraction >= 1 > logged:
            logged = fraction
            log.info("%.0f %% %s", 100 * fraction, sentence)

    return tell
