"""The numbers of one subscription: was any left out?"""

# A number that leaps further is believed once the next one follows it.
_LARGEST_LEAP = 10_000


class Sequence:
    """Follows the sequence numbers of one subscription, as far as to see that some are missing."""

    def __init__(self, last: int = 0) -> None:
        self._last = last
        self._suspect: int | None = None

    def skips(self, number: int) -> bool:
        """Take the next number; whether it leaves some out. A late or repeated one does not."""
        expected = self._last + 1
        if number == expected:
            self._last = number
            return False
        if number < expected:
            return False
        follows = self._suspect is not None and 0 < number - self._suspect <= _LARGEST_LEAP
        if number - expected > _LARGEST_LEAP and not follows:
            # A single wrong number must not make all that follow look late.
            self._suspect = number
        else:
            self._last, self._suspect = number, None
        return True
