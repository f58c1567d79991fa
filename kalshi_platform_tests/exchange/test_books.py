"""The book subscription of one connection, without a socket: what it asks for, and when."""

import itertools

import pytest

from kalshi_platform.exchange.book_subscription import BookSubscription
from kalshi_platform.exchange.books import Books

T = [f"KXTEST-{number:03d}" for number in range(300)]


class Exchange:
    """A made-up exchange that answers each command, and the clock; an error code refuses some.

    Args:
        known: markets that exist; None: all.
        most: so many books are allowed.
    """

    def __init__(self, *wanted: str, known=None, most: int | None = None, disliked=(), **options):
        self.books = Books(**options)
        self.books.wanted = wanted
        self.known, self.most, self.disliked = known, most, set(disliked)
        self.now = 1_000.0
        self.events: list[dict] = []
        self.commands: list[dict] = []
        self.sent_at: list[float] = []
        self.watched: set[str] = set()
        self.mute = False
        self.too_fast = 0
        self.snapshots = True
        self._sids = itertools.count(1)
        ids = itertools.count(1)
        self.here = BookSubscription(self.books, lambda: next(ids), self.tell, 60)

    def tell(self, event, **fields):
        self.events.append({"event": event, **fields})

    def told(self, event):
        return [
            {key: value for key, value in one.items() if key != "event"}
            for one in self.events
            if one["event"] == event
        ]

    def run(self, seconds: float) -> list[dict]:
        """Let time pass; the commands sent meanwhile."""
        before, until = len(self.commands), self.now + seconds
        while self.now < until:
            self.now += 0.1
            command = self.here.next_command(self.now)
            if command is not None:
                self.commands.append(command)
                self.sent_at.append(self.now)
                if not self.mute:
                    self.answer(command)
        return self.commands[before:]

    def answer(self, command):
        number, params = command["id"], command["params"]
        if self.too_fast:
            self.too_fast -= 1
            self.here.error(number, None, 27, "too many requests", self.now)
            return
        tickers = params.get("market_tickers", [])
        action = params.get("action", command["cmd"])
        exist = [one for one in tickers if self.known is None or one in self.known]
        if action == "unsubscribe":
            self.watched.clear()
            self.here.unsubscribed(self.here.sid)
        elif action == "get_snapshot":
            self.send_snapshots(one for one in exist if one in self.watched)
        elif action == "delete_markets":
            self.watched.difference_update(tickers)
            self.ok(number)
        elif self.disliked.intersection(tickers):
            self.here.error(number, self.here.sid, 11, "invalid parameter", self.now)
        elif self.most is not None and len(self.watched.union(exist)) > self.most:
            self.here.error(number, self.here.sid, 26, "market limit exceeded", self.now)
        else:
            new = [one for one in exist if one not in self.watched]
            self.watched.update(exist)
            if action == "subscribe":
                self.seq = 0
                self.here.subscribed(number, next(self._sids), self.now)
            else:
                self.ok(number)
            self.send_snapshots(new)

    def ok(self, number):
        self.seq += 1
        self.here.numbered(self.seq, self.now)
        self.here.listed(number, self.here.sid, self.seq, sorted(self.watched), self.now)

    def send_snapshots(self, tickers):
        for ticker in tickers if self.snapshots else ():
            self.seq += 1
            self.here.numbered(self.seq, self.now)
            self.here.snapshot(ticker)

    def delta(self, seq: int | None = None):
        self.seq = self.seq + 1 if seq is None else seq
        self.here.numbered(self.seq, self.now)

    @property
    def report(self):
        return self.books.report

    def asked(self, action: str) -> list[list[str]]:
        return [
            command["params"]["market_tickers"]
            for command in self.commands
            if command["params"].get("action", command["cmd"]) == action
        ]


def test_nothing_wanted_is_nothing_asked_for():
    exchange = Exchange()
    assert exchange.run(700) == []
    assert exchange.events == []


def test_books_are_asked_for_a_hundred_at_a_time_and_at_most_five_times_a_second():
    exchange = Exchange(*T[:250])
    exchange.run(1)
    assert [len(one["params"]["market_tickers"]) for one in exchange.commands] == [100, 100, 50]
    assert exchange.commands[0]["params"]["use_yes_price"] is False
    assert "skip_ticker_ack" not in exchange.commands[0]["params"]
    assert all(b - a > 0.19 for a, b in itertools.pairwise(exchange.sent_at))
    assert exchange.report.watched == set(T[:250])
    assert not exchange.report.refused
    assert exchange.told("subscribe") == [
        {"channel": "orderbook_delta", "cause": "", "use_yes_price": 0}
    ]
    assert exchange.told("books") == [
        {"added": 100, "removed": 0, "watched": 100},
        {"added": 100, "removed": 0, "watched": 200},
        {"added": 50, "removed": 0, "watched": 250},
    ]


