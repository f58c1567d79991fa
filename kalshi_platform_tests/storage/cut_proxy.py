"""A Postgres server that answers no more: a socket before the real one, cut at chosen moments."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

Cut = Literal["before", "after"]
# ReadyForQuery, outside a transaction: what was asked is committed.
_READY = b"Z\x00\x00\x00\x05I"


class CutProxy:
    """Passes bytes on until a cut is due.

    `before`: the question never reaches the server. `after`: the server answers (so it has
    committed), and the answer never arrives.
    """

    def __init__(self, target: Path, mark: bytes) -> None:
        self.target = target
        self.mark = mark  # only questions with these bytes are cut
        self.due: list[Cut] = []
        self.done: list[Cut] = []
        self.refusing = False
        self._open: set[asyncio.StreamWriter] = set()

    def refuse(self) -> None:
        """Cut all connections and take none, until `accept`."""
        self.refusing = True
        for writer in self._open:
            writer.close()

    def accept(self) -> None:
        self.refusing = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.close()
            return
        behind_reader, behind_writer = await asyncio.open_unix_connection(str(self.target))
        self._open |= {writer, behind_writer}
        losing = asyncio.Event()
        answers = asyncio.create_task(_answers(behind_reader, writer, losing))
        try:
            while data := await reader.read(65_536):
                cut = self.due.pop() if self.due and self.mark in data else None
                if cut != "before":
                    if cut == "after":
                        losing.set()
                    behind_writer.write(data)
                if cut == "after":
                    await answers
                if cut:
                    self.done.append(cut)
                    return
        except ConnectionError:
            pass
        finally:
            answers.cancel()
            for end in (writer, behind_writer):
                self._open.discard(end)
                end.close()


async def _answers(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event
) -> None:
    """Pass answers on; when losing, keep one back, and end when it is whole."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            if not losing.is_set():
                writer.write(data)
            elif data.endswith(_READY):
                return
    writer.close()


@asynccontextmanager
async def cut_proxy(socket_folder: Path, folder: Path, mark: bytes) -> AsyncIterator[CutProxy]:
    """A proxy listening in `folder` before the server of `socket_folder`."""
    name = ".s.PGSQL.5432"
    proxy = CutProxy(socket_folder / name, mark)
    server = await asyncio.start_unix_server(proxy.serve, str(folder / name))
    try:
        yield proxy
    finally:
        server.close()
        proxy.refuse()
