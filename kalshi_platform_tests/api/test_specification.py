"""The OpenAPI document against the running API: every operation, asked well and badly.

Schemathesis makes up requests from the document (its examples, every boundary, seeded dice), sends
them to a server of its own on a database with rows, and holds each answer to what is documented.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import validator_for

from api.app import create_app
from api.specification import operations
from kalshi_platform.storage.embedded import EmbeddedDatabase
from kalshi_platform_tests.api.populated import populate
from kalshi_platform_tests.api.serving import served

# Every check but those that ask for resources made and deleted; that want an answer to any valid
# text for a ticker, any two instants for a window and any text for a cursor; and that send wrong
# keys beside a right one (`test_hostile_inputs` has them). Stale data is a 503 of /health, as
# documented.
_CONFIG = """
[checks]
positive_data_acceptance.enabled = false
use_after_free.enabled = false
ensure_resource_availability.enabled = false
object_level_authorization.enabled = false
ignored_auth.enabled = false

[[operations]]
include-path = "/health"
checks.not_a_server_error.enabled = false
"""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app("postgresql://nobody@203.0.113.1/none", simulated=True).openapi()


@pytest.mark.timeout(300)
def test_every_answer_is_as_documented(postgres: EmbeddedDatabase, tmp_path: Path, document):
    url = postgres.create_database("specification", template="migrated")
    key = populate(url)
    config = tmp_path / "schemathesis.toml"
    config.write_text(_CONFIG)
    report = tmp_path / "report.ndjson"
    with served(url, tmp_path) as api:
        run = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
                *("run", f"{api.url}/openapi.json", "--header", f"X-API-Key: {key}"),
                *("--phases", "examples,coverage,fuzzing"),
                # One worker: Python 3.11's ast.parse, with which Hypothesis describes lambdas, may
                # fail when two threads are in it.
                *("--max-examples", "12", "--seed", "5", "--no-shrink", "--workers", "1"),
                *("--request-timeout", "20", "--no-color", "--report", "ndjson"),
                *("--report-ndjson-path", str(report)),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=280,
            check=False,
        )
        alive = api.process.poll() is None
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
    assert alive
    asked = report.read_text()
    for method, path, _ in operations(document):
        assert f'"{method.upper()} {path}"' in asked, f"{method} {path} was never asked"


def test_every_answer_has_an_example_of_its_own_shape(document):
    known = {"components": document["components"]}
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            for media_type, content in answer["content"].items():
                if media_type == "text/plain":
                    continue
                told = content.get("examples", {"": {"value": content.get("example")}})
                assert told, (method, path, status)
                validate = validator_for(content["schema"] | known)
                for example in told.values():
                    validate.validate(json.loads(json.dumps(example["value"])))


def test_every_answer_names_its_headers(document):
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            headers = answer["headers"]
            assert headers["X-Request-Id"]["required"]
            if "security" not in operation:
                continue
            if status == "200":
                assert {"X-Credits-Cost", "X-Credits-Remaining", "RateLimit-Limit"} <= set(headers)
            assert ("Retry-After" in headers) is (status in ("429", "503")), (method, path, status)
            assert ("WWW-Authenticate" in headers) is (status == "401")


def test_operations_have_short_names(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert all(name.count("_") <= 2 for name in names), names