def test_which_prices_were_asked_for_is_on_the_tape():
    exchange = Exchange(T[0], use_yes_price=True)
    [command] = exchange.run(1)
    assert command["params"]["use_yes_price"] is True
    assert exchange.told("subscribe")[0]["use_yes_price"] == 1


def test_a_change_of_what_is_wanted_removes_before_it_adds():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    exchange.books.wanted = (T[1], T[5])
    removal, addition = exchange.run(1)
    assert (removal["params"]["action"], removal["params"]["market_tickers"]) == (
        "delete_markets",
        [T[0], T[2]],
    )
    assert addition["params"]["market_tickers"] == [T[5]]
    assert exchange.report.watched == {T[1], T[5]}


def test_when_nothing_is_wanted_any_more_the_subscription_is_left_and_may_come_back():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    exchange.books.wanted = ()
    [command] = exchange.run(1)
    assert command["cmd"] == "unsubscribe"
    assert exchange.here.sid is None
    assert exchange.run(100) == []
    exchange.books.wanted = (T[1],)
    [command] = exchange.run(1)
    assert (command["cmd"], exchange.report.watched) == ("subscribe", {T[1]})


def test_a_jump_of_the_numbers_asks_for_all_snapshots_within_a_second():
    exchange = Exchange(*T[:250])
    exchange.run(5)
    exchange.delta(exchange.seq + 2)
    exchange.run(1)
    assert sorted(itertools.chain(*exchange.asked("get_snapshot"))) == T[:250]
    assert [one["markets"] for one in exchange.told("snapshots_asked")] == [100, 100, 50]
    assert {one["cause"] for one in exchange.told("snapshots_asked")} == {"sequence_jump"}
    assert exchange.report.watched == set(T[:250])
    assert exchange.run(50) == []


def test_between_jump_and_snapshot_no_book_counts_as_watched():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    exchange.snapshots = False
    exchange.delta(exchange.seq + 2)
    exchange.run(0.5)
    assert exchange.report.watched == set()


def test_a_snapshot_that_did_not_come_is_asked_for_again_after_five_seconds():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    exchange.snapshots = False
    exchange.delta(exchange.seq + 2)
    exchange.run(1)
    exchange.here.snapshot(T[0])
    exchange.snapshots = True
    exchange.run(5)
    assert [sorted(one) for one in exchange.asked("get_snapshot")] == [T[:3], T[1:3]]
    assert exchange.sent_at[-1] - exchange.sent_at[-2] == pytest.approx(5, abs=0.2)
    assert exchange.report.watched == set(T[:3])


def test_numbers_that_come_late_or_twice_are_no_jump():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    last = exchange.seq
    for number in (last + 1, last, last + 1, last + 2):
        exchange.here.numbered(number, exchange.now)
    assert exchange.run(10) == []


def test_one_absurd_number_does_not_hide_the_next_jump():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    last = exchange.seq
    exchange.delta(last + 1_000_000)
    exchange.seq = last
    exchange.run(1)
    asked = len(exchange.commands)
    exchange.delta(exchange.seq + 5)
    assert len(exchange.run(1)) == 1
    assert len(exchange.commands) == asked + 1


def test_a_book_that_the_reader_cannot_use_is_asked_for():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    exchange.books.doubted.extend([T[1], "KXNEVER"])
    [command] = exchange.run(10)
    assert command["params"]["action"] == "get_snapshot"
    assert command["params"]["market_tickers"] == [T[1]]
    assert exchange.told("snapshots_asked") == [{"cause": "not known to the reader", "markets": 1}]


def test_a_book_whose_snapshot_is_old_is_asked_for():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    exchange.books.outdated.extend([T[1], "KXNEVER", T[2]])
    [command] = exchange.run(10)
    assert command["params"]["market_tickers"] == [T[1], T[2]]
    assert exchange.told("snapshots_asked") == [{"cause": "the last one is old", "markets": 2}]
    assert exchange.report.watched == set(T[:3])


@pytest.mark.parametrize("refusal", [None, 16, 18, 27])
def test_a_fresh_snapshot_that_is_not_to_be_had_ends_no_book(refusal):
    exchange = Exchange(*T[:3])
    exchange.run(1)
    exchange.mute = True
    exchange.books.outdated.extend(T[:3])
    [command] = exchange.run(1)
    exchange.mute = False
    if refusal is not None:
        sid = exchange.here.sid
        assert exchange.here.error(command["id"], sid, refusal, "not now", exchange.now)
    for _ in range(30):
        assert exchange.run(1) == []
        exchange.delta()
    assert exchange.report.watched == set(T[:3])
    assert not exchange.report.refused


