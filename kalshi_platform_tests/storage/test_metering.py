"""Charges: exactly once, never beyond what a key has, whatever comes in between."""

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform.storage.engine import connect, libpq_url
from kalshi_platform.storage.plans import Plan
from kalshi_platform.storage.reads.keys import list_keys
from kalshi_platform.storage.reads.usage import ledger_differences, usage_between
from kalshi_platform.storage.writes.keys import create_key, grant_credits
from kalshi_platform.storage.writes.metering import CLOSE_METER, Charge, Outcome, charge

TABLES = ("api_keys", "api_balances", "api_usage", "api_meters", "credit_grants")
TRADES, SERIES = "POST /trades", "GET /series"


class Ledger:
    """The tables of keys, and meters that charge them."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self._runner = runner
        self.connection = connect(url, autocommit=True)
        # As the API does it: on the role that may charge, and nothing else.
        self._charging = runner.run(
            psycopg.AsyncConnection.connect(
                libpq_url(url), autocommit=True, options="-c role=kalshi_meter"
            )
        )
        self.meters = [uuid.uuid4(), uuid.uuid4()]
        self.batches = [0, 0]

    def close(self) -> None:
        self._runner.run(self._charging.close())
        self.connection.close()

    def empty(self) -> None:
        for table in TABLES:
            self.connection.execute(f"DELETE FROM {table}".encode())
        self.batches = [0, 0]

    def new_key(self, monthly_credits: int) -> int:
        create_key(self.connection, "tests", plan=Plan("test", monthly_credits, 1))
        return list_keys(self.connection)[-1].key_id

    def charge(self, charges: Sequence[tuple[int, str, int]], meter: int = 0) -> Outcome:
        self.batches[meter] += 1
        return self.again(charges, meter)

    def again(self, charges: Sequence[tuple[int, str, int]], meter: int = 0) -> Outcome:
        """Send what may be a batch that was sent before."""
        return self._runner.run(
            charge(
                self._charging,
                self.meters[meter],
                self.batches[meter],
                [Charge(*one) for one in charges],
            )
        )

    def close_meter(self, meter: int) -> None:
        self._runner.run(self._charging.execute(CLOSE_METER, {"meter_id": self.meters[meter]}))

    def turn_the_month(self) -> None:
        """Let all that was happen a month earlier."""
        self.connection.execute("UPDATE api_balances SET month = month - interval '1 month'")
        days = self.connection.execute("SELECT DISTINCT used_on FROM api_usage ORDER BY 1")
        for [day] in days.fetchall():
            self.connection.execute(
                "UPDATE api_usage SET used_on = used_on - interval '1 month' WHERE used_on = %s",
                [day],
            )

    def one(self, query: str) -> Any:
        row = self.connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0] if len(row) == 1 else row


@pytest.fixture(scope="module")
def _ledger(postgres: EmbeddedDatabase) -> Iterator[Ledger]:
    url = postgres.create_database("ledger", template="migrated")
    with asyncio.Runner() as runner:
        ledger = Ledger(url, runner)
        yield ledger
        ledger.close()
    with connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE ledger WITH (FORCE)")


@pytest.fixture
def ledger(_ledger: Ledger) -> Ledger:
    _ledger.empty()
    return _ledger


def test_a_batch_charges_each_key_for_each_endpoint(ledger):
    one, two = ledger.new_key(100), ledger.new_key(10)
    outcome = ledger.charge(
        [(one, TRADES, 2), (two, TRADES, 2), (one, SERIES, 1), (one, TRADES, 2)]
    )
    assert outcome == (frozenset({0, 1, 2, 3}), {one: 95, two: 8})
    today = ledger.one("SELECT (now() AT TIME ZONE 'UTC')::date")
    assert usage_between(ledger.connection, one, today, today) == [
        (today, SERIES, 1, 1),
        (today, TRADES, 2, 4),
    ]
    assert ledger_differences(ledger.connection) == []


def test_the_months_credits_go_before_granted_ones(ledger):
    key = ledger.new_key(3)
    assert grant_credits(ledger.connection, key, 4, "trial") == 4
    outcome = ledger.charge([(key, TRADES, 2), (key, TRADES, 2), (key, TRADES, 2)])
    assert outcome == (frozenset({0, 1, 2}), {key: 1})
    assert ledger.one("SELECT month_spent, extra_left FROM api_balances") == (3, 1)
    assert ledger.one("SELECT credits, extra_credits FROM api_usage") == (6, 3)
    ledger.turn_the_month()
    assert ledger.charge([(key, TRADES, 2)]).left == {key: 2}  # 1 of the month, 1 granted
    assert ledger_differences(ledger.connection) == []


def test_what_is_not_left_is_not_charged(ledger):
    key = ledger.new_key(5)
    assert ledger.charge([(key, TRADES, 2)] * 3) == (frozenset({0, 1}), {key: 1})
    assert ledger.charge([(key, TRADES, 2)]) == (frozenset(), {key: 1})
    assert ledger.charge([(key, SERIES, 1)]) == (frozenset({0}), {key: 0})
    assert ledger_differences(ledger.connection) == []


def test_a_batch_sent_again_charges_nothing_and_says_what_it_charged(ledger):
    key = ledger.new_key(5)
    batch = [(key, TRADES, 2)] * 3
    assert ledger.charge(batch).charged == {0, 1}
    for _ in range(2):
        assert ledger.again(batch) == (frozenset({0, 1}), {})
    assert ledger.one("SELECT month_spent FROM api_balances") == 4
    assert ledger_differences(ledger.connection) == []


def test_a_batch_that_arrives_after_a_later_one_charges_nothing(ledger):
    key = ledger.new_key(5)
    ledger.batches[0] = 2
    ledger.again([(key, TRADES, 2)])
    ledger.batches[0] = 1
    with pytest.raises(AssertionError, match="one after the other"):
        ledger.again([(key, TRADES, 2)])
    assert ledger.one("SELECT month_spent FROM api_balances") == 2


def test_a_key_that_somebody_holds_keeps_no_other_waiting(ledger):
    held, free = ledger.new_key(5), ledger.new_key(5)
    with ledger.connection.transaction():
        ledger.connection.execute("SELECT FROM api_balances WHERE key_id = %s FOR UPDATE", [held])
        outcome = ledger.charge([(held, TRADES, 2), (free, TRADES, 2)])
    assert outcome == (frozenset({1}), {free: 3})
    assert ledger.charge([(held, TRADES, 2)]) == (frozenset({0}), {held: 3})
    assert ledger_differences(ledger.connection) == []


def test_a_key_without_a_balance_is_charged_nothing(ledger):
    assert ledger.charge([(404, TRADES, 2)]) == (frozenset(), {})


def test_a_balance_never_goes_back_a_month(ledger):
    """Two processes at the turn of a month: the one that asked before it is heard after it."""
    key = ledger.new_key(5)
    ledger.connection.execute("UPDATE api_balances SET month = month + interval '1 month'")
    assert ledger.charge([(key, TRADES, 2)]).left == {key: 3}
    assert ledger.one("SELECT used_on = month FROM api_balances JOIN api_usage USING (key_id)")
    assert ledger_differences(ledger.connection) == []


def test_the_role_that_charges_can_do_nothing_else(ledger):
    key = ledger.new_key(5)
    for statement in (
        "SELECT FROM trades",
        "UPDATE api_keys SET monthly_credits = 10",
        "DELETE FROM api_usage",
        "INSERT INTO api_balances VALUES (1, '2026-01-01', 0, 1000)",
        "INSERT INTO credit_grants (key_id, credits) VALUES (1, 1000)",
        "CREATE TABLE mine (a int)",
    ):
        ledger.connection.execute("SET ROLE kalshi_meter")
        try:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ledger.connection.execute(statement.encode())
        finally:
            ledger.connection.execute("RESET ROLE")
    assert ledger.charge([(key, TRADES, 2)]).left == {key: 3}


def test_the_role_that_reads_data_knows_nothing_of_keys(ledger):
    ledger.connection.execute("SET ROLE kalshi_reader")
    try:
        for table in TABLES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ledger.connection.execute(f"SELECT FROM {table}".encode())
        ledger.connection.execute("SELECT FROM trades")
    finally:
        ledger.connection.execute("RESET ROLE")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE api_balances SET month_spent = month_spent + 1",
        "UPDATE api_balances SET extra_left = extra_left + 1",
        "UPDATE api_usage SET credits = credits + 1 WHERE endpoint = 'POST /trades'",
        "UPDATE api_usage SET credits = credits - 2, extra_credits = -1",
        "UPDATE api_usage SET used_on = used_on + interval '1 month'",
        "UPDATE credit_grants SET credits = credits + 1",
        "UPDATE api_keys SET monthly_credits = 3",
        "DELETE FROM api_balances",
        "DELETE FROM api_keys",
    ],
)
def test_whatever_does_not_add_up_is_found(ledger, statement):
    key = ledger.new_key(4)
    grant_credits(ledger.connection, key, 10)
    ledger.charge([(key, TRADES, 2), (key, SERIES, 1), (key, TRADES, 2)])
    assert ledger_differences(ledger.connection) == []
    ledger.connection.execute(statement.encode())
    assert {difference.key_id for difference in ledger_differences(ledger.connection)} == {key}


_charges = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([TRADES, SERIES]), st.integers(1, 5)),
    min_size=1,
    max_size=6,
)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("charge"), _charges, st.integers(0, 1)),
        st.tuples(st.just("again"), st.integers(0, 1)),
        st.tuples(st.just("grant"), st.integers(0, 2), st.integers(1, 9)),
        st.tuples(st.just("turn")),
        st.tuples(st.just("restart"), st.integers(0, 1)),
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(monthly=st.tuples(*[st.integers(0, 12)] * 3), steps=_steps)
def test_any_mix_of_charges_grants_and_months_balances(ledger, monthly, steps):
    ledger.empty()
    keys = [ledger.new_key(plan) for plan in monthly]
    spent, extra = [0, 0, 0], [0, 0, 0]
    sent: dict[int, tuple[list[tuple[int, str, int]], frozenset[int]]] = {}
    for name, *details in steps:
        match name, details:
            case "charge", [charges, meter]:
                batch = [(keys[who], endpoint, cost) for who, endpoint, cost in charges]
                outcome = ledger.charge(batch, meter)
                expected, asked = set(), [0, 0, 0]
                before = [monthly[who] - spent[who] + extra[who] for who in range(3)]
                for place, (who, _, cost) in enumerate(charges):
                    asked[who] += cost
                    if asked[who] <= before[who]:
                        expected.add(place)
                        of_month = min(cost, monthly[who] - spent[who])
                        spent[who] += of_month
                        extra[who] -= cost - of_month
                assert outcome.charged == expected
                assert outcome.left == {
                    keys[who]: monthly[who] - spent[who] + extra[who] for who, _, _ in charges
                }
                sent[meter] = (batch, outcome.charged)
            case "again", [meter] if meter in sent:
                batch, charged = sent[meter]
                assert ledger.again(batch, meter) == (charged, {})
            case "grant", [who, amount]:
                extra[who] += amount
                assert grant_credits(ledger.connection, keys[who], amount) == extra[who]
            case "turn", []:
                spent = [0, 0, 0]
                ledger.turn_the_month()
            case "restart", [meter]:
                ledger.close_meter(meter)
                ledger.meters[meter], ledger.batches[meter] = uuid.uuid4(), 0
                sent.pop(meter, None)
        assert ledger_differences(ledger.connection) == []
    assert [key.credits_left for key in list_keys(ledger.connection)] == [
        monthly[who] - spent[who] + extra[who] for who in range(3)
    ]
