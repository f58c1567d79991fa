"""GET /account: what a key may do and what it has used."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.auth import SECURITY, KeyedRoute
from api.database import ReadDatabase
from api.errors import InvalidInput, problems
from api.pages import record_response
from api.schemas import Record, Shape, UtcInstant
from kalshi_platform.storage.reads.keys import ACCOUNT

router = APIRouter(route_class=KeyedRoute, dependencies=SECURITY, tags=["account"])

_EARLIEST, _LATEST = date(2000, 1, 1), date(2100, 1, 1)
_Day = Annotated[date, Field(ge=_EARLIEST, le=_LATEST)]


class AccountQuery(BaseModel):
    """Whose days of usage are listed: first and last UTC day, both included."""

    model_config = ConfigDict(extra="forbid")

    start_date: Annotated[
        _Day | None,
        Field(description="First UTC day of usage; default: of this month.",
              examples=["2026-11-01"]),
    ] = None  # fmt: skip
    end_date: Annotated[
        _Day | None, Field(description="Last UTC day of usage, included.", examples=["2026-11-30"])
    ] = None

    @model_validator(mode="after")
    def _days_run_forward(self) -> "AccountQuery":
        if self.start_date and self.end_date and self.start_date > self.end_date:
            raise InvalidInput("end_date must not be before start_date.", field="end_date")
        return self


class Usage(Shape):
    """What was charged for one endpoint on one day."""

    day: date = Field(description="UTC.", examples=["2026-11-20"])
    endpoint: str = Field(examples=["POST /trades"])
    requests: int = Field(description="Answered with a 2xx and charged.", examples=[120])
    credits: int = Field(examples=[240])


class Account(Shape):
    """What a key may do and what it has used."""

    name: str = Field(examples=["research"])
    plan: str = Field(examples=["basic"])
    prefix: str = Field(description="First characters of the key.", examples=["kk_q3Jx7Zb"])
    monthly_credits: int = Field(description="Anew each month, UTC.", examples=[1_000_000])
    month: str = Field(pattern=r"^\d{4}-\d\d$", examples=["2026-11"])
    month_spent: int = Field(description="Of the month's credits.", examples=[51_240])
    extra_left: int = Field(
        description="Granted credits left; spent after the month's, and kept.", examples=[5_000]
    )
    credits_left: int = Field(examples=[953_760])
    requests_per_second: int = Field(examples=[10])
    expires_at: UtcInstant | None = Field(examples=["2027-12-31T00:00:00.000000Z"])
    resets_at: UtcInstant = Field(
        description="When the month's credits come anew.", examples=["2026-12-01T00:00:00.000000Z"]
    )
    usage: list[Usage] = Field(description="By day and endpoint, oldest first.")


@router.get(
    "/account",
    response_model=Record[Account],
    responses=problems(422, charged=False),
    summary="Credits left, and what was used",
)
async def get_account(query: Annotated[AccountQuery, Query()], request: Request) -> Response:
    """The key's plan, its credits, and its usage by day and endpoint.

    Costs nothing, and counts as a request like any other.
    """
    accounts: ReadDatabase = request.app.state.accounts
    row = await accounts.row(
        ACCOUNT,
        {
            "key_id": request.state.key_id,
            "start": query.start_date,
            "end": query.end_date,
        },
    )
    assert row is not None and row[0] is not None, "a key has an account"
    return record_response(request, row[0])
