"""Seeded dice: a hash as the source of everything that must come out the same twice.

Whatever the simulator makes up is a function of the seed and of a position (market, time), so
nothing has to be stored and any moment can be computed without the moments before it.
The mixer is splitmix64 (Steele, Lea, Flood 2014).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def hash_of(*parts: int) -> int:
    """One 64-bit word from integers; the same on every machine and in every process."""
    word = 0
    for part in parts:
        word = (word ^ (part & _MASK)) + _GOLDEN & _MASK
        word = (word ^ (word >> 30)) * _FIRST & _MASK
        word = (word ^ (word >> 27)) * _SECOND & _MASK
        word ^= word >> 31
    return word


@lru_cache(maxsize=1_024)
def text_seed(text: str) -> int:
    """A 64-bit word from a name (FNV-1a), for hashing names together with numbers."""
    word = 0xCBF29CE484222325
    for byte in text.encode():
        word = (word ^ byte) * 0x100000001B3 & _MASK
    return word


def hash_words(words: Words, also: Words | Integers | int = 0) -> Words:
    """The vector form of hash_of for two parts: hash_of(word, also) for each row."""
    mixed = _step(words)
    other = np.uint64(also & _MASK) if isinstance(also, int) else also.astype(np.uint64)
    return _step(mixed ^ other)


def _step(words: Words) -> Words:
    word = words + np.uint64(_GOLDEN)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(_FIRST)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(_SECOND)
    return word ^ (word >> np.uint64(31))


def uuid_text(high: int, low: int) -> str:
    """A uuid in its usual spelling; texts sort as the pair (high, low) does."""
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
