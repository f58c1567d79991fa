"""What Dagster loads: it loads, opens nothing, and says what an operator needs."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from kalshi_platform.archive.layout import SORTED_BY
from kalshi_platform.definitions import defs
from kalshi_platform.operations.environment import variable_of
from kalshi_platform.orchestration.columns import table_metadata
from kalshi_platform.orchestration.resources import ENVIRONMENT, resources
from kalshi_platform.settings import Settings
from kalshi_platform.storage import tables

ARCHIVED = ("trades", "raw_trades", "quotes", "book_snapshots", "book_deltas", "lifecycle_events")
PROJECT = Path(__file__).parents[2]


def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def test_definitions_load():
    dg.Definitions.validate_loadable(defs)


def test_lineage_goes_from_the_tape_to_the_day_candle_and_to_the_series():
    upstream = {name: {d.asset_key.to_user_string() for d in s.deps} for name, s in specs().items()}
    assert upstream == {
        "feed_tape": set(),
        "raw_trades": {"feed_tape"},
        "quotes": {"feed_tape"},
        "book_deltas": {"feed_tape"},
        "book_snapshots": {"feed_tape", "book_deltas"},
        "lifecycle_events": {"feed_tape"},
        "trades": {"raw_trades"},
        "candles_1m": {"trades", "quotes"},
        "candles_1h": {"candles_1m", "quotes"},
        "candles_1d": {"candles_1h", "quotes"},
        "settlements": {"lifecycle_events"},
        "markets": {"lifecycle_events", "raw_trades", "settlements"},
        "events": {"lifecycle_events", "markets"},
        "series": {"events"},
        **{f"archived_{table}": {table} for table in SORTED_BY},
    }


@pytest.mark.parametrize("name", sorted(specs()))
def test_every_asset_is_described_owned_fresh_and_by_day(name):
    spec = specs()[name]
    assert spec.description and spec.owners and spec.kinds and spec.group_name
    assert spec.freshness_policy is not None
    assert isinstance(spec.partitions_def, dg.DailyPartitionsDefinition)


@pytest.mark.parametrize("name", sorted(specs()))
def test_every_asset_shows_its_columns_each_described(name):
    schema = specs()[name].metadata["dagster/column_schema"]
    assert schema.columns
    undescribed = [column.name for column in schema.columns if not column.description]
    assert undescribed == []
    # Metadata of an asset that is a table of ours is the table's, to the column.
    table = tables.metadata.tables.get(name)
    if table is not None:
        assert [column.name for column in schema.columns] == [
            column.name for column in table.columns
        ]


@pytest.mark.parametrize("name", sorted(specs()))
def test_every_column_with_a_unit_says_it(name):
    units = {"_micros": "millionths", "_centis": "hundredths", "_at": "UTC", "_on": "UTC"}
    for column in specs()[name].metadata["dagster/column_schema"].columns:
        for suffix, unit in units.items():
            if column.name.endswith(suffix):
                assert unit in column.description, f"{name}.{column.name} has no unit"


@pytest.mark.parametrize("name", sorted(set(specs()) - {"feed_tape"}))
def test_what_a_backfill_makes_look_fresh_says_so(name):
    told_by = "alerts" if name.startswith("archived_") else "/health"
    description = specs()[name].description or ""
    assert "looks fresh, too" in description
    assert told_by in description


def test_every_job_schedule_sensor_and_check_says_what_it_is_for():
    repository = defs.get_repository_def()
    said = {
        **{f"job {job.name}": job.description for job in repository.get_all_jobs()},
        **{f"schedule {one.name}": one.description for one in repository.schedule_defs},
        **{f"sensor {one.name}": one.description for one in repository.sensor_defs},
        **{
            f"op {job.name}.{name}": node.definition.description
            for job in repository.get_all_jobs()
            for name, node in job.graph.node_dict.items()
        },
        **{
            f"check {spec.name}": spec.description
            for check in defs.asset_checks or ()
            for spec in check.check_specs
        },
    }
    said.pop("job __ASSET_JOB")  # Dagster's own, hidden
    assert len(said) > 40
    assert [name for name, description in said.items() if not description] == []


def test_every_check_says_what_to_do_if_it_fails():
    for check in defs.asset_checks or ():
        for spec in check.check_specs:
            assert "If it fails: " in (spec.description or ""), spec.name


def test_a_lineage_names_columns_that_exist():
    for spec in specs().values():
        lineage = spec.metadata.get("dagster/column_lineage")
        own = {column.name for column in spec.metadata["dagster/column_schema"].columns}
        for column, sources in lineage.deps_by_column.items() if lineage else ():
            assert column in own
            for source in sources:
                table = tables.metadata.tables[source.asset_key.to_user_string()]
                assert source.column_name in table.columns


def test_every_check_can_be_asked_for_alone():
    graph = defs.resolve_asset_graph()
    assert graph.asset_check_keys
    together = {
        key.name: others
        for key in graph.asset_check_keys
        if (others := graph.get_execution_set_asset_and_check_keys(key) - {key})
    }
    assert together == {}


def test_prices_are_described_in_millionths_of_a_dollar():
    columns = table_metadata(tables.candles_1m)["dagster/column_schema"].columns
    described = {column.name: column.description for column in columns}
    assert described["high_micros"] == "millionths of a dollar"
    assert (described["open_micros"] or "").endswith("null without a trade; millionths of a dollar")


def test_environment_names_are_those_of_the_settings():
    for _, _, variable, field in ENVIRONMENT:
        assert variable == variable_of(field)
        assert field in Settings.model_fields


def test_resources_show_names_and_not_values(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret@/kalshi")
    assert "secret" not in repr(resources()["database"].model_dump())


def test_importing_reads_no_environment_and_stays_light():
    code = (
        "import sys, kalshi_platform.definitions\n"
        "heavy = {'pandas', 'httpx', 'websockets', 'fastapi', 'cryptography', 'zstandard'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={}, timeout=60)


def test_the_instance_and_the_workspace_are_as_dagster_reads_them(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_PG_URL", "postgresql+psycopg2://postgres@/dagster?host=/nowhere")
    monkeypatch.setenv("DAGSTER_CODE_PORT", "4266")
    from dagster._core.instance.config import dagster_instance_config
    from dagster._core.workspace.load import location_origins_from_yaml_paths

    (tmp_path / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text())
    config, _ = dagster_instance_config(str(tmp_path))
    assert config["telemetry"] == {"enabled": False}
    origins = location_origins_from_yaml_paths([str(PROJECT / "workspace.yaml")])
    assert [origin.port for origin in origins] == [4266]


def test_no_run_but_the_streams_waits_for_the_streams_place():
    instance = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    runs = instance["concurrency"]["runs"]
    limits = {
        limit.get("value") or limit["key"]: limit["limit"]
        for limit in runs["tag_concurrency_limits"]
    }
    assert limits["stream"] == 2  # one that hands over, one that takes over
    # A stream, what runs each minute, a census and all backfills together leave a place free.
    assert set(limits) == {"stream", "candles", "reference", "census", "dagster/backfill"}
    assert sum(limits.values()) < runs["max_concurrent_runs"]


def test_the_sync_of_each_minute_does_not_wait_for_a_sweep_of_days():
    for name in ("refresh_reference", "census"):
        nodes = defs.resolve_job_def(name).graph.node_dict.values()
        assert all(node.definition.pool is None for node in nodes)
    assert {asset.op.pool for asset in defs.assets if isinstance(asset, dg.AssetsDefinition)} == {
        "kalshi_rest",
        "archive",
        None,
    }
