"""COPY BINARY to Arrow and back, many rows at a time.

The format: a 2-byte field count, then per field a 4-byte length (-1 for null) and its bytes, all
big-endian (PostgreSQL manual, COPY, "Binary Format"). Columns of fixed width that are never null
come first, so that they lie at the same place in every row and are read at once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import sql
from psycopg.abc import Buffer

from kalshi_platform.archive.layout import Field, fields_of
from kalshi_platform.storage.bulk import POSTGRES_EPOCH_MICROS

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]

_HEADER_BYTES = 19
_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_TRAILER = b"\xff\xff"
_JSON_VERSION = b"\x01"
_POSTGRES_EPOCH_DAYS = POSTGRES_EPOCH_MICROS // 86_400_000_000
# Bytes of rows that are decoded at once: numpy is busy for long, and memory stays small.
_CHUNK_BYTES = 8 << 20
_INT4_OID, _INT8_OID = 23, 20


def copy_out(
    connection: psycopg.Connection[Any], query: sql.Composable, rows_per_group: int
) -> Iterator[list[list[bytes]]]:
    """Rows of a query as COPY BINARY brings them, in groups of chunks of rows.

    Raises:
        psycopg.Error: as the server says.
    """
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT BINARY)").format(query)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        group: list[list[bytes]] = []
        chunk: list[bytes] = []
        room, size = rows_per_group, 0
        for row in _rows(copy):
            chunk.append(row)
            size += len(row)
            room -= 1
            if not room or size >= _CHUNK_BYTES:
                group.append(chunk)
                chunk, size = [], 0
                if not room:
                    yield group
                    group, room = [], rows_per_group
        if chunk:
            group.append(chunk)
        if group:
            yield group


def _rows(copy: Iterable[Buffer]) -> Iterator[bytes]:
    """Every row, without header and trailer; libpq hands over each in one message."""
    # Copied at once: the garbage collector follows views, and bytes it does not.
    messages = map(bytes, copy)
    # The header comes with the first row, or with the trailer where there is none.
    for row in chain((next(messages)[_HEADER_BYTES:],), messages):
        if len(row) != len(_TRAILER):
            yield row


def to_arrow(table: str, schema: pa.Schema, rows: Sequence[bytes]) -> pa.RecordBatch:
    """Rows of COPY BINARY, in the order of `fields_of`, as a batch in the order of the schema."""
    fields = fields_of(table)
    data = b"".join(rows)
    buffer = np.frombuffer(data, np.uint8)
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    starts = np.cumsum(sizes) - sizes
    arrays: dict[str, pa.Array] = {}
    fixed = [field for field in fields if _is_fixed(field)]
    head = _windows(buffer, 2 + sum(4 + (field.width or 0) for field in fixed))[starts]
    assert int.from_bytes(head[0, :2].tobytes()) == len(fields), "COPY gives what it was asked for"
    place = 2
    for field in fixed:
        width = field.width or 0
        arrays[field.name] = _fixed(field, head[:, place + 4 : place + 4 + width], None)
        place += 4 + width
    at = starts + place
    for field in fields[len(fixed) :]:
        lengths = _windows(buffer, 4)[at].view(">i4")[:, 0].astype(np.int64)
        at += 4
        ends = at + np.maximum(lengths, 0)
        arrays[field.name] = _loose(field, data, buffer, at, ends, lengths)
        at = ends
    assert (at == starts + sizes).all(), "every byte of a row belongs to a field"
    return pa.record_batch([arrays[name] for name in schema.names], schema=schema)


def to_copy(table: str, batch: pa.RecordBatch) -> bytes:
    """The rows of a batch as COPY BINARY takes them, in the order of `fields_of`; no header."""
    fields = fields_of(table)
    rows = batch.num_rows
    fixed = [field for field in fields if _is_fixed(field)]
    parts: list[Bytes] = [_repeated(len(fields).to_bytes(2), rows)]
    for field in fixed:
        parts += [
            _repeated((field.width or 0).to_bytes(4), rows),
            _packed(field, batch[field.name]),
        ]
    pieces: list[Iterable[bytes]] = [_rows_of(np.concatenate(parts, axis=1))]
    for field in fields[len(fixed) :]:
        pieces += _encoders(field)(field, batch[field.name])
    return b"".join(chain.from_iterable(zip(*pieces, strict=True)))


def copy_in(
    connection: psycopg.Connection[Any], target: str, table: str, batches: Iterable[pa.RecordBatch]
) -> int:
    """COPY batches of `table` into the table `target`; returns their rows."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(target), column_list(table)
    )
    rows = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(_HEADER)
        for batch in batches:
            copy.write(to_copy(table, batch))
            rows += batch.num_rows
        copy.write(_TRAILER)
    return rows


