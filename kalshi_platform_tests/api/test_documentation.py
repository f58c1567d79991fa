"""The description of the API: whole, in plain words, with every error."""

import json
from typing import Any

import pytest

from kalshi_platform.storage.reads.status import Status

KEYED = {
    ("/trades", "post"): {"404", "413", "422"},
    ("/candles/{ticker}", "get"): {"404", "422"},
    ("/quotes/{ticker}", "get"): {"404", "422"},
    ("/orderbook", "post"): {"404", "413", "422"},
    ("/deltas", "post"): {"404", "413", "422"},
    ("/markets", "get"): {"422"},
    ("/markets/{ticker}", "get"): {"404", "422"},
    ("/events", "get"): {"422"},
    ("/events/{event_ticker}", "get"): {"404", "422"},
    ("/series", "get"): {"422"},
    ("/series/{ticker}", "get"): {"404", "422"},
    ("/settlements", "get"): {"422"},
    ("/settlements/{ticker}", "get"): {"404", "422"},
    ("/coverage", "get"): {"422"},
    ("/coverage/{ticker}", "get"): {"404", "422"},
    ("/account", "get"): {"422"},
}


@pytest.fixture
async def described(asker) -> dict[str, Any]:
    document: dict[str, Any] = (await asker.get("/openapi.json")).json()
    return document


async def test_every_route_is_described_with_its_errors_and_key(described):
    found = {(path, method) for path, methods in described["paths"].items() for method in methods}
    assert found == {*KEYED, ("/health", "get"), ("/metrics", "get")}
    for (path, method), errors in KEYED.items():
        operation = described["paths"][path][method]
        assert operation["summary"] and operation["description"], path
        answers = set(operation["responses"])
        free = path.startswith(("/account", "/coverage"))
        spent = set() if free else {"402"}
        assert answers == errors | spent | {"200", "401", "429", "500", "503"}, path
        for status in answers - {"200"}:
            assert "application/problem+json" in operation["responses"][status]["content"]
        assert {"HTTPBearer": []} in operation["security"]
        assert {"APIKeyHeader": []} in operation["security"]


async def test_every_parameter_is_described(described):
    for path, methods in described["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                assert '"description"' in json.dumps(parameter), (path, parameter["name"])


@pytest.mark.parametrize(
    "record",
    [
        "Market",
        "MarketDetail",
        "Event",
        "EventDetail",
        "Series",
        "Settlement",
        "Quote",
        "Delta",
        "OrderBook",
    ],
)
async def test_records_have_examples_and_no_floats(described, record):
    schema = described["components"]["schemas"][record]
    assert schema["description"]
    assert '"float"' not in json.dumps(schema)
    told = [field for field, shape in schema["properties"].items() if "examples" in shape]
    assert len(told) >= 5
    # Every member is always there: what is not known is null.
    assert set(schema["required"]) == set(schema["properties"])


async def test_health_tells_all_that_the_status_knows(anonymous):
    body = (await anonymous.get("/health")).json()
    assert set(body) == set(Status.__struct_fields__) - {"metrics"}
