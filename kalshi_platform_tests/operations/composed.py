"""docker-compose.yml as Docker Compose reads it, and its services as processes of this machine.

Paths, host names and ports of the containers are replaced by those of a folder and of 127.0.0.1;
commands, entry points, environments, health checks, order and conditions are the file's own.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kalshi_platform_tests.operations import postgres_image
from kalshi_platform_tests.ports import free_ports

ROOT = Path(__file__).parents[2]
_OUR_PATH = (str(Path(sys.executable).parent), str(postgres_image.programs()))
_SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
MARK = "KALSHI_REHEARSAL"  # in the environment of every process: folder:service


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Compose's ${NAME}, ${NAME:-otherwise}, ${NAME:+instead}, nested; $$ is a dollar."""
    done = ""
    while text:
        before, dollar, text = text.partition("$")
        done += before
        if not dollar:
            break
        if text.startswith("$"):
            done, text = done + "$", text[1:]
            continue
        assert text.startswith("{"), f"only ${{…}} is used here: ${text}"
        inner, text = _braced(text)
        match = re.fullmatch(r"(\w+)(?::([-+])(.*))?", inner, re.DOTALL)
        assert match is not None, inner
        name, sign, other = match.groups()
        value = variables.get(name, "")
        if (sign == "-" and not value) or (sign == "+" and value):
            value = interpolated(other, variables)
        done += value
    return done


def _braced(text: str) -> tuple[str, str]:
    depth = 0
    for at, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0:
            return text[1:at], text[at + 1 :]
    raise AssertionError(f"a brace is not closed: {text}")


def read_compose(variables: Mapping[str, str], path: Path = ROOT / "docker-compose.yml") -> Any:
    """The file with anchors merged and variables put in."""

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: resolve(value) for key, value in node.items()}
        if isinstance(node, list):
            return [resolve(value) for value in node]
        return interpolated(node, variables) if isinstance(node, str) else node

    return resolve(yaml.safe_load(path.read_text()))


def seconds(duration: str) -> float:
    """Compose's 90s, 1m30s."""
    parts = re.findall(r"(\d+)(ms|s|m|h)", duration)
    assert "".join(number + unit for number, unit in parts) == duration, duration
    return sum(int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[u] for number, u in parts)


