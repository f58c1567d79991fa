"""A small supervisor for the tests, run as a program: keeps two children, says when they run.

`python -m kalshi_platform_tests.operations.supervised HOME`
"""

import sys
from pathlib import Path

from kalshi_platform.operations.ground import only_up
from kalshi_platform.operations.processes import CODE_SERVICE
from kalshi_platform.operations.supervisor import Service, Stopped, Supervisor

# Like the code server: has a child of its own, and both note how they were asked to end.
PARENT = """
import os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
def end(number, frame):
    folder.joinpath(f"parent-{os.getpid()}").write_text(signal.Signals(number).name)
    child.wait()
    sys.exit(0)
signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
folder.joinpath("parent-runs").write_text(str(os.getpid()))
while True:
    time.sleep(60)
"""
CHILD = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def end(number, frame):
    folder.joinpath("child-ended").write_text(signal.Signals(number).name)
    sys.exit(0)
signal.signal(signal.SIGINT, end)
folder.joinpath("child-runs").write_text(str(os.getpid()))
while True:
    time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(60)
"""


def main(home: Path) -> None:
    with only_up(home) as lock:
        supervisor = Supervisor(home, lambda line: print(line, flush=True), lock)
        supervisor.catch_signals()
        python = sys.executable
        try:
            supervisor.start(Service(CODE_SERVICE, (python, "-c", PARENT, str(home), CHILD), {}))
            supervisor.start(Service("plain", (python, "-c", "import time; time.sleep(600)"), {}))
            while True:
                supervisor.wait(60)
        except Stopped:
            supervisor.stop()
        print("stopped", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
