"""The setting KALSHI_BOOKS."""

import pytest

from kalshi_platform.ingest.book_choice import BookChoice


@pytest.mark.parametrize(
    ("words", "choice"),
    [
        ("busiest:20", BookChoice(busiest=20)),
        ("none", BookChoice()),
        (" None ", BookChoice()),
        ("busiest:0", BookChoice()),
        (
            "KXFED-27DEC-T3.50, series:KXBTC15M ,busiest:5,KXA_b-1,series:KXETH,KXA_b-1,",
            BookChoice(("KXFED-27DEC-T3.50", "KXA_b-1"), ("KXBTC15M", "KXETH"), 5),
        ),
    ],
)
def test_the_words_say_which_books(words, choice):
    assert BookChoice.parse(words) == choice


@pytest.mark.parametrize(
    "words",
    [
        "", " , ", "busiest", "busiest:", "busiest:many", "busiest:-3", "busiest:3.5", "series:",
        "serie:KXFED", "busiest:3,busiest:4", "none,busiest:3", "KX FED", "series:KX FED", "*",
        "busiest:99999999", "busiest:٣", "KXFED;DROP",
    ],
)  # fmt: skip
def test_other_words_are_refused_with_what_they_should_be(words):
    with pytest.raises(ValueError, match=r"busiest:N .* series:TICKER .* or none"):
        BookChoice.parse(words)