def column_list(table: str) -> sql.Composed:
    """The columns in the order of `fields_of`."""
    return sql.SQL(", ").join(sql.Identifier(field.name) for field in fields_of(table))


def _is_fixed(field: Field) -> bool:
    return field.width is not None and not field.nullable


def _windows(buffer: Bytes, width: int) -> Bytes:
    """A view whose row `i` is the `width` bytes from `i` on."""
    return np.lib.stride_tricks.sliding_window_view(buffer, width)


def _fixed(field: Field, cells: Bytes, valid: NDArray[np.bool_] | None) -> pa.Array:
    """An array of fixed width from its big-endian bytes, one row each."""
    cells = np.ascontiguousarray(cells)
    mask = None if valid is None else ~valid
    if pa.types.is_fixed_size_binary(field.arrow):
        assert valid is None, "no uuid is null"
        return pa.Array.from_buffers(field.arrow, len(cells), [None, pa.py_buffer(cells)])
    if pa.types.is_boolean(field.arrow):
        return pa.array(cells[:, 0] != 0, mask=mask)
    numbers = cells.view(f">i{field.width}")[:, 0].astype(f"=i{field.width}")
    numbers += _epoch(field)
    return pa.array(numbers, mask=mask).view(field.arrow)


def _epoch(field: Field) -> int:
    """What PostgreSQL's zero is in Arrow."""
    if pa.types.is_timestamp(field.arrow):
        return POSTGRES_EPOCH_MICROS
    return _POSTGRES_EPOCH_DAYS if pa.types.is_date32(field.arrow) else 0


def _loose(
    field: Field, data: bytes, buffer: Bytes, at: Places, ends: Places, lengths: Places
) -> pa.Array:
    valid = lengths >= 0
    if field.width is not None:
        # Where it is null some other bytes are read, and not used.
        last = len(buffer) - field.width
        cells = _windows(buffer, field.width)[np.minimum(at, last)]
        return _fixed(field, cells, valid)
    if pa.types.is_list(field.arrow):
        return _lists(field, data, at, ends)
    begins = at + valid if field.is_json else at
    texts = b"".join(map(data.__getitem__, map(slice, begins.tolist(), ends.tolist())))
    offsets = np.zeros(len(at) + 1, np.int32)
    np.cumsum(ends - begins, out=offsets[1:])
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [bitmap, pa.py_buffer(offsets), pa.py_buffer(texts)]
    return pa.Array.from_buffers(field.arrow, len(at), buffers)


def _lists(field: Field, data: bytes, at: Places, ends: Places) -> pa.Array:
    width = field.arrow.value_type.bit_width // 8
    element = np.dtype([("length", ">i4"), ("value", f">i{width}")])
    parts = []
    for begin, end in zip(at.tolist(), ends.tolist(), strict=True):
        # Dimensions, flags, type, then size and lower bound of the one dimension.
        assert end > begin and not data[begin + 7], "no list is null, and none holds a null"
        count = int.from_bytes(data[begin + 12 : begin + 16]) if data[begin + 3] else 0
        parts.append(np.frombuffer(data, element, count, begin + 20 if count else begin)["value"])
    offsets = np.zeros(len(parts) + 1, np.int32)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    values = np.concatenate(parts).astype(f"=i{width}")
    return pa.ListArray.from_arrays(offsets, pa.array(values), type=field.arrow)


