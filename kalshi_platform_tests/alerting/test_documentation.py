"""Every kind of alert has its line in the operator's manual, with the command that helps."""

import re
from pathlib import Path

import pytest

from kalshi_platform.alerting.kinds import KINDS
from kalshi_platform.settings import Settings

MANUAL = Path(__file__).parents[2] / "docs" / "operations.md"


def section() -> str:
    text = MANUAL.read_text()
    return text[text.index("\n## Alerts\n") :].split("\n## ")[1]


def rows() -> dict[str, list[str]]:
    """The lines of the table of kinds: name, and the four cells beside it."""
    lines = re.findall(r"^\| `(\w+)` \|(.*)\|$", section(), re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split(" | ")] for name, cells in lines}


def test_every_kind_has_its_line_and_no_other_has():
    assert list(rows()) == list(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_line_says_when_it_is_told_when_it_is_over_and_what_to_do(name):
    cells = rows()[name]
    assert len(cells) == 3
    assert all(len(cell) > 5 for cell in cells)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_how_long_it_must_be_gone_is_told(kind):
    _, over, _ = rows()[kind.name]
    if kind.gone_seconds and kind.name not in ("rejected", "run", "archive"):
        assert f"{kind.gone_seconds:g} s" in over
    assert kind.gone_seconds in (0, 15)


def test_every_setting_is_named():
    named = section()
    for field in Settings.model_fields:
        if field.startswith("alert_") or field == "dagster_url":
            assert f"`KALSHI_{field.upper()}`" in named, field
