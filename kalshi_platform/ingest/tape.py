"""The tape: every frame as received, on disk, before anything else happens to it.

A segment is a file of independent zstd frames of JSON lines, readable with `zstdcat`. A line is

    {"received_at_ns": …, "connection": …, "frame": {…}}          a frame, byte for byte
    {"received_at_ns": …, "connection": …, "text": "…"}           a frame that is not JSON
    {"received_at_ns": …, "connection": …, "event": "open", …}    something the connection did

A position is (segment, offset of a zstd frame): what was written before it is complete. Each zstd
frame is written by one call; a crash can tear the last one of a segment, and a writer never
continues an old segment, so a torn tail is seen and left behind.
"""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import zstandard

_SUFFIX = ".ndjson.zst"
_LEVEL = 1  # as small as level 3 on these messages, in half the time
_READ_BYTES = 1 << 20
_SETTLED_NS = 1_000_000_000
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class TapeFull(RuntimeError):
    """The disk takes no more; what was written before is complete."""


class TapeDamaged(RuntimeError):
    """A zstd frame in the middle of a segment cannot be read."""


class Position(NamedTuple):
    """A place on the tape."""

    segment: int
    offset: int


class Block(NamedTuple):
    """The lines of one zstd frame, and where it lies."""

    start: Position
    end: Position
    data: bytes


def segments(folder: Path) -> list[int]:
    """The segments of a tape, oldest first; a segment is named by the Unix ms of its opening."""
    return sorted(int(path.name.removesuffix(_SUFFIX)) for path in folder.glob(f"*{_SUFFIX}"))


def segment_path(folder: Path, segment: int) -> Path:
    return folder / f"{segment:013d}{_SUFFIX}"


class TapeWriter:
    """Appends blocks of lines; opens a new segment every `segment_seconds`."""

    def __init__(self, folder: Path, segment_seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_seconds = segment_seconds
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._file: int | None = None
        self._offset = 0
        self._opened_at = 0.0
        self.broken = False
        """A write has failed: what would follow it must not be written either."""

    def write(self, lines: bytes) -> None:
        """Write whole lines as one zstd frame and hand them to the disk.

        Raises:
            TapeFull: the disk is full; the segment ends with its last whole frame.
        """
        assert not self.broken, "nothing follows a failed write"
        if not lines:
            return
        block = self._compressor.compress(lines)
        try:
            if self._file is None or time.monotonic() - self._opened_at > self._segment_seconds:
                self._open_segment()
            self._append(block)
        except OSError as error:
            self.broken = True
            if error.errno in _DISK_FULL:
                raise TapeFull(
                    f"The disk under {self._folder} is full: recording has stopped. "
                    "Free some space, or move the home folder (KALSHI_HOME), and start again; "
                    "what was missed will be healed."
                ) from error
            raise
        self._offset += len(block)

    def _append(self, block: bytes) -> None:
        assert self._file is not None, "a segment is open"
        try:
            if os.write(self._file, block) != len(block):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._file)
        except OSError:
            # Should this fail too, the torn block is the last of its segment, which readers expect.
            os.ftruncate(self._file, self._offset)
            raise

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open_segment(self) -> None:
        self.close()
        newest = max(segments(self._folder), default=0)
        segment = max(int(time.time() * 1000), newest + 1)
        path = segment_path(self._folder, segment)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._offset = 0
        self._opened_at = time.monotonic()


class TapeReader:
    """Follows a tape from a position, over the ends of its segments."""

    def __init__(self, folder: Path, position: Position | None = None) -> None:
        self._folder = folder
        self._position = position
        self._file: BinaryIO | None = None
        self._open_segment: int | None = None
        self._segments: list[int] = []
        self._listed_at = -1
        self._damage: TapeDamaged | None = None

    def blocks(self, max_bytes: int) -> list[Block]:
        """The next complete blocks, about `max_bytes` of lines at most; empty when caught up.

        Raises:
            TapeDamaged: the next block cannot be read although newer segments exist; the reader
                has moved on to the next segment. Blocks before it were returned first.
        """
        if self._damage is not None:
            damage, self._damage = self._damage, None
            raise damage
        found: list[Block] = []
        size = 0
        while size < max_bytes:
            try:
                block = self._next_block()
            except TapeDamaged as error:
                if not found:
                    raise
                self._damage = error
                break
            if block is None:
                break
            found.append(block)
            size += len(block.data)
        return found

    def backlog_bytes(self) -> int:
        """Compressed bytes on the tape after the reader's position."""
        total = 0
        for segment in segments(self._folder):
            if self._position is None or segment >= self._position.segment:
                total += segment_path(self._folder, segment).stat().st_size
        return total - (self._position.offset if self._position else 0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._open_segment = None

    def _next_block(self) -> Block | None:
        if self._position is not None and self._position.segment in self._segments:
            block = self._read_block(self._position)
            if block is not None:
                return self._advance(block)
        while True:
            # Listed before reading once more: a newer segment seen now means that the bytes read
            # after are the last that the current one will ever have.
            known = self._list_segments()
            if self._position is None or self._position.segment not in known:
                after = -1 if self._position is None else self._position.segment
                newer = [segment for segment in known if segment > after]
                if not newer:
                    return None
                self._position = Position(newer[0], 0)
            newer = [segment for segment in known if segment > self._position.segment]
            block = self._read_block(self._position, newer[0] if newer else None)
            if block is not None:
                return self._advance(block)
            if not newer:
                return None
            self._position = Position(newer[0], 0)

    def _advance(self, block: Block) -> Block:
        self._position = block.end
        return block

    def _list_segments(self) -> list[int]:
        """The segments; read again only when the folder has changed since, or may have."""
        changed_at = self._folder.stat().st_mtime_ns
        # Two changes within a tick of the file system's clock share a time.
        settled = time.time_ns() - changed_at > _SETTLED_NS
        if changed_at != self._listed_at or not settled:
            self._segments = segments(self._folder)
            self._listed_at = changed_at
        return self._segments

    def _read_block(self, position: Position, newer: int | None = None) -> Block | None:
        """The block at `position`, or None where it is not (wholly) there.

        Raises:
            TapeDamaged: it is there and cannot be read; the reader goes on with segment `newer`.
        """
        if self._open_segment != position.segment:
            self.close()
            self._file = segment_path(self._folder, position.segment).open("rb")
            self._open_segment = position.segment
        assert self._file is not None, "the segment is open"
        self._file.seek(position.offset)
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        parts: list[bytes] = []
        read = 0
        while not decompressor.eof:
            chunk = self._file.read(_READ_BYTES)
            if not chunk:
                return None
            try:
                parts.append(decompressor.decompress(chunk))
            except zstandard.ZstdError as error:
                if newer is None:
                    # Nothing to go on with yet; without a writer there never will be.
                    return None
                self._position = Position(newer, 0)
                raise TapeDamaged(
                    f"segment {position.segment} at byte {position.offset}: {error}"
                ) from error
            read += len(chunk)
        end = position.offset + read - len(decompressor.unused_data)
        return Block(position, Position(position.segment, end), b"".join(parts))


def read_tape(folder: Path, segment: int | None = None) -> Iterator[bytes]:
    """Every line of a tape (or of one segment) in order, without its newline."""
    reader = TapeReader(folder, None if segment is None else Position(segment, 0))
    while blocks := reader.blocks(_READ_BYTES):
        for block in blocks:
            if segment is not None and block.start.segment != segment:
                reader.close()
                return
            yield from block.data.removesuffix(b"\n").split(b"\n")
    reader.close()
