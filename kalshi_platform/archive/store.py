"""Where the archive lies: a folder, or an object store by URL; whole files appear at once."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from pyarrow import fs

_READ_BYTES = 4 << 20
# Led by a dot: readers of Parquet folders pass over it.
_UNFINISHED = ".unfinished"


class Written(NamedTuple):
    """What a file that is not in its place yet holds."""

    size: int
    sha256: bytes


class HashingFile:
    """A file that is written from its start to its end, and hashed on the way."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self._stream.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._stream.flush()

    def tell(self) -> int:
        return self.size

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    @property
    def written(self) -> Written:
        return Written(self.size, self._hash.digest())


class Store:
    """The archive at a folder or URL: file://, s3://, gs://, whatever pyarrow knows.

    Raises:
        ValueError: the URL is none that pyarrow knows.
    """

    def __init__(self, url: str) -> None:
        if "://" in url:
            self.filesystem, self._root = fs.FileSystem.from_uri(url)
        else:
            self.filesystem, self._root = fs.LocalFileSystem(), str(Path(url).absolute())
        self.url = url
        self._is_local = isinstance(self.filesystem, fs.LocalFileSystem)

    def place(self, path: str) -> str:
        """The path as the file system knows it."""
        return f"{self._root.rstrip('/')}/{path}"

    def write(self, folder: str, fill: Callable[[BinaryIO], None]) -> Written:
        """Let `fill` write the folder's unfinished file, which no reader looks at.

        Raises:
            OSError: the store takes no more, or cannot be reached.
        """
        place = self.place(f"{folder}/{_UNFINISHED}")
        self.filesystem.create_dir(self.place(folder), recursive=True)
        with self.filesystem.open_output_stream(place, compression=None) as stream:
            file = HashingFile(stream)
            fill(cast("BinaryIO", file))
        if self._is_local:
            _hand_to_disk(place)
        return file.written

    def finish(self, folder: str, path: str) -> None:
        """Give the folder's unfinished file its name; it is then there whole, or not at all."""
        self.filesystem.move(self.place(f"{folder}/{_UNFINISHED}"), self.place(path))
        if self._is_local:
            _hand_to_disk(self.place(folder))

    def open(self, path: str) -> Any:
        """The file, for random reading.

        Raises:
            FileNotFoundError: it is not there.
        """
        return self.filesystem.open_input_file(self.place(path))

    def hash(self, path: str, on_read: Callable[[int], None] | None = None) -> Written:
        """Size and sha256 of the file as it lies there.

        Raises:
            FileNotFoundError: it is not there.
        """
        digest, size = hashlib.sha256(), 0
        with self.open(path) as file:
            while data := file.read(_READ_BYTES):
                digest.update(data)
                size += len(data)
                if on_read is not None:
                    on_read(len(data))
        return Written(size, digest.digest())

    def names(self, folder: str) -> Iterator[str]:
        """The files in the folder, unfinished ones included."""
        selector = fs.FileSelector(self.place(folder), allow_not_found=True)
        for info in self.filesystem.get_file_info(selector):
            if info.is_file:
                yield info.base_name

    def remove(self, path: str) -> None:
        self.filesystem.delete_file(self.place(path))


def _hand_to_disk(place: str) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
