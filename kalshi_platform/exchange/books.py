"""Order books as two threads speak of them: which are wanted, and what has become of them."""

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class BookReport(NamedTuple):
    """What has become of the books that are wanted."""

    connected: bool = False
    watched: frozenset[str] = frozenset()
    """Their snapshot has come since anything was lost."""
    refused: Mapping[str, str] = MappingProxyType({})
    """Why, by ticker: not to be had just now, asked for again by and by."""


class Books:
    """Hands what is wanted to a stream in another thread, and back what has become of it.

    Each attribute is replaced whole by one side and read by the other.
    """

    def __init__(self, *, use_yes_price: bool = False) -> None:
        self.use_yes_price = use_yes_price
        """Whether no-side prices are asked for in terms of yes."""
        self.wanted: tuple[str, ...] = ()
        """Tickers, each once, the most wanted first."""
        self.doubted: deque[str] = deque()
        """Tickers whose book is of no use to the reader: a snapshot of each is asked for."""
        self.outdated: deque[str] = deque()
        """Tickers whose last snapshot is old: a fresh one of each is asked for."""
        self.report = BookReport()
