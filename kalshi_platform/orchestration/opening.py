"""Opens Dagster's books before its services do: `python -m kalshi_platform.orchestration.opening`.

Webserver, daemon and code server all make Dagster's tables where there are none, and would meet in
that on a first start. `--close-all` says that no process of the books' runs is left.
"""

import sys

import dagster as dg

from kalshi_platform.orchestration.runs import close_all_runs, close_dead_runs


def main(arguments: list[str]) -> None:
    with dg.DagsterInstance.get() as instance:
        close = close_all_runs if "--close-all" in arguments else close_dead_runs
        for run_id in close(instance):
            print(f"Closed run {run_id[:8]} in Dagster's books: its process is gone.", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
