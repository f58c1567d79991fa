"""The feed's bookkeeping: whatever is lost lies inside a gap, whatever is not does not."""

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.ingest.feed import FeedState

START_MS = 1_790_000_000_000


def subscribed_state():
    state = FeedState()
    state.enter(1)
    assert state.subscribed("trade", 1, START_MS) is None
    return state


def ms(instant):
    return int(instant.timestamp() * 1000)


@given(st.integers(0, 2**32), st.floats(0, 0.4), st.floats(0, 0.3), st.floats(0, 0.3))
def test_every_lost_number_lies_in_a_gap(seed, loss, repeats, swaps):
    rng = random.Random(seed)
    numbers = list(range(1, 60))
    sent = [n for n in numbers if rng.random() >= loss]
    arriving = [n for n in sent for _ in range(2 if rng.random() < repeats else 1)]
    for i in range(len(arriving) - 1):
        if rng.random() < swaps:
            arriving[i], arriving[i + 1] = arriving[i + 1], arriving[i]
    state = subscribed_state()
    gaps, new = [], []
    for number in arriving:
        at_ms = START_MS + number * 10
        is_new, gap = state.sequenced(1, number, at_ms)
        state.reached("trade", at_ms, 1)
        if is_new:
            new.append(number)
        if gap:
            gaps.append(gap)
        # The state survives being saved and read between any two messages.
        state = msgspec.convert(msgspec.to_builtins(state, str_keys=True), FeedState, strict=False)
    assert sorted(new) == sorted(set(sent))
    for number in set(numbers) - set(sent):
        if number < max(sent, default=0):
            assert any(
                gap.first_seq <= number <= gap.last_seq
                and ms(gap.starts_at) <= START_MS + number * 10 <= ms(gap.ends_at)
                for gap in gaps
            )
    if set(sent) == set(numbers[: len(sent)]) and arriving == sent:
        assert gaps == []


def test_a_new_connection_after_data_leaves_a_gap_from_the_last_message():
    state = subscribed_state()
    state.sequenced(1, 1, START_MS + 500)
    state.reached("trade", START_MS + 500, 1)
    state.cause = "disconnect: connection lost"
    state.enter(2)
    gap = state.subscribed("trade", 4, START_MS + 9_000)
    assert gap is not None
    assert gap.cause == "disconnect: connection lost"
    assert (ms(gap.starts_at), ms(gap.ends_at)) == (START_MS + 500, START_MS + 9_000)


def test_sequence_numbers_begin_anew_with_a_connection():
    state = subscribed_state()
    state.sequenced(1, 1, START_MS)
    state.enter(2)
    state.subscribed("trade", 1, START_MS + 1)
    assert state.sequenced(1, 1, START_MS + 2) == (True, None)


def test_the_first_subscription_ever_is_no_gap():
    state = FeedState()
    state.enter(1)
    assert state.subscribed("ticker", 1, START_MS) is None


def test_a_message_that_could_not_be_read_is_a_gap_of_its_channel():
    state = subscribed_state()
    state.sequenced(1, 1, START_MS)
    gap = state.unread(1, START_MS + 20, "count_fp is zero")
    assert gap is not None
    assert (gap.channel, gap.cause) == ("trade", "rejected_message")


def test_messages_of_a_subscription_that_is_not_known_hide_no_outage():
    state = subscribed_state()
    state.sequenced(1, 1, START_MS + 500)
    state.reached("trade", START_MS + 500, 1)
    state.enter(2)
    # The reply that named sid 1 was lost; its trades come all the same.
    for number in range(1, 4):
        assert state.sequenced(1, number, START_MS + 9_000 + number) == (True, None)
        state.reached("trade", START_MS + 9_000 + number, 1)
    gap = state.subscribed("trade", 2, START_MS + 20_000)
    assert gap is not None
    assert (ms(gap.starts_at), ms(gap.ends_at)) == (START_MS + 500, START_MS + 20_000)


def test_a_message_under_another_channels_sid_moves_nothing():
    state = subscribed_state()
    state.subscribed("ticker", 2, START_MS)
    state.reached("trade", START_MS + 500, 2)
    assert state.channels["trade"].complete_until_ms == START_MS


def saved(state):
    return msgspec.convert(msgspec.to_builtins(state, str_keys=True), FeedState, strict=False)


def test_one_absurd_number_does_not_end_the_counting():
    state = subscribed_state()
    assert state.sequenced(1, 1, START_MS + 1) == (True, None)
    is_new, gap = state.sequenced(1, 4_000_000_000, START_MS + 2)
    assert is_new
    assert (gap.first_seq, gap.last_seq) == (2, 3_999_999_999)
    state = saved(state)
    assert state.sequenced(1, 4_000_000_000, START_MS + 3) == (False, None)
    # It stood in the place of number 2; number 4 is lost.
    assert state.sequenced(1, 3, START_MS + 4)[1].first_seq == 2
    assert state.in_order(1, 4) is True
    assert state.sequenced(1, 6, START_MS + 5)[1].first_seq == 5
    # A second absurd number long after does not confirm the first.
    state.sequenced(1, 4_000_000_001, START_MS + 6)
    assert state.in_order(1, 7) is True


def test_a_leap_that_the_next_number_confirms_is_believed():
    state = subscribed_state()
    first = state.sequenced(1, 2_000_000, START_MS + 1)[1]
    assert (first.first_seq, first.last_seq) == (1, 1_999_999)
    state = saved(state)
    second = state.sequenced(1, 2_000_002, START_MS + 2)[1]
    assert (second.first_seq, second.last_seq) == (2_000_001, 2_000_001)
    assert state.in_order(1, 2_000_003) is True
    assert state.sequenced(1, 7, START_MS + 3) == (False, None)