def _packed(field: Field, array: pa.Array) -> Bytes:
    """Big-endian bytes of an array of fixed width, one row each; those of nulls mean nothing."""
    width = field.width or 0
    if pa.types.is_fixed_size_binary(field.arrow):
        whole = np.frombuffer(array.buffers()[1], np.uint8)
        return whole.reshape(-1, width)[array.offset : array.offset + len(array)]
    if pa.types.is_boolean(field.arrow):
        filled = array.fill_null(False) if array.null_count else array
        return np.asarray(filled.to_numpy(zero_copy_only=False), np.uint8).reshape(-1, 1)
    numbers = array.view(pa.int64() if width == 8 else pa.int32())
    filled = numbers.fill_null(0) if numbers.null_count else numbers
    shifted = filled.to_numpy(zero_copy_only=False) - _epoch(field)
    cells: Bytes = shifted.astype(f">i{width}").view(np.uint8).reshape(-1, width)
    return cells


Encoder = Callable[[Field, pa.Array], list[Iterable[bytes]]]


def _encoders(field: Field) -> Encoder:
    if pa.types.is_list(field.arrow):
        return _encode_lists
    return _encode_texts if field.width is None else _encode_nullable


def _encode_nullable(field: Field, array: pa.Array) -> list[Iterable[bytes]]:
    values = _rows_of(
        np.concatenate(
            [_repeated((field.width or 0).to_bytes(4), len(array)), _packed(field, array)], axis=1
        )
    )
    if not array.null_count:
        return [values]
    null = (-1).to_bytes(4, signed=True)
    valid = array.is_valid().to_pylist()
    return [[value if held else null for value, held in zip(values, valid, strict=True)]]


def _encode_texts(field: Field, array: pa.Array) -> list[Iterable[bytes]]:
    version = len(_JSON_VERSION) if field.is_json else 0
    _, offset_buffer, text_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(offsets) + version
    if array.null_count:
        lengths[array.is_null().to_numpy(zero_copy_only=False)] = -1
    texts = b"" if text_buffer is None else text_buffer.to_pybytes()
    bounds = offsets.tolist()
    values = map(texts.__getitem__, map(slice, bounds[:-1], bounds[1:]))
    prefix = [repeat(_JSON_VERSION, len(array))] if version else []
    assert not (version and array.null_count), "no JSON document is null"
    return [_rows_of(lengths.astype(">i4").view(np.uint8).reshape(-1, 4)), *prefix, values]


def _encode_lists(field: Field, array: pa.Array) -> list[Iterable[bytes]]:
    width = field.arrow.value_type.bit_width // 8
    oid = (_INT8_OID if width == 8 else _INT4_OID).to_bytes(4)
    element = np.dtype([("length", ">i4"), ("value", f">i{width}")])
    pieces = []
    for values in array:
        numbers = values.values.to_numpy(zero_copy_only=False)
        cells = np.empty(len(numbers), element)
        cells["length"], cells["value"] = width, numbers
        some = len(numbers) > 0
        one = (1).to_bytes(4)
        size = one + bytes(4) + oid + len(numbers).to_bytes(4) + one + cells.tobytes()
        body = size if some else bytes(8) + oid
        pieces.append(len(body).to_bytes(4) + body)
    return [pieces]


def _repeated(piece: bytes, rows: int) -> Bytes:
    return np.broadcast_to(np.frombuffer(piece, np.uint8), (rows, len(piece)))


def _rows_of(cells: Bytes) -> Sequence[bytes]:
    """The rows of a table of bytes."""
    data, width = np.ascontiguousarray(cells).tobytes(), cells.shape[1]
    return [data[at : at + width] for at in range(0, len(data), width)]
