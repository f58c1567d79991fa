"""The data dictionary is what the schema says."""

from pathlib import Path

from kalshi_platform.storage import tables
from kalshi_platform.storage.dictionary import FAMILIES, dictionary
from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.units import unit_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "data-dictionary.md"


def test_the_document_is_what_the_schema_says(database):
    with connect(database) as connection:
        assert DOCUMENT.read_text() == dictionary(connection), (
            "run: python -m kalshi_platform.storage.dictionary"
        )


def test_every_table_and_column_is_in_it():
    text = DOCUMENT.read_text()
    for table in tables.metadata.tables.values():
        _, found, rest = text.partition(f"### {table.name}\n")
        assert found, table.name
        section = rest.partition("\n#")[0]
        for column in table.columns:
            assert f"| `{column.name}` |" in section, f"{table.name}.{column.name}"


def test_every_table_has_a_sentence_and_one_place():
    named = [name for names in FAMILIES.values() for name in names]
    assert len(named) == len(set(named))
    assert set(named) <= set(tables.metadata.tables)
    assert [table.name for table in tables.metadata.tables.values() if not table.comment] == []


def test_the_longest_ending_says_the_unit():
    assert unit_of("notional_micro_centis") == ("millionths of a dollar × hundredths of a contract")
    assert unit_of("volume_centis") == "hundredths of a contract"
    assert unit_of("market_ticker") == ""
