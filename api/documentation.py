"""/docs without a network: Swagger UI's files come from an installed package."""

from importlib.resources import as_file, files

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse

from api.specification import install_specification

TITLE = "Kalshi market data"
DESCRIPTION = """\
Trades, candles, quotes, order books, markets and outcomes of the prediction-market exchange Kalshi,
recorded from its feed; trades and outcomes are compared with its own record.

**The first request.** `Authorize`, paste a key into either field, open an endpoint below, and
`Try it out` is there already, with an example filled in. `GET /markets` with `status` = `active`
tells which tickers there are. `docs/api.md` in the project has the same with `curl`.

**Keys.** Send `Authorization: Bearer KEY` or `X-API-Key: KEY`. `kalshi-platform keys create NAME`
makes one. A revoked key stops working within ten seconds.

**Numbers.** `*_dollars` and `*_fp` are exact text. The plain fields are JSON numbers: prices in
cents (`36`, or `36.25` where the tick is finer), counts in contracts (`12`, `0.5`). No value has
passed through binary floating point here; parse them as decimals to keep it so. What is not known
is null, never zero.

**Times.** Answers are in UTC with microseconds. Requests take ISO 8601 with an offset or Unix
seconds; a time without an offset is refused. Windows are half-open: `[start_time, end_time)`.

**Order and pages.** Records in time come oldest first; markets, events and series by ticker. Where
`has_more` is true, send `next_cursor` back as `cursor` with the same other fields. A cursor belongs
to its query and is refused with any other; it never expires. Trades of one instant keep the order
of the feed where it is known, else of `trade_id`; quotes and changes of books that of arrival.

**Outcomes** come as soon as the feed tells them (`source` is `lifecycle`) and are confirmed over
REST (`confirmed_at`). Only status `finalized` is final: `determined` can still be amended.

**Completeness.** `X-Data-Status` comes with trades, candles, quotes and order books: `complete`,
`unverified` (recorded without a known gap, and nothing proves it) or `gaps` (something in the
window is known to be missing or is being fetched). Trades and candles are complete where each day
of the window was compared with the exchange's own record; order books where they were watched
throughout and the feed's sequence numbers have no hole. Nothing proves quotes.

**Errors** are `application/problem+json` (RFC 9457): `title`, `status`, `detail` with the remedy,
`field` with the input at fault, and `request_id`, which is also in the `X-Request-Id` header.
402 is for credits that are spent, 429 for asking too fast; 429 and 503 come with
`Retry-After`. Only a 2xx is charged: `X-Credits-Cost`.

**Limits.** 1,000 records a page; candles 5,000 a page, a window of 50,000 intervals. Days that
left the database come from the archive, in the same way.
A statement runs for 5 seconds at most.
"""
TAGS = [
    {"name": "trades", "description": "Every trade, once."},
    {"name": "candles", "description": "Open, high, low, close and volume per interval."},
    {"name": "quotes", "description": "Best bid and ask, volume and open interest, as told."},
    {"name": "order books", "description": "All price levels, at any instant, and each change."},
    {"name": "settlements", "description": "Outcomes, and every version they had."},
    {"name": "markets", "description": "What can be traded, and how it stands."},
    {"name": "events", "description": "Markets on one question."},
    {"name": "series", "description": "Events that recur."},
    {"name": "coverage", "description": "What is complete, and what is known to be missing."},
    {"name": "account", "description": "Credits left and used."},
    {"name": "operations", "description": "For operators: no key."},
]


def install_documentation(app: FastAPI) -> None:
    """Serve /docs and the files it needs, and complete the document that they show."""
    install_specification(app)
    with as_file(files("fastapi_offline") / "static") as folder:
        app.mount("/docs/assets", StaticFiles(directory=folder), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=TITLE,
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.png",
            swagger_ui_parameters={
                "persistAuthorization": True,
                "tryItOutEnabled": True,
                "defaultModelsExpandDepth": 0,
                "displayRequestDuration": True,
            },
        )