@pytest.mark.parametrize("code", [7, 10, 25])
def test_a_subscription_that_ends_upon_being_asked_is_made_anew(code):
    exchange = Exchange(*T[:3])
    exchange.run(10)
    exchange.mute = True
    exchange.books.outdated.append(T[0])
    [command] = exchange.run(1)
    exchange.mute = False
    exchange.watched.clear()
    assert exchange.here.error(command["id"], exchange.here.sid, code, "gone", exchange.now)
    assert [one["cmd"] for one in exchange.run(5)] == ["subscribe"]
    assert exchange.report.watched == set(T[:3])


def test_what_was_asked_for_long_ago_is_not_remembered():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    for _ in range(300):
        exchange.books.doubted.append(T[1])
        exchange.run(1)
    assert len(exchange.told("snapshots_asked")) == 300
    assert len(exchange.here._snapshots_asked) <= 100


def test_quiet_books_are_asked_for_one_snapshot_and_not_subscribed_again():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    commands = exchange.run(190)
    assert [one["params"]["action"] for one in commands] == ["get_snapshot"] * 3
    assert all(one["params"]["market_tickers"] == [T[0]] for one in commands)
    assert exchange.report.watched == set(T[:3])


def test_a_subscription_that_has_stopped_is_left_and_asked_for_again():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    exchange.snapshots = False
    commands = exchange.run(78)
    assert [one["cmd"] for one in commands[-2:]] == ["unsubscribe", "subscribe"]
    assert exchange.told("subscribe")[1]["cause"] == "no snapshot: silence for 60 s"


@pytest.mark.parametrize("code", [10, 25])
def test_a_subscription_that_was_ended_is_asked_for_again(code):
    exchange = Exchange(*T[:3])
    exchange.run(5)
    exchange.watched.clear()
    exchange.here.error(None, exchange.here.sid, code, "slow", exchange.now)
    [command] = exchange.run(1)
    assert (command["cmd"], command["params"]["market_tickers"]) == ("subscribe", T[:3])
    assert exchange.told("subscribe")[1]["cause"] == f"code {code}: slow"
    assert exchange.report.watched == set(T[:3])


def test_a_subscription_that_is_ended_at_once_waits_ten_seconds():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    exchange.watched.clear()
    exchange.here.error(None, exchange.here.sid, 25, "slow", exchange.now)
    assert exchange.run(9) == []
    assert len(exchange.run(2)) == 1


@pytest.mark.parametrize("most", [1, 7, 99, 100, 101, 120, 199])
def test_too_many_books_are_given_up_from_the_end_and_tried_again_later(most):
    exchange = Exchange(*T[:220], most=most)
    exchange.run(10)
    assert exchange.watched == set(T[:most])
    assert exchange.report.watched == set(T[:most])
    assert set(exchange.report.refused) == set(T[most:220])
    assert set(exchange.report.refused.values()) == {"code 26: market limit exceeded"}
    assert exchange.told("books_refused") == [
        {"code": 26, "cause": "code 26: market limit exceeded", "markets": 220 - most}
    ]
    later = exchange.run(500)
    assert {one["params"]["action"] for one in later} == {"get_snapshot"}  # the quiet are asked
    exchange.most = 210
    exchange.run(100)
    exchange.run(10)
    assert exchange.watched == set(T[:210])


def test_a_limit_of_none_leaves_no_subscription():
    exchange = Exchange(*T[:5], most=0)
    exchange.run(10)
    assert exchange.here.sid is None
    assert set(exchange.report.refused) == set(T[:5])
    exchange.most = 5
    exchange.run(610)
    assert exchange.report.watched == set(T[:5])


def test_under_a_limit_a_more_wanted_book_takes_the_place_of_the_least_wanted():
    exchange = Exchange(*T[:5], most=5)
    exchange.run(1)
    exchange.books.wanted = (T[0], T[9], *T[1:5])
    exchange.run(5)
    assert exchange.watched == {T[0], T[9], *T[1:4]}


def test_commands_that_come_too_fast_wait_longer_each_time():
    exchange = Exchange(*T[:3])
    exchange.too_fast = 4
    exchange.run(30)
    waits = [b - a for a, b in itertools.pairwise(exchange.sent_at)]
    assert waits == pytest.approx([1, 2, 4, 8], abs=0.25)
    assert exchange.report.watched == set(T[:3])
    exchange.too_fast = 1
    exchange.books.wanted = tuple(T[:4])
    exchange.run(3)
    assert exchange.sent_at[-1] - exchange.sent_at[-2] == pytest.approx(1, abs=0.2)


def test_snapshots_that_were_refused_for_haste_are_asked_for_again():
    exchange = Exchange(*T[:3])
    exchange.run(1)
    exchange.too_fast = 1
    exchange.delta(exchange.seq + 2)
    assert len(exchange.run(2)) == 2
    assert exchange.report.watched == set(T[:3])


