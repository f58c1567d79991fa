"""What counts as a word: whatever the API lets through, the database finds words in."""

import sys
import unicodedata

import pytest
from pydantic import TypeAdapter, ValidationError

from api.inputs import Search
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.tables import words_of
from kalshi_platform_tests.api.asking import ask_list
from kalshi_platform_tests.api.reference_rows import event, market, put, series

_SEARCH: TypeAdapter[str] = TypeAdapter(Search)
_WORDLESS = ["²", "½ ①", "٣", "৪", "…", "_", "%", "🎲", "´ ¨"]


def is_let_through(text: str) -> bool:
    try:
        _SEARCH.validate_python(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", ["markets", "events", "series"])
@pytest.mark.parametrize("text", _WORDLESS)
async def test_a_search_without_a_word_is_refused(asker, name, text):
    response = await asker.get(f"/{name}", params={"search": text})
    assert (response.status_code, response.json()["field"]) == (422, "search")


def test_whatever_character_is_let_through_makes_a_word(database):
    # Of no words, each row has all: a search that lost its words would find everything.
    characters = [
        character
        for character in map(chr, range(0x20, sys.maxunicode + 1))
        if unicodedata.category(character) != "Cs" and is_let_through(character)
    ]
    assert len(characters) > 100_000
    with connect(database) as connection:
        rows = connection.execute(
            f"SELECT text, {words_of('text')} FROM unnest(%s::text[]) AS text".encode(),
            [characters],
        ).fetchall()
    assert [character for character, words in rows if not words] == []


async def test_what_is_no_word_does_not_widen_a_search(client, database):
    put(
        database,
        series(title="Rain²"),
        event(title="Rain ½ ①"),
        market(title="Rain ٣"),
        market("KX-2", title="Snow ٣"),
    )
    for name, count in {"markets": 1, "events": 1, "series": 1}.items():
        assert len((await ask_list(client, name, search="rain ² ½ ٣"))["data"]) == count
