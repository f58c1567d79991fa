"""Archived files opened, checked and decoded, one row group at a time; needs pyarrow."""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet as pq
from pyarrow.fs import LocalFileSystem

from kalshi_platform.archive.layout import SORTED_BY
from kalshi_platform.archive.reading import ArchivedFile, ArchiveUnreadable
from kalshi_platform.archive.store import Store

HASHED_BYTES = 64 << 20
"""A larger file is hashed only where it lies on a disk of ours, not if it had to be fetched."""

_CHUNK = 4 << 20
# Of the memory that a footer takes when it is parsed; measured on files of 10 to 14 columns.
_PARSED_FOOTER = 6
_FAULTS = (OSError, pa.ArrowException, KeyError, ValueError)


def open_file(store: Store, file: ArchivedFile) -> "File":
    """The file's footer, its content checked.

    Raises:
        ArchiveUnreadable: it is not there, or not what was archived.
    """
    try:
        with store.open(file.path) as source:
            if source.size() != file.bytes:
                raise ArchiveUnreadable(
                    file, f"has {source.size():,} bytes instead of {file.bytes:,}"
                )
            if isinstance(store.filesystem, LocalFileSystem) or file.bytes <= HASHED_BYTES:
                _compare_hash(file, source)
            return File(store, file, pq.read_metadata(source))
    except _FAULTS as error:
        raise ArchiveUnreadable(file, _words(error)) from error


class File:
    """One file: which row groups hold which markets and times."""

    def __init__(self, store: Store, file: ArchivedFile, metadata: pq.FileMetaData) -> None:
        if metadata.num_rows != file.rows:
            raise ArchiveUnreadable(
                file, f"has {metadata.num_rows:,} rows instead of {file.rows:,}"
            )
        self._store, self._file, self._metadata = store, file, metadata
        self._groups = metadata.num_row_groups if file.rows else 0
        self._order = SORTED_BY[file.table]
        columns = [metadata.schema.column(number).name for number in range(metadata.num_columns)]
        ticker, time = (columns.index(name) for name in self._order[:2])
        self._tickers = list(self._bounds(ticker))
        self._times = list(self._bounds(time))
        self._last_tickers = [last for _, last in self._tickers]
        self.size = _PARSED_FOOTER * metadata.serialized_size

    def groups_of(self, ticker: bytes, start: int | None, stop: int | None) -> Iterator[int]:
        """The row groups that may hold rows of the market in `[start, stop)` (Unix micros)."""
        for number in range(bisect_left(self._last_tickers, ticker), len(self._tickers)):
            first, last = self._tickers[number]
            if first > ticker:
                return
            if first == last:
                earliest, latest = self._times[number]
                if stop is not None and earliest >= stop:
                    return
                if start is not None and latest < start:
                    continue
            yield number

    def read(self, number: int, columns: Sequence[str]) -> "RowGroup":
        """One row group, decoded.

        Raises:
            ArchiveUnreadable: it cannot be read, or is not in order.
        """
        try:
            with self._store.open(self._file.path) as source:
                parquet = pq.ParquetFile(
                    source,
                    metadata=self._metadata,
                    read_dictionary=[self._order[0]],
                    page_checksum_verification=True,
                )
                table = parquet.read_row_group(
                    number, columns=[self._order[0], *columns], use_threads=False
                )
            return RowGroup(table.unify_dictionaries().combine_chunks(), self._order)
        except _FAULTS as error:
            raise ArchiveUnreadable(self._file, _words(error)) from error

    def _bounds(self, column: int) -> Iterator[tuple[Any, Any]]:
        for number in range(self._groups):
            statistics = self._metadata.row_group(number).column(column).statistics
            if statistics is None or not statistics.has_min_max:
                raise ArchiveUnreadable(self._file, f"row group {number} has no statistics")
            yield statistics.min_raw, statistics.max_raw


class RowGroup:
    """Decoded rows of a file, in its order.

    Attributes:
        table: the columns that were asked for, without the market.
        times: Unix microseconds of each row.
        size: bytes in memory.
    """

    def __init__(self, table: pa.Table, order: Sequence[str]) -> None:
        tickers = _one(table.column(order[0]))
        self.times: npt.NDArray[np.int64] = _one(table.column(order[1])).cast(pa.int64()).to_numpy()
        self._identity = order[2:]
        markets = tickers.indices.to_numpy()
        begins = np.flatnonzero(markets[1:] != markets[:-1]) + 1
        self._begins: list[int] = [0, *begins.tolist(), len(markets)]
        # One ticker a run: a market whose rows lie apart would stand in two.
        self._markets = [
            ticker.encode()
            for ticker in tickers.dictionary.take(_at(tickers, self._begins)).to_pylist()
        ]
        falls = np.flatnonzero(self.times[1:] < self.times[:-1]) + 1
        if not np.isin(falls, begins).all() or any(
            one >= two for one, two in zip(self._markets, self._markets[1:], strict=False)
        ):
            raise ValueError("its rows are not in order")
        self.table = table.drop_columns([order[0]])
        self.size = self.table.nbytes + 100 * len(self._markets)

    def rows_of(self, ticker: bytes, start: int | None, stop: int | None) -> tuple[int, int]:
        """First and end of the market's rows in `[start, stop)` (Unix microseconds)."""
        run = bisect_left(self._markets, ticker)
        if run == len(self._markets) or self._markets[run] != ticker:
            return 0, 0
        begins, ends = self._begins[run], self._begins[run + 1]
        times = self.times[begins:ends]
        first = 0 if start is None else int(np.searchsorted(times, start))
        last = len(times) if stop is None else int(np.searchsorted(times, stop))
        return begins + first, begins + max(first, last)

    def behind(self, begins: int, ends: int, at: int, key: tuple[Any, ...]) -> int:
        """The first of the rows from `begins` on that follows the one of this time and key.

        Args:
            at: Unix microseconds; no row from `begins` on is older.
            key: for each further column of the order: (whether it is null, value).
        """
        ties = int(np.searchsorted(self.times[begins:ends], at, side="right"))
        same_time = self.table.slice(begins, ties)
        values = [same_time.column(name).to_pylist() for name in self._identity]
        keys = [
            tuple((1, 0) if value is None else (0, value) for value in row)
            for row in zip(*values, strict=True)
        ]
        return begins + bisect_right(keys, key)


def array_literals(pieces: Sequence[pa.Table], columns: Sequence[str]) -> dict[str, str]:
    """The rows of all pieces by column, as PostgreSQL writes arrays."""
    if not pieces:
        return dict.fromkeys(columns, "{}")
    table = pa.concat_tables(pieces)
    return {name: "{" + ",".join(_words_of(table.column(name))) + "}" for name in columns}


def _words_of(column: pa.ChunkedArray) -> Iterator[str] | list[str]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        instants = column.to_numpy().astype("datetime64[us]")
        return [f"{text}Z" for text in np.datetime_as_string(instants).tolist()]
    if pa.types.is_integer(kind) and column.null_count == 0:
        return map(str, column.to_numpy().tolist())
    return ["NULL" if value is None else _word(value) for value in column.to_pylist()]


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return '"{' + ",".join(map(str, value)) + '}"'
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _compare_hash(file: ArchivedFile, source: Any) -> None:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
    if digest.hexdigest() != file.sha256:
        raise ArchiveUnreadable(file, "its content is not what was archived (sha256)")
    source.seek(0)


def _one(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks else column.combine_chunks()


def _at(tickers: Any, begins: Sequence[int]) -> Any:
    return tickers.indices.take(pa.array(begins[:-1], pa.int64()))


def _words(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
