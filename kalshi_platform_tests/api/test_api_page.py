"""docs/api.md: every `curl` on it runs, and answers in the shape that is printed below it."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform_tests.api.populated import TICKER, populate
from kalshi_platform_tests.api.serving import Served, served

_PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text()
_COMMANDS = re.findall(
    r"^```\n(curl .*?)^```\n(?:\n```\n(\{.*?)^```\n)?", _PAGE, re.MULTILINE | re.DOTALL
)
# What the page leaves out: further members of an object, or a text that is another each time.
_MORE = "…"


class Example(NamedTuple):
    """A command, and the answer or a record of it that is printed below, if one is."""

    command: str
    printed: dict[str, Any] | None


def _examples() -> list[Example]:
    return [
        Example(command.replace("\\\n", " "), _parsed(told) if told else None)
        for command, told in _COMMANDS
    ]


def _parsed(text: str) -> dict[str, Any]:
    """Printed JSON; where it goes on (`…`), the object has a member `…`."""
    value: dict[str, Any] = json.loads(
        re.sub(r'(?<!")…(?!")', f'"{_MORE}": null', text), parse_float=Decimal
    )
    return value


_EXAMPLES = _examples()


@pytest.fixture(scope="module")
def keyed(postgres: EmbeddedDatabase) -> tuple[str, str]:
    url = postgres.create_database("page", template="migrated")
    return url, populate(url)


@pytest.fixture(scope="module")
def api(keyed: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(keyed[0], tmp_path_factory.mktemp("page")) as running:
        yield running


def asked(api: Served, key: str, command: str) -> dict[str, Any]:
    """What the command prints, its address being that of our server."""
    command = command.replace("http://127.0.0.1:8000", api.url).replace("$KEY", key)
    words = shlex.split(command)
    assert words[0] == "curl"
    output = subprocess.run(
        [words[0], "--fail-with-body", *words[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={"PATH": os.environ["PATH"]},
    )
    assert output.returncode == 0, (command, output.stdout, output.stderr)
    answer: dict[str, Any] = json.loads(output.stdout, parse_float=Decimal)
    return answer


def test_the_page_has_an_example_of_most_endpoints():
    assert len(_EXAMPLES) >= 8
    assert sum(example.printed is not None for example in _EXAMPLES) >= 6


@pytest.mark.parametrize(
    "example", _EXAMPLES, ids=[re.search(r"8000/(\w+)", e.command)[1] for e in _EXAMPLES]
)
def test_each_command_answers_what_is_printed(api, keyed, example):
    answer = asked(api, keyed[1], example.command)
    assert answer["data"], example.command
    if example.printed is None:
        return
    if "data" in example.printed:
        hold(example.printed, answer)
    else:  # a record of a page
        hold(example.printed, answer["data"][0])


def hold(printed: Any, told: Any, at: str = "") -> None:
    """What is printed has the members, in their order, and the kinds of values of what was told."""
    if isinstance(printed, dict):
        assert isinstance(told, dict), at
        named = [name for name in printed if name != _MORE]
        if _MORE in printed:
            assert set(named) <= set(told), (at, named)
        else:
            assert set(named) == set(told), at
        for name in named:
            hold(printed[name], told[name], f"{at}.{name}")
    elif isinstance(printed, list):
        assert isinstance(told, list), at
        pairs = not isinstance(printed[0], dict | list)  # else any number of the same kind
        for place, each in enumerate(told):
            hold(printed[place if pairs else 0], each, f"{at}[]")
    elif printed is not None and told is not None:
        assert _kind(printed) == _kind(told), (at, printed, told)


def _kind(value: Any) -> str:
    """The kind of a value; texts by what they look like."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | Decimal):
        return "number"
    if re.fullmatch(r"-?\d+\.\d{2}", value):
        return "contracts"
    if re.fullmatch(r"-?\d+\.\d{4}(\d\d)?", value):
        return "dollars"
    if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value):
        return "instant"
    return "text"


def test_the_printed_problem_is_what_is_answered(api, keyed):
    [text] = re.findall(r'^```\n(\{"type".*?)^```$', _PAGE, re.MULTILINE | re.DOTALL)
    printed = _parsed(text)
    body = {"market_ticker": TICKER, "start_time": "2026-11-21T00:00:00Z"}
    answer = httpx.post(
        f"{api.url}/trades",
        json=body | {"end_time": "2026-11-20T00:00:00Z"},
        headers={"X-API-Key": keyed[1]},
    )
    told = answer.json()
    assert answer.status_code == printed["status"]
    assert told | {"request_id": _MORE} == printed


def test_the_page_names_every_status_and_every_endpoint(api):
    document = httpx.get(f"{api.url}/openapi.json").json()
    for path, methods in document["paths"].items():
        assert f"/{path.split('/')[1]}" in _PAGE, path
        for operation in methods.values():
            for status in operation["responses"]:
                assert status == "200" or f"| {status} |" in _PAGE, (path, status)
