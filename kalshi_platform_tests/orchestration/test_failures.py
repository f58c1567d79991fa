"""Failed runs and checks: which are told, and what makes them good."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationPlanned,
)

from kalshi_platform.alerting.conditions import Condition, Links
from kalshi_platform.definitions import defs
from kalshi_platform.orchestration import failures
from kalshi_platform.orchestration.failures import failed_checks, failed_runs
from kalshi_platform.orchestration.resources import ENVIRONMENT
from kalshi_platform.orchestration.runs import close_run

S = dg.DagsterRunStatus
LINKS = Links("http://dagster.test")
RANGE = dg.AssetCheckKey(dg.AssetKey("quotes"), "quotes_in_range")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Dagster looks for these before it makes a run of a job."""
    for _, _, variable, _ in ENVIRONMENT:
        monkeypatch.setenv(variable, "unused")


def ran(
    instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus, day: str | None = None
) -> dg.DagsterRun:
    definition = defs.resolve_job_def(job)
    # A run that is launched carries its job's tags.
    tags = dict(definition.tags) | ({} if day is None else {"dagster/partition": day})
    return instance.create_run_for_job(definition, status=status, tags=tags)


def found(instance: dg.DagsterInstance, *jobs: str) -> list[Condition]:
    return failed_runs(instance, jobs, LINKS)


def telling(instance: dg.DagsterInstance, *jobs: str) -> list[str]:
    return [condition.name for condition in found(instance, *jobs) if condition.tells]


def test_a_failed_day_is_told_until_a_later_run_of_that_day_succeeds(instance):
    failed = ran(instance, "certify_trades", S.FAILURE, "2026-11-19")
    ran(instance, "certify_trades", S.SUCCESS, "2026-11-20")
    [condition] = found(instance, "certify_trades")
    assert condition.name == "run certify_trades 2026-11-19"
    assert condition.link == f"http://dagster.test/runs/{failed.run_id}"
    ran(instance, "certify_trades", S.SUCCESS, "2026-11-19")
    assert found(instance, "certify_trades") == []


def test_an_earlier_success_makes_nothing_good(instance):
    ran(instance, "certify_trades", S.SUCCESS, "2026-11-19")
    ran(instance, "certify_trades", S.FAILURE, "2026-11-19")
    assert telling(instance, "certify_trades") == ["run certify_trades 2026-11-19"]


def test_a_run_that_follows_is_waited_for(instance):
    ran(instance, "certify_trades", S.FAILURE, "2026-11-19")
    ran(instance, "certify_trades", S.STARTED, "2026-11-19")
    [condition] = found(instance, "certify_trades")
    assert not condition.tells


def test_a_day_that_fails_again_is_one_alert(instance):
    ran(instance, "certify_trades", S.FAILURE, "2026-11-19")
    ran(instance, "certify_trades", S.FAILURE, "2026-11-19")
    assert telling(instance, "certify_trades") == ["run certify_trades 2026-11-19"]


def test_many_failed_days_of_one_job_are_one_alert(instance):
    for day in range(10, 15):
        ran(instance, "certify_trades", S.FAILURE, f"2026-11-{day}")
    assert telling(instance, "certify_trades") == ["runs of certify_trades"]


def test_what_was_cancelled_is_nobodys_business(instance):
    ran(instance, "certify_trades", S.CANCELED, "2026-11-19")
    assert found(instance, "certify_trades") == []


def test_a_failure_is_forgotten_after_a_day(instance, monkeypatch):
    ran(instance, "certify_trades", S.FAILURE, "2026-11-19")
    monkeypatch.setattr(failures, "_FORGOTTEN", timedelta(0))
    assert found(instance, "certify_trades") == []


def test_a_run_started_for_assets_is_named_by_them(instance):
    job = defs.resolve_implicit_global_asset_job_def()
    instance.create_run_for_job(
        job,
        status=S.FAILURE,
        asset_selection=frozenset({dg.AssetKey("trades")}),
        tags={"dagster/partition": "2026-11-19"},
    )
    assert telling(instance, job.name) == ["run trades 2026-11-19"]


def test_what_runs_each_minute_is_told_when_nothing_follows_or_it_fails_again(instance):
    ran(instance, "refresh_candles", S.FAILURE)
    [condition] = found(instance, "refresh_candles")
    assert condition.tells and (condition.holds_seconds or 0) > 60
    following = ran(instance, "refresh_candles", S.STARTED)
    assert telling(instance, "refresh_candles") == []
    instance.report_run_failed(following)
    [condition] = found(instance, "refresh_candles")
    assert condition.tells and condition.holds_seconds == 0
    assert "as 1 before it did" in condition.summary
    ran(instance, "refresh_candles", S.SUCCESS)
    assert found(instance, "refresh_candles") == []