def image_environment() -> dict[str, str]:
    """What the Dockerfile's ENV lines set."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = re.findall(r"^ENV (.+)$", text, re.MULTILINE)
    return dict(word.split("=", 1) for line in lines for word in shlex.split(line))


def image_files() -> dict[str, Path]:
    """Files that the Dockerfile puts at the root of the image."""
    copied = re.findall(r"^COPY (\S+) (/\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return {target: ROOT / source for source, target in copied}


def image_entrypoint() -> list[str]:
    [line] = re.findall(r"^ENTRYPOINT (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    entrypoint: list[str] = yaml.safe_load(line)
    return entrypoint


@dataclass
class Rehearsal:
    """The services of the file as processes.

    Args:
        folder: stands for all volumes.
        dotenv: what the operator's .env says.
    """

    folder: Path
    dotenv: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.compose = read_compose(self.dotenv)
        self.services: dict[str, Any] = self.compose["services"]
        inner = ("5432", "3000", "4266", "8000", "8090", "8091")
        self.ports = dict(zip(inner, map(str, free_ports(len(inner))), strict=True))
        self._paths = {
            **{path: str(file) for path, file in image_files().items()},
            **{
                f"/run/secrets/{name}": str((ROOT / secret["file"]).resolve())
                for name, secret in self.compose["secrets"].items()
            },
        }
        for name in self.compose["volumes"]:
            (self.folder / name).mkdir()
        self._paths |= {"/data": f"{self.folder}/data", "/secrets": f"{self.folder}/secrets"}

    def translated(self, value: str) -> str:
        """A value of the file with the paths, hosts and ports of this machine."""
        for path in sorted(self._paths, key=len, reverse=True):
            value = re.sub(rf"(?<![\w/]){path}(?![\w-])", self._paths[path], value)
        names = "|".join(self.services)
        value = re.sub(rf"(?<=[@/])({names})(?=:\d)", "127.0.0.1", value)
        value = value.replace("0.0.0.0", "127.0.0.1")
        return re.sub(
            r"(?<![\w./-])\d{4}(?!\w)", lambda port: self.ports.get(port[0], port[0]), value
        )

    def command(self, name: str) -> list[str]:
        """Entry point and command of a service."""
        service = self.services[name]
        if service["image"].startswith("postgres:"):
            stand_in = [sys.executable, "-m", postgres_image.__name__]
            return [*stand_in, *map(self.translated, service["command"])]
        words = [*service.get("entrypoint", image_entrypoint()), *service["command"]]
        hosts = {"--grpc-host"}
        return [
            "127.0.0.1" if before in hosts else self.translated(word)
            for before, word in zip(["", *words], words, strict=False)
        ]

    def environment(self, name: str) -> dict[str, str]:
        """The whole environment of a service: nothing of this machine's but where programs are."""
        service = self.services[name]
        given = dict(self.dotenv) if service.get("env_file") else {}
        own = {**image_environment(), **given, **service.get("environment", {})}
        translated = {key: self.translated(str(value)) for key, value in own.items()}
        (self.folder / "tmp").mkdir(exist_ok=True)
        if service["image"].startswith("postgres:"):
            translated |= {
                "PGDATA": f"{self.folder}/postgres/18/docker",
                "PGPORT": self.ports["5432"],
            }
        return {
            **translated,
            "PATH": os.pathsep.join([*_OUR_PATH, *_SYSTEM_PATH]),
            "HOME": f"{self.folder}/tmp",
            MARK: f"{self.folder}:{name}",
        }

    def order(self, names: set[str]) -> list[str]:
        """The services, each after those that it depends on, in the order of the file."""
        ordered: list[str] = []

        def add(name: str) -> None:
            for needed, how in self.services[name].get("depends_on", {}).items():
                if needed in names:
                    add(needed)
                else:
                    assert how.get("required") is False or needed in self.running, needed
            if name not in ordered:
                ordered.append(name)

        for name in self.services:
            if name in names:
                add(name)
        return ordered

    def start(self, name: str, **environment: str) -> None:
        """Start a service once the conditions of its `depends_on` hold."""
        for needed, how in self.services[name].get("depends_on", {}).items():
            if needed in self.running:
                self.wait_for(needed, how["condition"])
        with self.log(name).open("ab") as log:
            self.running[name] = subprocess.Popen(
                self.command(name),
                cwd=self.folder,
                env=self.environment(name) | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, name: str, condition: str) -> None:
        process = self.running[name]
        if condition == "service_completed_successfully":
            assert process.wait(60) == 0, self.said(name)
            return
        assert condition == "service_healthy", condition
        check = self.services[name]["healthcheck"]
        limit = (
            seconds(check.get("start_period", "0s")) + seconds(check["interval"]) * check["retries"]
        )
        deadline = time.monotonic() + limit
        while (found := self.health(name)).returncode != 0:
            assert process.poll() is None, f"{name} ended with {process.returncode}: " + self.said(
                name
            )
            assert time.monotonic() < deadline, f"{name}: {found.stdout}\n{self.said(name)}"
            time.sleep(min(1, seconds(check.get("start_interval", check["interval"]))))

    def health(self, name: str) -> subprocess.CompletedProcess[str]:
        """The service's own health check, once."""
        check = self.services[name]["healthcheck"]
        kind, *words = check["test"]
        command = [self.translated(word) for word in words]
        return subprocess.run(
            command if kind == "CMD" else ["sh", "-c", *command],
            cwd=self.folder,
            env=self.environment(name),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds(check["timeout"]) * 2,  # the machine may be busy with other tests
        )

    def run_in(self, name: str, *command: str) -> str:
        """docker compose exec NAME COMMAND: its output."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(name),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self, name: str) -> tuple[int, float]:
        """docker compose stop NAME: the exit code and the seconds it took.

        Fails if the service needs longer than its grace period, or leaves a process behind.
        """
        process = self.running.pop(name)
        grace = seconds(self.services[name].get("stop_grace_period", "10s"))
        began_at = time.monotonic()
        # The image of PostgreSQL has a signal of its own.
        own = "SIGINT" if name == "postgres" else "SIGTERM"
        process.send_signal(signal.Signals[self.services[name].get("stop_signal", own)])
        try:
            code = process.wait(grace)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} did not end in {grace:g} s: {self.said(name)}") from None
        left = list(self.processes(name))
        assert left == [], f"{name} left {left}"
        return code, time.monotonic() - began_at

    def processes(self, name: str = "") -> Iterator[tuple[int, str]]:
        """What is alive of a service, or of all of them."""
        mark = f"{MARK}={self.folder}:{name}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    variables = (entry / "environ").read_bytes().split(b"\0")
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue  # gone meanwhile
                if any(v == mark or (not name and v.startswith(mark)) for v in variables):
                    yield int(entry.name), command

    def kill_all(self) -> None:
        while found := list(self.processes()):
            for pid, _ in found:
                os.kill(pid, signal.SIGKILL)
            for process in self.running.values():
                process.poll()
            time.sleep(0.05)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> str:
        return self.log(name).read_text()[-3000:]
