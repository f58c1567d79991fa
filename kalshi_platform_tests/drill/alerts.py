"""Part five of the drill: each kind of alert is provoked once, and must arrive once, and end once.

`kalshi-platform up` records the simulated exchange while a webhook listens. What is looked at is
what the webhook hears: every alert and every recovery exactly once, and how long after its limit it
came. Then the daemon is killed, the feed stops again, and /health must say so by itself.
"""

import argparse
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from kalshi_platform.storage.engine import connect
from kalshi_platform.storage.partitions import ensure_partitions
from kalshi_platform_tests.alerting.listening import Webhook, listening
from kalshi_platform_tests.drill.platform import Platform

# From its limit to its arrival; looked at every 5 s, on a machine that does other things, too.
_MOST_SECONDS = 15.0
_STOP_SECONDS = 95
_OUTAGE_SECONDS = 150
# Before the next attempt, after some that failed.
_LONGEST_PAUSE = 80
_GAP_LIMIT, _FEED_LIMIT, _STOPPED_HOLDS = 120, 60, 30


class Provoked(NamedTuple):
    """An alert that must come, when what it is about began, and the limit it has to pass."""

    title: str
    at: float
    limit: float = 0


class Drill:
    """What was provoked, and what was heard of it."""

    def __init__(self, platform: Platform, webhook: Webhook) -> None:
        self.platform = platform
        self.webhook = webhook
        self.provoked: dict[str, Provoked] = {}

    def expect(self, title: str, limit: float = 0) -> None:
        """What begins now must be told as `title`."""
        self.provoked[title] = Provoked(title, time.time(), limit)

    def wait_for(self, title: str, seconds: float) -> None:
        self.until(lambda: title in self.webhook.titles, seconds, f"no message {title!r}")

    def wait_for_run(self, run_id: str, seconds: float) -> str:
        def status() -> str:
            return self.platform.run(run_id)[0]

        ended = ("SUCCESS", "FAILURE", "CANCELED")
        self.until(lambda: status() in ended, seconds, f"run {run_id} goes on")
        return status()

    def until(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise} within {seconds:.0f} s: {self.webhook.titles}")
            time.sleep(0.2)

    def sql(self, statement: str) -> None:
        with connect(self.platform.url) as connection:
            connection.execute(statement.encode())

    def verdict(self) -> bool:
        """Print what came of each alert; whether each came once, in time, and ended once."""
        count = Counter(self.webhook.titles)
        first = {heard.title: heard.at for heard in reversed(self.webhook.heard)}
        right = True
        for title, at, limit in self.provoked.values():
            recovery = f"RECOVERED {title.partition(' ')[2]}"
            late = first[title] - at - limit if title in first else float("nan")
            good = count[title] == 1 and count[recovery] == 1 and late <= _MOST_SECONDS
            right &= good
            print(
                f"   {title}: arrived {count[title]} ×, {late:.1f} s after its limit "
                f"({limit:.0f} s); recovered {count[recovery]} ×{'' if good else '  WRONG'}"
            )
        told = {f"RECOVERED {title.partition(' ')[2]}" for title in self.provoked}
        for title in sorted(set(count) - set(self.provoked) - told):
            print(f"   also heard: {title}, {count[title]} ×")
            right &= count[title] == 1
        return right


def alerts_told(options: argparse.Namespace) -> bool:
    """Provoke every kind; whether all of it was told as it should."""
    del options  # nothing of it is left to chance
    print("== alerts: every kind once, and the daemon killed")
    with (
        tempfile.TemporaryDirectory(prefix="kalshi-drill-") as folder,
        listening() as webhook,
    ):
        platform = Platform(Path(folder) / "home")
        drill = Drill(platform, webhook)
        settings = {"KALSHI_ALERT_WEBHOOK_URL": webhook.url}
        try:
            webhook.answer = (503, b"")
            platform.start(
                settings
                | {
                    # Above what any disk holds; a book that nobody trades.
                    "KALSHI_ALERT_DISK_PERCENT": "0.5",
                    "KALSHI_BOOKS": "busiest:20,KXNOSUCH-26NOV21-A",
                }
            )
            _provoke(drill)
            # What a setting provokes is over with the next start.
            platform.stop()
            platform.start(settings | {"KALSHI_ALERT_DISK_PERCENT": "100"})
            drill.wait_for("RECOVERED disk of the home folder", 60)
            drill.wait_for("RECOVERED books missing", 60)
            told = drill.verdict()
            return _tells_without_daemon(platform) and told
        except TimeoutError as error:
            print(f"   {error}")
            drill.verdict()
            return False
        finally:
            platform.stop()