def test_a_recorder_that_works_again_has_made_good_what_failed_before(instance, monkeypatch):
    ran(instance, "stream_job", S.FAILURE)
    assert telling(instance, "stream_job") == ["run stream_job"]
    following = ran(instance, "stream_job", S.NOT_STARTED)
    instance.report_dagster_event(
        dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.RUN_START.value, job_name="stream_job"
        ),
        run_id=following.run_id,
    )
    [condition] = found(instance, "stream_job")
    assert not condition.tells
    monkeypatch.setattr(failures, "_STREAM_STANDS_SECONDS", -1)
    assert found(instance, "stream_job") == []


def test_what_ended_with_the_code_server_before_is_history_where_it_begins_anew(instance):
    for _ in range(2):
        ran(instance, "stream_job", S.FAILURE)
    ran(instance, "certify_trades", S.FAILURE, "2026-11-19")
    jobs = ("certify_trades", "stream_job")
    later = datetime.now(UTC) + timedelta(seconds=1)
    names = [one.name for one in failed_runs(instance, jobs, LINKS, started_at=later)]
    assert names == ["run certify_trades 2026-11-19"]
    assert "run stream_job" in telling(instance, *jobs)


def test_a_run_that_the_keeper_closed_is_none(instance):
    dead = ran(instance, "refresh_candles", S.STARTED)
    close_run(instance, dead, "The run's process is gone.")
    assert found(instance, "refresh_candles") == []


def test_a_day_that_was_cut_off_is_told_since_nothing_does_it_again(instance):
    dead = ran(instance, "certify_trades", S.STARTED, "2026-11-19")
    close_run(instance, dead, "The platform was stopped meanwhile.")
    assert telling(instance, "certify_trades") == ["run certify_trades 2026-11-19"]


def test_a_job_that_fails_all_the_time_hides_no_other(instance, monkeypatch):
    ran(instance, "certify_trades", S.FAILURE, "2026-11-19")
    for _ in range(5):
        ran(instance, "refresh_candles", S.FAILURE)
    jobs = ("certify_trades", "refresh_candles")
    expected = {"run certify_trades 2026-11-19", "run refresh_candles"}
    assert set(telling(instance, *jobs)) == expected
    monkeypatch.setattr(failures, "_ALL_LOOKED_AT", 3)
    assert set(telling(instance, *jobs)) == expected


def test_the_cause_is_the_first_line_of_what_the_step_said(instance):
    @dg.op
    def break_down() -> None:
        raise dg.Failure("The key is refused.\nSecond line.")

    @dg.job
    def broken() -> None:
        break_down()

    broken.execute_in_process(instance=instance, raise_on_error=False)
    [condition] = found(instance, "broken")
    assert condition.summary == "The run of broken failed: The key is refused."


def answer(
    instance: dg.DagsterInstance,
    *,
    passed: bool,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    check: dg.AssetCheckKey = RANGE,
) -> None:
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=check.asset_key,
            check_name=check.name,
            passed=passed,
            severity=severity,
            metadata={"days": "2026-11-20, 2026-11-21", "failed_days": "2026-11-21", "wrong": 3},
        )
    )


def test_a_check_that_never_ran_is_none(instance):
    assert failed_checks(instance, [RANGE], LINKS) == []


@pytest.mark.parametrize(
    ("severity", "word"),
    [(dg.AssetCheckSeverity.ERROR, "error"), (dg.AssetCheckSeverity.WARN, "warning")],
)
def test_a_failed_check_is_told_as_badly_as_it_is_until_it_passes(instance, severity, word):
    answer(instance, passed=False, severity=severity)
    [condition] = failed_checks(instance, [RANGE], LINKS)
    assert (condition.name, condition.severity) == ("check quotes.quotes_in_range", word)
    assert condition.summary == (
        "The check quotes_in_range of quotes failed on 2026-11-21: wrong 3."
    )
    assert condition.link == (
        "http://dagster.test/assets/quotes?view=checks&checkDetail=quotes_in_range"
    )
    answer(instance, passed=True)
    assert failed_checks(instance, [RANGE], LINKS) == []


@pytest.mark.parametrize("name", sorted(failures._NEVER_TOLD))
def test_a_check_whose_failure_asks_nothing_of_anybody_is_not_told(instance, name):
    [key] = [key for key in defs.resolve_asset_graph().asset_check_keys if key.name == name]
    answer(instance, passed=False, severity=dg.AssetCheckSeverity.WARN, check=key)
    assert failed_checks(instance, [key], LINKS) == []


def test_a_check_that_is_asked_just_now_stands_as_it_was_answered_before(instance):
    answer(instance, passed=False)
    run = ran(instance, "check_today", S.STARTED)
    instance.report_dagster_event(
        dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
            job_name=run.job_name,
            event_specific_data=AssetCheckEvaluationPlanned(
                asset_key=RANGE.asset_key, check_name=RANGE.name
            ),
        ),
        run_id=run.run_id,
    )
    assert len(failed_checks(instance, [RANGE], LINKS)) == 1
