"""The recorder's lines reach the run's log, and never hold up the recorder."""

import threading

import structlog
from sqlalchemy.exc import OperationalError

from kalshi_platform.orchestration import runlog
from kalshi_platform.orchestration.runlog import RunLog


class Log:
    """A run's log whose storage can be taken away."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.down = False

    def log(self, level: int, line: str) -> None:
        if self.down:
            raise OperationalError("INSERT", {}, Exception("the server is gone"))
        self.lines.append(line)

    def warning(self, line: str, *values: object) -> None:
        self.log(30, line % values)


def test_a_line_from_any_thread_is_written_with_its_fields():
    log = Log()
    run_log = RunLog(log)
    with run_log.capture():
        logger = structlog.get_logger()
        thread = threading.Thread(
            target=lambda: logger.warning("gap", first_seq=4, channel="trade")
        )
        thread.start()
        thread.join()
    assert run_log.write()
    assert log.lines == ["gap first_seq=4 channel=trade"]


def test_an_exception_keeps_its_traceback():
    log = Log()
    run_log = RunLog(log)
    with run_log.capture():
        try:
            raise ValueError("broken frame")
        except ValueError:
            structlog.get_logger().exception("loader_failed")
    run_log.write()
    assert log.lines[0].startswith("loader_failed\nTraceback")
    assert "broken frame" in log.lines[0]


def test_lines_wait_while_the_storage_is_down_and_come_in_order():
    log = Log()
    log.down = True
    run_log = RunLog(log)
    run_log.put(20, "first")
    assert not run_log.write()
    run_log.put(20, "second")
    assert not run_log.write()
    log.down = False
    assert run_log.write()
    assert log.lines == ["first", "second"]


def test_a_long_outage_keeps_the_newest_lines_and_says_how_many_went(monkeypatch):
    monkeypatch.setattr(runlog, "_WAITING_LINES", 3)
    log = Log()
    log.down = True
    run_log = RunLog(log)
    for number in range(5):
        run_log.put(20, str(number))
        run_log.write()
    log.down = False
    run_log.write()
    assert log.lines == ["2 lines were let go while the log was down", "2", "3", "4"]


def test_logging_is_as_before_after_the_run():
    before = structlog.get_config()
    with RunLog(Log()).capture():
        assert structlog.get_config() != before
    assert structlog.get_config() == before
