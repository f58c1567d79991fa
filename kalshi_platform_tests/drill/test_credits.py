"""The drill of credits, small enough for every day."""

from kalshi_platform_tests.drill.credits import credits_under_kills


def test_the_ledger_balances_to_the_credit_whenever_servers_are_killed(database, tmp_path):
    verdict = credits_under_kills(database, tmp_path, questions=300, kills=2, seed=5)
    assert verdict, str(verdict)
    assert verdict.kills == 2
    assert sum(verdict.statuses[status] for status in ("200", "402", "404")) == 300
    assert verdict.statuses["200"] > 100
    assert sum(verdict.seen.values()) > 100
    assert verdict.refused, "no key ran out"
