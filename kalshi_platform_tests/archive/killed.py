"""A process that archives or drops a day and kills itself at a given step, hard.

`python -m kalshi_platform_tests.archive.killed WORK URL FOLDER DAY NOW STEP`: a step is one call
made in, or out of, the package of the archive; without a STEP it prints how many there are.
"""

import os
import signal
import sys
from datetime import date, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import kalshi_platform.archive
from kalshi_platform.archive.dropping import days_kept, drop_old_days
from kalshi_platform.archive.layout import SORTED_BY
from kalshi_platform.archive.restoring import restore_day
from kalshi_platform.archive.store import Store
from kalshi_platform.archive.writing import archive_day

_PACKAGE = str(Path(kalshi_platform.archive.__file__).parent)


class Countdown:
    """Counts the steps of this thread; kills the process at the one that is meant."""

    def __init__(self, last: int | None) -> None:
        self.steps = 0
        self._last = last

    def __call__(self, frame: FrameType, _event: str, _argument: Any) -> None:
        # Row by row there are too many; what happens to files and tables is elsewhere.
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE) and not name.endswith(("copying.py", "layout.py")):
            self.steps += 1
            if self.steps == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def main(work: str, url: str, folder: str, day: str, now: str, step: str | None = None) -> None:
    store, on = Store(folder), date.fromisoformat(day)
    countdown = Countdown(None if step is None else int(step))
    sys.setprofile(countdown)
    if work == "archive":
        for table in SORTED_BY:
            archive_day(url, store, table, on)
    elif work == "drop":
        drop_old_days(url, store, days_kept(5, 5, 5), now=datetime.fromisoformat(now))
    else:
        for table in SORTED_BY:
            restore_day(url, store, table, on)
    sys.setprofile(None)
    print(countdown.steps)


if __name__ == "__main__":
    main(*sys.argv[1:])
