"""Asking lists and records, every answer held to its documented shape, numbers exact."""

import json
from decimal import Decimal
from typing import Any

import httpx

from api.reference_schemas import (
    Event,
    EventDetail,
    Market,
    MarketDetail,
    Series,
    SeriesDetail,
    Settlement,
    SettlementDetail,
)
from api.schemas import Page, Record

_LISTS: dict[str, Any] = {
    "markets": Market,
    "events": Event,
    "series": Series,
    "settlements": Settlement,
}
_RECORDS: dict[str, Any] = {
    "markets": MarketDetail,
    "events": EventDetail,
    "series": SeriesDetail,
    "settlements": SettlementDetail,
}


async def ask_list(client: httpx.AsyncClient, name: str, **query: Any) -> dict[str, Any]:
    """One page of `/name`."""
    response = await client.get(f"/{name}", params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = json.loads(response.content, parse_float=Decimal)
    Page[_LISTS[name]].model_validate(page)  # type: ignore[misc]
    assert page["request_id"] == response.headers["x-request-id"]
    assert page["has_more"] is (page["next_cursor"] is not None)
    return page


async def ask_one(client: httpx.AsyncClient, name: str, ticker: str) -> dict[str, Any]:
    """The record `/name/ticker`."""
    response = await client.get(f"/{name}/{ticker}")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = json.loads(response.content, parse_float=Decimal)
    Record[_RECORDS[name]].model_validate(answer)  # type: ignore[misc]
    record: dict[str, Any] = answer["data"]
    return record


async def walk(client: httpx.AsyncClient, name: str, **query: Any) -> list[dict[str, Any]]:
    """The records of all pages."""
    records: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await ask_list(client, name, **query, **({"cursor": cursor} if cursor else {}))
        records += page["data"]
        if not page["has_more"]:
            return records
        assert page["data"], "a page before the last has records"
        cursor = page["next_cursor"]
