"""What refuses to start: a second `up`, a taken port, a full disk."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kalshi_platform.operations.errors import Refusal
from kalshi_platform.operations.ground import (
    free_bytes,
    only_up,
    refuse_full_disk,
    refuse_taken_ports,
    running_up,
)

HOLD = """
import sys, pathlib
from kalshi_platform.operations.ground import only_up
with only_up(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_up_in_the_same_home_is_refused_at_once(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    assert running_up(tmp_path) == first.pid
    with pytest.raises(Refusal, match=f"process {first.pid}.*KALSHI_HOME"), only_up(tmp_path):
        pass
    first.communicate("")
    assert running_up(tmp_path) is None
    with only_up(tmp_path):
        assert (tmp_path / "up.lock").read_text() == str(os.getpid())


def test_a_lock_whose_holder_is_gone_is_waited_for_then_refused(tmp_path: Path) -> None:
    with only_up(tmp_path) as lock:
        os.ftruncate(lock, 0)  # what a guardian's inherited lock looks like: no living holder
        with pytest.raises(Refusal), only_up(tmp_path, wait_seconds=0.3):
            pass


def test_a_taken_port_is_named_with_the_setting_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Refusal, match=rf"Port {port} is taken.*set API_PORT") as refused:
            refuse_taken_ports({"API_PORT": port})
    assert refused.value.exit_code == 2
    refuse_taken_ports({"API_PORT": port})


def test_one_port_for_two_services_is_refused() -> None:
    with pytest.raises(Refusal, match="DAGSTER_PORT and API_PORT are both 3000"):
        refuse_taken_ports({"DAGSTER_PORT": 3000, "API_PORT": 3000})


def test_a_full_disk_is_refused_with_the_figures(tmp_path: Path) -> None:
    refuse_full_disk(tmp_path / "not" / "made" / "yet", least=1)
    with pytest.raises(Refusal, match="GB are needed"):
        refuse_full_disk(tmp_path, least=free_bytes(tmp_path) * 2)
