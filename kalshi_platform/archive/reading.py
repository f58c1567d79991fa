"""Rows of one market out of archived days: what a page needs of a file, and no more.

A file is sorted by market, then as pages are; its row groups are small and say which markets and
times they hold. A reader decodes the few groups that can hold a row and keeps the last ones it
used. pyarrow is imported with the first archived day that somebody asks for.

Nothing is believed of a file before its size, its hash (of files within reach: see HASHED_BYTES),
its number of rows and the order of the rows it gives have been found as they were written down;
pages of a file carry checksums of their own.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

if TYPE_CHECKING:
    from kalshi_platform.archive.row_groups import File, RowGroup
    from kalshi_platform.archive.store import Store

CACHE_BYTES = 128 << 20
"""Decoded row groups that are kept; a trade takes about 50 bytes, a quote about 100."""
FOOTER_BYTES = 32 << 20
"""Footers that are kept."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class ArchivedFile(NamedTuple):
    """A day of a table as `archives` describes it."""

    table: str
    day: date
    path: str
    rows: int
    bytes: int
    sha256: str


class ArchiveUnreadable(Exception):
    """A file of the archive is not there, damaged, or not what was archived."""

    def __init__(self, file: ArchivedFile, reason: str) -> None:
        super().__init__(f"{file.path}: {reason}")
        self.file = file
        self.reason = reason


class ArchiveReader:
    """Reads files of one archive; used by several threads at once.

    Args:
        url: the folder or URL that paths of files are below.
        cache_bytes: decoded rows that are kept in memory.
    """

    def __init__(self, url: str, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._url = url
        self._store: Store | None = None
        self._opening = threading.Lock()
        self._files: _Kept[File] = _Kept(FOOTER_BYTES)
        self._groups: _Kept[RowGroup] = _Kept(cache_bytes)

    def rows(
        self,
        files: Sequence[ArchivedFile],
        market_ticker: str,
        columns: Sequence[str],
        *,
        start: datetime | None,
        end: datetime | None,
        after: Sequence[Any] = (),
        limit: int,
        until: float = inf,
    ) -> dict[str, str]:
        """The first rows of a market in `[start, end)` that follow `after`, in the order of pages.

        Args:
            files: days of one table, oldest first.
            columns: of the table, always the same ones: decoded rows are kept with these.
            after: time and further columns of the order of the row before, or nothing.
            until: when to give up (monotonic).

        Returns:
            At most `limit` rows by column, each an array in PostgreSQL's text form.

        Raises:
            ArchiveUnreadable: a file that is needed cannot be read, or is not what was archived.
            TimeoutError: it took too long.
        """
        from kalshi_platform.archive.row_groups import array_literals

        first = None if start is None else _micros(start)
        if after:
            first = _micros(after[0])
        stop = None if end is None else _micros(end)
        key = tuple(_order_key(value) for value in after[1:])
        pieces: list[Any] = []
        wanted = limit
        for file in files:
            for group, begins, ends in self._runs(file, market_ticker, columns, first, stop, until):
                if after:
                    begins = group.behind(begins, ends, _micros(after[0]), key)
                ends = min(ends, begins + wanted)
                if begins < ends:
                    pieces.append(group.table.slice(begins, ends - begins))
                    wanted -= ends - begins
                if wanted == 0:
                    return array_literals(pieces, columns)
        return array_literals(pieces, columns)

    def newest_at(
        self,
        files: Sequence[ArchivedFile],
        market_ticker: str,
        columns: Sequence[str],
        at: datetime,
        *,
        until: float = inf,
    ) -> datetime | None:
        """The time of a market's last row at or before `at`; None where there is none.

        Args:
            files, columns, until: as for `rows`.

        Raises:
            ArchiveUnreadable, TimeoutError: as `rows`.
        """
        stop = _micros(at) + 1
        for file in reversed(files):
            newest = None
            for group, begins, ends in self._runs(file, market_ticker, columns, None, stop, until):
                if begins < ends:
                    newest = int(group.times[ends - 1])
            if newest is not None:
                return _EPOCH + newest * _MICROSECOND
        return None

    def oldest_at(
        self,
        files: Sequence[ArchivedFile],
        market_ticker: str,
        columns: Sequence[str],
        *,
        until: float = inf,
    ) -> datetime | None:
        """The time of a market's first row; None where there is none. As `newest_at` else."""
        for file in files:
            for group, begins, ends in self._runs(file, market_ticker, columns, None, None, until):
                if begins < ends:
                    return _EPOCH + int(group.times[begins]) * _MICROSECOND
        return None

    def _runs(
        self,
        file: ArchivedFile,
        market_ticker: str,
        columns: Sequence[str],
        start: int | None,
        stop: int | None,
        until: float,
    ) -> "Iterator[tuple[RowGroup, int, int]]":
        """Yield each row group that may hold such rows, and which of its rows they are."""
        ticker = market_ticker.encode()
        opened = self._opened(file)
        for number in opened.groups_of(ticker, start, stop):
            if time.monotonic() > until:
                raise TimeoutError
            group = self._groups.get(
                (file.path, file.sha256, number),
                lambda number=number: opened.read(number, columns),  # type: ignore[misc]
            )
            yield (group, *group.rows_of(ticker, start, stop))

    def _opened(self, file: ArchivedFile) -> "File":
        from kalshi_platform.archive.row_groups import open_file
        from kalshi_platform.archive.store import Store

        with self._opening:
            store = self._store = self._store or Store(self._url)
        return self._files.get((file.path, file.sha256), lambda: open_file(store, file))


class _HasSize(Protocol):
    size: int


_Value = TypeVar("_Value", bound=_HasSize)


class _Kept(Generic[_Value]):
    """Values by key: made once however many threads ask, the least recently used given up first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._held = 0
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], _Value]) -> _Value:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:
                    return self._values[key]
            try:
                value = make()
                with self._lock:
                    self._keep(key, value)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return value

    def _keep(self, key: Hashable, value: _Value) -> None:
        if key not in self._values:
            self._held += value.size
        self._values[key] = value
        # The newest stays, however large: it is in use.
        while self._held > self._most and len(self._values) > 1:
            _, given_up = self._values.popitem(last=False)
            self._held -= given_up.size


def _micros(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


def _order_key(value: Any) -> tuple[int, Any]:
    """Compares as PostgreSQL does with nulls last; a UUID by its bytes."""
    if value is None:
        return (1, 0)
    return (0, value.bytes if isinstance(value, UUID) else value)
