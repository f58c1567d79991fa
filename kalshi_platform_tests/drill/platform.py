"""The whole platform of a drill: `kalshi-platform up` over its own simulated exchange."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from kalshi_platform.operations.environment import variable_of
from kalshi_platform.operations.processes import end_processes, marked_processes
from kalshi_platform.settings import Settings
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform_tests.ports import free_ports

_READY_SECONDS = 180
_PORTS = (
    *("DAGSTER_PORT", "DAGSTER_CODE_PORT", "API_PORT"),
    *("KALSHI_SIMULATOR_REST_PORT", "KALSHI_SIMULATOR_WS_PORT"),
)
_IN = {"repositoryName": "__repository__", "repositoryLocationName": "kalshi_platform"}


class Platform:
    """A running `up`, Dagster's buttons, and the levers of its simulator."""

    def __init__(self, home: Path) -> None:
        self.home = home
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        own = {variable_of(field) for field in Settings.model_fields}
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in own},
            **{name: str(port) for name, port in ports.items()},
            "KALSHI_HOME": str(home),
        }
        self.api_url = f"http://127.0.0.1:{ports['API_PORT']}"
        self._graphql = f"http://127.0.0.1:{ports['DAGSTER_PORT']}/graphql"
        self._control = f"http://127.0.0.1:{ports['KALSHI_SIMULATOR_REST_PORT']}/control"
        self._output = home.parent / "up.out"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The embedded database's."""
        return EmbeddedDatabase(self.home / "postgres").url()

    @property
    def supervisor(self) -> int:
        """Process id of `up`."""
        assert self._process is not None, "it was started"
        return self._process.pid

    def start(self, changes: Mapping[str, str], *, wait: bool = True) -> None:
        """Start it with some settings changed."""
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kalshi_platform.cli", "up"],
                cwd=Path(__file__).parents[2],
                env=self._environment | dict(changes),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while wait and "Ctrl-C stops everything." not in self._output.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"`up` is not ready:\n{self._output.read_text()}")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop it and wait until it is gone; whatever is left afterwards is killed."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
        end_processes(self.home, code_seconds=0, other_seconds=0)
        EmbeddedDatabase(self.home / "postgres").stop()

    def pids(self, service: str) -> list[int]:
        """Its processes of one service."""
        return [one.pid for one in marked_processes(self.home) if one.service == service]

    def fault(self, kind: str, **details: Any) -> None:
        """Make the exchange do something; see docs/simulator.md."""
        httpx.post(
            f"{self._control}/faults", json={"kind": kind, **details}, timeout=10
        ).raise_for_status()

    def stop_feed(self, seconds: float) -> None:
        """Nothing is sent for so long; connecting anew, which a recorder tries, does not help."""
        self.fault("refuse_connections", seconds=seconds)
        self.fault("stall", seconds=seconds)

    def clear_faults(self) -> None:
        httpx.delete(f"{self._control}/faults", timeout=10).raise_for_status()

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status code and body of GET /health."""
        answer = httpx.get(f"{self.api_url}/health", timeout=10)
        return answer.status_code, answer.json()

    def launch(self, job: str, day: object = None) -> str:
        """Start a run of a job; its id."""
        tags = [] if day is None else [{"key": "dagster/partition", "value": str(day)}]
        answer = self._ask(
            "mutation L($p: ExecutionParams!) { launchRun(executionParams: $p)"
            " { __typename ... on LaunchRunSuccess { run { runId } }"
            " ... on PythonError { message } } }",
            {
                "p": {
                    "selector": {**_IN, "jobName": job},
                    "runConfigData": {},
                    "executionMetadata": {"tags": tags},
                }
            },
        )["launchRun"]
        if "run" not in answer:
            raise RuntimeError(f"{job} cannot be launched: {answer}")
        return str(answer["run"]["runId"])

    def run(self, run_id: str) -> tuple[str, dict[str, str]]:
        """Status and tags of a run."""
        run = self._ask(
            "query R($id: ID!) { runOrError(runId: $id) { ... on Run"
            " { status tags { key value } } } }",
            {"id": run_id},
        )["runOrError"]
        return run["status"], {tag["key"]: tag["value"] for tag in run["tags"]}

    def stream_runs(self) -> list[str]:
        """Ids of the runs that record now."""
        runs = self._ask(
            'query { runsOrError(filter: {pipelineName: "stream_job", statuses: [STARTED]})'
            " { ... on Runs { results { runId } } } }",
            {},
        )["runsOrError"]["results"]
        return [run["runId"] for run in runs]

    def terminate(self, run_id: str) -> None:
        self._ask(
            "mutation T($id: String!) { terminateRun(runId: $id) { __typename } }", {"id": run_id}
        )

    def switch_sensor(self, name: str, *, on: bool) -> None:
        """As the switch in the UI does."""
        selector = {**_IN, "sensorName": name}
        if on:
            self._ask(
                "mutation S($s: SensorSelector!) { startSensor(sensorSelector: $s)"
                " { __typename } }",
                {"s": selector},
            )
            return
        sensor = self._ask(
            "query Q($s: SensorSelector!) { sensorOrError(sensorSelector: $s)"
            " { ... on Sensor { sensorState { id } } } }",
            {"s": selector},
        )["sensorOrError"]
        self._ask(
            "mutation S($id: String!) { stopSensor(id: $id) { __typename } }",
            {"id": sensor["sensorState"]["id"]},
        )

    def _ask(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        answer = httpx.post(
            self._graphql, json={"query": query, "variables": dict(variables)}, timeout=30
        )
        answer.raise_for_status()
        body = answer.json()
        if body.get("errors"):
            raise RuntimeError(str(body["errors"]))
        found: dict[str, Any] = body["data"]
        return found