def _provoke(drill: Drill) -> None:
    platform, webhook = drill.platform, drill.webhook
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    # Three times refused, a message is an alert of its own, which is refused as well.
    drill.until(lambda: len(webhook.refused) >= 4, 90, "nothing is told again")
    webhook.answer = (200, b"ok")
    drill.expect("ERROR disk of the home folder", _LONGEST_PAUSE)
    drill.expect("ERROR delivery by webhook", _LONGEST_PAUSE)
    drill.expect("WARNING books missing", 120)
    drill.wait_for("ERROR disk of the home folder", _LONGEST_PAUSE + 30)

    # A new connection begins to watch its books anew, and to count for how long some are missing.
    drill.wait_for("WARNING books missing", 150)
    platform.fault("rest_503", seconds=_OUTAGE_SECONDS)
    drill.expect("WARNING open gap", _GAP_LIMIT)
    platform.fault("drop_connection")
    time.sleep(5)
    drill.expect("WARNING rejected messages")
    platform.fault("malformed", channel="trade", count=1)
    drill.wait_for("WARNING rejected messages", 30)
    began = time.monotonic()
    drill.expect("ERROR stale feed", _FEED_LIMIT)
    platform.stop_feed(_STOP_SECONDS)

    _fail_a_run(drill, yesterday)
    _fail_a_check(drill)
    _miss_an_archive(drill, yesterday - timedelta(days=9))
    drill.wait_for("ERROR stale feed", 120)
    # As an operator would, who has read the messages and mended the parser.
    drill.sql("DELETE FROM rejected_messages")
    drill.sql("UPDATE quotes SET price_micros = 500000 WHERE price_micros > 1000000")
    for table in _DAYS_TABLES:
        drill.sql(f"DROP TABLE {table}_{yesterday - timedelta(days=9):%Y%m%d}")
    drill.wait_for("RECOVERED stale feed", _STOP_SECONDS + 60 - (time.monotonic() - began))
    drill.wait_for("WARNING open gap", 60)
    platform.clear_faults()
    for title in ("archive behind", "rejected messages", "open gap"):
        drill.wait_for(f"RECOVERED {title}", 60)
    for job, day in (("check_today", None), ("certify_trades", yesterday)):
        status = drill.wait_for_run(platform.launch(job, day), 120)
        print(f"   {job} again: {status}")
    drill.wait_for("RECOVERED check quotes.quotes_in_range", 60)
    drill.wait_for(f"RECOVERED run certify_trades {yesterday}", 60)
    _stop_recording(drill)


_DAYS_TABLES = (
    *("trades", "raw_trades", "quotes", "book_snapshots", "book_deltas", "lifecycle_events"),
)


def _fail_a_run(drill: Drill, day: object) -> None:
    """A sweep that waits for REST is killed."""
    run_id = drill.platform.launch("certify_trades", day)
    deadline = time.monotonic() + 60
    while "kalshi/process" not in drill.platform.run(run_id)[1]:
        if time.monotonic() > deadline:
            raise TimeoutError("the run to be killed does not start")
        time.sleep(0.1)
    pid = int(drill.platform.run(run_id)[1]["kalshi/process"].split("/")[1])
    drill.expect(f"ERROR run certify_trades {day}")
    os.kill(pid, signal.SIGKILL)
    drill.wait_for(f"ERROR run certify_trades {day}", 60)


def _fail_a_check(drill: Drill) -> None:
    """A price of two dollars stands in the table when the checks run."""
    drill.sql(
        "UPDATE quotes SET price_micros = 2000000"
        " WHERE ctid = (SELECT ctid FROM quotes LIMIT 1) AND quoted_at >= current_date"
    )
    status = drill.wait_for_run(drill.platform.launch("check_today"), 120)
    drill.expect("ERROR check quotes.quotes_in_range")
    print(f"   check_today with a wrong price: {status}")
    drill.wait_for("ERROR check quotes.quotes_in_range", 60)


def _miss_an_archive(drill: Drill, day: date) -> None:
    """A day of ten days ago is in the tables, and has been seen there for longer than a night."""
    with connect(drill.platform.url, autocommit=True) as connection:
        with connection.transaction():
            ensure_partitions(connection, [day])
        deadline = time.monotonic() + 60
        # Time is the database's, and may be moved.
        while not connection.execute(
            "UPDATE alerts SET started_at = started_at - interval '27 hours'"
            " WHERE name = 'archive behind' RETURNING name"
        ).fetchone():
            if time.monotonic() > deadline:
                raise TimeoutError("nobody has seen the day without an archive")
            time.sleep(0.2)
    drill.expect("WARNING archive behind")


def _stop_recording(drill: Drill) -> None:
    drill.platform.switch_sensor("stream_keeper", on=False)
    time.sleep(6)  # a tick that had begun may still ask for a run
    drill.expect("ERROR stopped recorder", _STOPPED_HOLDS)
    for run_id in drill.platform.stream_runs():
        drill.platform.terminate(run_id)
    drill.wait_for("ERROR stopped recorder", 90)
    drill.platform.switch_sensor("stream_keeper", on=True)
    drill.wait_for("RECOVERED stopped recorder", 90)


def _tells_without_daemon(platform: Platform) -> bool:
    """Whether /health says that the feed has stopped while nobody looks for alerts."""
    # Frozen, the supervisor starts nothing again.
    os.kill(platform.supervisor, signal.SIGSTOP)
    try:
        for pid in platform.pids("dagster-daemon"):
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        platform.stop_feed(100)
        while time.monotonic() - began < 90:
            code, body = platform.health()
            if code == 503:
                print(
                    f"   without the daemon: /health answers 503 {body['status']} "
                    f"{time.monotonic() - began:.0f} s after the feed stopped: {body['reasons']}"
                )
                return True
            time.sleep(0.5)
        print(f"   without the daemon: /health says {body['status']} {body['reasons']}  WRONG")
        return False
    finally:
        os.kill(platform.supervisor, signal.SIGCONT)
