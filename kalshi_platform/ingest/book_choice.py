"""Which order books an operator wants, in words: the setting KALSHI_BOOKS."""

import re
from typing import NamedTuple

_TICKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WORDS = {"busiest", "series", "none"}
_HELP = (
    "it is a comma list of busiest:N (the N busiest markets), series:TICKER (its open markets) and"
    " market tickers, as in busiest:20,series:KXBTC15M; or none"
)


class BookChoice(NamedTuple):
    """Order books to watch; those named come first, the busiest last."""

    tickers: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    busiest: int = 0
    """How many of the busiest markets."""

    @classmethod
    def parse(cls, words: str) -> "BookChoice":
        """Read the setting, as in `busiest:20,series:KXBTC15M,KXFED-27DEC-T3.50`; or `none`.

        Raises:
            ValueError: it is something else; the sentence says what it should be.
        """
        tickers, series, busiest = [], [], None
        parts = [part.strip() for part in words.split(",") if part.strip()]
        if [part.lower() for part in parts] == ["none"]:
            return cls()
        if not parts:
            raise ValueError(_HELP)
        for part in parts:
            kind, colon, what = (piece.strip() for piece in part.partition(":"))
            if not colon and kind.lower() not in _WORDS and _TICKER.fullmatch(kind):
                tickers.append(kind)
            elif kind == "series" and _TICKER.fullmatch(what):
                series.append(what)
            elif kind == "busiest" and re.fullmatch("[0-9]{1,6}", what) and busiest is None:
                busiest = int(what)
            else:
                raise ValueError(f"{part!r} is none of its parts: {_HELP}")
        return cls(tuple(dict.fromkeys(tickers)), tuple(dict.fromkeys(series)), busiest or 0)