def test_an_unknown_ticker_is_set_apart_and_asked_for_again_after_five_minutes():
    exchange = Exchange(*T[:3], known=set(T[:2]))
    exchange.run(20)
    assert exchange.report.watched == set(T[:2])
    assert exchange.report.refused == {T[2]: "no snapshot came"}
    exchange.books.wanted = (*T[:3], "KXNOPE")
    exchange.run(1)
    assert exchange.report.refused["KXNOPE"] == "not in the exchange's list"
    exchange.known.add(T[2])
    exchange.run(305)
    assert exchange.report.watched == set(T[:3])
    assert set(exchange.report.refused) == {"KXNOPE"}
    assert exchange.asked("add_markets").count(["KXNOPE"]) == 2


def test_only_unknown_tickers_disturb_nobody():
    exchange = Exchange("KXNOPE", known=())
    exchange.run(900)
    assert exchange.report.refused == {"KXNOPE": "no snapshot came"}
    assert len(exchange.asked("subscribe")) == 3


def test_a_ticker_for_which_the_whole_list_is_refused_is_found():
    exchange = Exchange(*T[:150], disliked={T[70], T[120]})
    exchange.run(20)
    assert exchange.report.watched == set(T[:150]) - {T[70], T[120]}
    assert exchange.report.refused == dict.fromkeys((T[70], T[120]), "code 11: invalid parameter")


def test_a_command_that_is_not_answered_is_sent_again_less_and_less_often():
    exchange = Exchange(*T[:3])
    exchange.mute = True
    exchange.run(400)
    waits = [b - a for a, b in itertools.pairwise(exchange.sent_at)]
    assert waits == pytest.approx([10, 20, 30, 50, 90, 170], abs=1)
    assert {one["cause"] for one in exchange.told("subscribe")[1:]} == {"not acknowledged"}


def test_the_answer_to_a_subscription_asked_for_twice_is_taken():
    exchange = Exchange(*T[:3])
    exchange.mute = True
    first, second = exchange.run(12)
    exchange.seq = 0
    exchange.here.subscribed(first["id"], 7, exchange.now)
    exchange.watched.update(T[:3])
    exchange.ok(second["id"])
    exchange.mute = False
    exchange.send_snapshots(T[:3])
    assert exchange.run(5) == []
    assert exchange.report.watched == set(T[:3])


def test_a_channel_that_is_not_known_is_not_asked_for_again():
    exchange = Exchange(*T[:2])
    exchange.mute = True
    [command] = exchange.run(1)
    exchange.here.error(command["id"], None, 8, "Unknown channel name", exchange.now)
    exchange.mute = False
    assert exchange.run(900) == []
    assert exchange.report.refused == dict.fromkeys(T[:2], "code 8: Unknown channel name")


def test_what_others_are_told_is_not_taken():
    exchange = Exchange()
    assert not exchange.here.subscribed(1, 4, exchange.now)
    exchange = Exchange(*T[:2])
    exchange.run(1)
    sid = exchange.here.sid
    assert not exchange.here.listed(99, sid + 1, 1, [], exchange.now)
    assert not exchange.here.error(99, None, 1, "what?", exchange.now)
    assert not exchange.here.error(None, sid + 1, 25, "slow", exchange.now)
    assert not exchange.here.unsubscribed(sid + 1)
    assert exchange.report.watched == set(T[:2])


def test_an_exchange_without_snapshots_on_demand_is_subscribed_anew():
    exchange = Exchange(*T[:2])
    exchange.run(5)
    exchange.mute = True
    exchange.delta(exchange.seq + 2)
    [command] = exchange.run(0.5)
    exchange.mute = False
    exchange.here.error(command["id"], exchange.here.sid, 13, "unsupported", exchange.now)
    commands = exchange.run(1)
    assert [one["cmd"] for one in commands] == ["unsubscribe", "subscribe"]
    assert exchange.report.watched == set(T[:2])


def test_after_the_connection_nothing_is_watched():
    exchange = Exchange(*T[:2])
    exchange.run(1)
    exchange.here.ended()
    assert exchange.books.report == (False, frozenset(), {})


def test_a_subscription_that_was_not_really_left_is_left_again():
    exchange = Exchange(*T[:2])
    exchange.run(5)
    old = exchange.here.sid
    exchange.mute = True
    exchange.books.wanted = ()
    exchange.run(2)
    exchange.books.wanted = tuple(T[:2])
    [command] = exchange.run(1)
    exchange.mute = False
    exchange.seq += 1
    assert exchange.here.listed(command["id"], old, exchange.seq, T[:2], exchange.now)
    commands = exchange.run(1)
    assert [one["cmd"] for one in commands] == ["unsubscribe", "subscribe"]
    assert exchange.told("subscribe")[-1]["cause"] == "subscribed twice"
    assert exchange.report.watched == set(T[:2])
