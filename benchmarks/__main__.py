"""All benchmarks, one after the other: `make bench`, or `python -m benchmarks [NAME …]`.

Each prints its figures as ratios to a limit that is measured in the same run, since the speed of a
shared machine drifts. The soak alone takes ten minutes; `--soak-minutes 0` leaves it out.
"""

import argparse
import subprocess
import sys

BENCHMARKS = {
    "ingest": "socket to queryable trades, against raw COPY; latency",
    "births": "a thousand births of combos a second: what they do to trades",
    "candles": "candles of a 5-million-trade day, against DuckDB; one minute's refresh",
    "quoted_candles": "candles of a day of ten million quotes; one minute's refresh",
    "api": "pages, against pgbench running the same SQL",
    "reference": "lists of a million markets, against 50 ms",
    "books": "order books at random instants of a day of 20 million changes, against 300 ms",
    "archive": "a day written as Parquet, against psql COPY BINARY; read back, dropped, restored",
    "archived_pages": "pages of an archived day, against 300 ms and pages of the database",
    "sizing": "bytes on disk per row, multiplied out to a day",
    "soak": "memory of recorder and loader",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="default: all")
    parser.add_argument("--soak-minutes", type=float, default=10)
    options = parser.parse_args()
    failed = []
    for name in options.names or BENCHMARKS:
        if name == "soak" and not options.soak_minutes:
            continue
        print(f"\n== {name}: {BENCHMARKS[name]}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if name == "soak":
            command += ["--minutes", str(options.soak_minutes)]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
