"""The files beside the code say what is true: Makefile, README, .ci/run, compose, constraints."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
JOBS = ("up", "test", "check", "drill", "bench", "help", "clean", "install")


def test_every_job_of_the_makefile_exists_and_is_listed_by_help() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert sorted(line.split()[0] for line in listed.splitlines()) == sorted(JOBS)


def test_up_hands_make_over_to_the_supervisor() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\nup:")[1].split("\n")[1]
    assert recipe.strip() == "@exec $(BIN)/kalshi-platform up"


def test_the_automatic_run_calls_the_readmes_test_command() -> None:
    commands = re.findall(r"^```\n(make \w+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands == ["make up", "make test"]
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    lines = run.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_constraints_are_names_and_versions_and_cover_what_the_project_asks_for() -> None:
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+!]+", line)] == []
    locked = {normal(line.split("==")[0]) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {normal(re.split(r"[<>=\[ ]", requirement)[0]) for requirement in asked}
    assert names - locked == set()


def test_the_image_takes_everything_it_copies() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert [source for source in sources if not (ROOT / source).exists()] == []


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
