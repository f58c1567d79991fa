"""An outcome: the same whatever the order in which messages and REST tell it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_platform.storage.outcomes import Outcome

START = datetime(2026, 10, 1, 12, tzinfo=UTC)
READ_AT = START + timedelta(days=1)
YES, NO, TIE = ("yes", 1_000_000), ("no", 0), ("scalar", 500_000)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def cut(instant: datetime) -> datetime:
    """As a message tells it: in whole seconds."""
    return instant.replace(microsecond=0)


def determined(seconds, answer):
    return ("determined", cut(at(seconds)), answer)


def settled(seconds):
    return ("settled", cut(at(seconds)), None)


def rest(seconds, status, answer, settled_at=None):
    return (status, at(seconds), answer, settled_at and at(settled_at))


def told(*evidence) -> Outcome:
    outcome = Outcome()
    tell(outcome, *evidence)
    return outcome


def tell(outcome, *evidence):
    for one in evidence:
        if len(one) == 3 and one[0] == "determined":
            outcome.determined(*one[2], one[1], one[1])
        elif len(one) == 3:
            outcome.settled(one[1], one[1])
        else:
            status, updated_at, answer, settled_at = one
            outcome.told(
                status,
                *answer,
                settled_at=settled_at,
                updated_at=updated_at,
                source="rest",
                read_at=READ_AT,
            )


def history(outcome):
    return [(v.status, v.result, v.settlement_value_micros) for v in outcome.versions]


def test_a_determination_stands_until_it_is_paid():
    outcome = told(determined(10, YES), settled(70))
    assert history(outcome) == [("determined", *YES), ("finalized", *YES)]
    assert [version.effective_at for version in outcome.versions] == [at(10), at(70)]
    assert (outcome.determined_at, outcome.settled_at) == (at(10), at(70))
    assert outcome.confirmed_at is None
    assert not outcome.is_final, "REST has not told it"


def test_another_determination_is_an_amendment_and_a_repeated_one_is_nothing():
    outcome = told(determined(10, YES), determined(10, YES), determined(50, NO), determined(50, NO))
    assert history(outcome) == [("determined", *YES), ("amended", *NO)]
    assert outcome.determined_at == at(50)


def test_the_same_result_with_another_value_is_an_amendment():
    outcome = told(determined(10, TIE), determined(50, ("scalar", 250_000)))
    assert history(outcome) == [("determined", *TIE), ("amended", "scalar", 250_000)]


def test_a_value_that_was_not_told_contradicts_none_and_is_learnt_later():
    outcome = told(determined(10, ("yes", None)), rest(10.5, "determined", YES))
    assert history(outcome) == [("determined", *YES)]
    tell(outcome, rest(70, "finalized", ("yes", None)))
    assert history(outcome) == [("determined", *YES), ("finalized", *YES)]


def test_rest_confirms_the_version_that_a_message_told():
    outcome = told(determined(10, YES), rest(10.4, "determined", YES))
    [version] = outcome.versions
    assert (version.source, version.confirmed_at) == ("rest", READ_AT)
    assert version.effective_at == at(10)
    assert outcome.confirmed_at == READ_AT
    assert outcome.determined_at == at(10)


def test_rest_that_has_no_result_yet_erases_nothing():
    outcome = told(determined(10, YES))
    before = outcome.state()
    assert not outcome.told(
        "closed", "", None, settled_at=None, updated_at=at(90), source="rest", read_at=READ_AT
    )
    assert outcome.state() == before


def test_rest_as_of_before_the_outcome_in_force_is_no_version():
    outcome = told(determined(10, YES), determined(50, NO), rest(10.5, "determined", YES))
    assert history(outcome) == [("determined", *YES), ("amended", *NO)]
    assert outcome.confirmed_at is None


def test_rest_alone_tells_an_amendment_that_no_message_told():
    outcome = told(determined(10, YES), rest(50.5, "amended", NO))
    assert history(outcome) == [("determined", *YES), ("amended", *NO)]
    assert outcome.determined_at is None
    tell(outcome, determined(50, NO))
    assert history(outcome) == [("determined", *YES), ("amended", *NO)]
    assert outcome.determined_at == outcome.versions[-1].effective_at == at(50)


def test_rest_knows_the_payment_to_the_microsecond():
    outcome = told(determined(10, YES), settled(70), rest(71.3, "finalized", YES, 70.765432))
    assert outcome.settled_at == outcome.versions[-1].effective_at == at(70.765432)
    assert outcome.is_final
    tell(outcome, settled(70))
    assert outcome.settled_at == at(70.765432)


def test_a_payment_without_its_time_over_rest_gets_it_from_the_message():
    outcome = told(determined(10, YES), rest(71.3, "finalized", YES))
    assert outcome.settled_at is None
    tell(outcome, settled(70))
    assert outcome.settled_at == outcome.versions[-1].effective_at == at(70)
    assert history(outcome) == [("determined", *YES), ("finalized", *YES)]


def test_a_payment_before_any_result_says_nothing():
    assert told(settled(70)).versions == ()


def test_a_result_with_a_status_that_lags_behind_is_a_determination():
    assert history(told(rest(10.5, "closed", YES))) == [("determined", *YES)]


def test_rest_that_confirms_a_determination_does_not_confirm_the_payment():
    outcome = told(determined(10, YES), settled(70), rest(10.5, "determined", YES))
    assert history(outcome) == [("determined", *YES), ("finalized", *YES)]
    assert outcome.versions[-1].confirmed_at is None
    assert outcome.confirmed_at == READ_AT, "the result is confirmed"
    assert not outcome.is_final


@pytest.mark.parametrize("end", ["determined", "amended"])
def test_a_dispute_and_its_end_are_versions(end):
    ending = rest(90, "determined", YES) if end == "determined" else determined(90, YES)
    outcome = told(determined(10, YES), rest(40, "disputed", YES), ending)
    assert [version.status for version in outcome.versions] == ["determined", "disputed", end]


def test_an_amendment_that_escaped_us_is_told_by_the_final_answer():
    outcome = told(determined(10, YES), settled(70), rest(71, "finalized", NO, 70.5))
    assert history(outcome) == [("determined", *YES), ("finalized", *NO)]
    assert outcome.determined_at is None
    tell(outcome, determined(50, NO))
    assert history(outcome) == [("determined", *YES), ("amended", *NO), ("finalized", *NO)]
    assert outcome.determined_at == at(50)


def test_an_unknown_result_and_status_are_kept_as_told():
    outcome = told(rest(10.5, "under_review", ("void_refunded", None)))
    assert history(outcome) == [("under_review", "void_refunded", None)]


# Whole lives -------------------------------------------------------------------------------------

answers = st.permutations([YES, NO, TIE, ("void", 300_000)])


@st.composite
def lives(draw):
    """Messages and REST's statements of one life, in the order of the exchange's time."""
    first, second = draw(answers)[:2]
    moment = draw(st.floats(1, 100))
    evidence = [determined(moment, first), rest(moment, "determined", first)]
    versions = [("determined", *first)]
    in_force = first
    if draw(st.booleans()):
        moment += draw(st.floats(5, 100))
        evidence.append(rest(moment, "disputed", first))
        versions.append(("disputed", *first))
    if draw(st.booleans()):
        moment += draw(st.floats(5, 100))
        in_force = second
        evidence += [determined(moment, second), rest(moment, "amended", second)]
        versions.append(("amended", *second))
    moment += draw(st.floats(5, 100))
    lag = draw(st.floats(0.02, 1.7))
    evidence += [settled(moment), rest(moment + lag, "finalized", in_force, moment)]
    versions.append(("finalized", *in_force))
    last_determination = [one for one in evidence if one[0] == "determined" and len(one) == 3][-1]
    return evidence, versions, last_determination[1], at(moment)


@settings(max_examples=400, deadline=None)
@given(lives(), st.data())
def test_any_order_and_any_repetition_ends_in_the_same_outcome(life, data):
    evidence, versions, determined_at, settled_at = life
    repeated = evidence + data.draw(st.lists(st.sampled_from(evidence), max_size=6))
    outcome = told(*data.draw(st.permutations(repeated)))
    last = outcome.last
    assert (last.status, last.result, last.settlement_value_micros) == versions[-1]
    assert (last.effective_at, last.source, outcome.is_final) == (settled_at, "rest", True)
    assert (outcome.determined_at, outcome.settled_at) == (determined_at, settled_at)
    assert outcome.confirmed_at == READ_AT


@settings(max_examples=400, deadline=None)
@given(lives(), st.data())
def test_told_in_order_every_version_is_kept_once_whatever_is_repeated(life, data):
    evidence, versions, _, _ = life
    outcome = Outcome()
    for number, one in enumerate(evidence):
        tell(outcome, one)
        before = outcome.state()
        tell(outcome, *data.draw(st.lists(st.sampled_from(evidence[: number + 1]), max_size=3)))
        assert history(outcome) == [version[:3] for version in before[0]]
    assert history(outcome) == versions


@settings(max_examples=200, deadline=None)
@given(lives(), st.data())
def test_what_messages_alone_tell_does_not_depend_on_their_order(life, data):
    messages = [one for one in life[0] if len(one) == 3 and one[0] == "determined"]
    outcome = told(*data.draw(st.permutations(messages * 2)))
    assert history(outcome) == history(told(*messages))
    assert outcome.determined_at == told(*messages).determined_at


@settings(max_examples=200, deadline=None)
@given(lives(), st.data())
def test_a_life_put_away_and_taken_up_again_goes_on_as_if_it_had_stayed(life, data):
    order = data.draw(st.permutations(life[0]))
    whole, parts = Outcome(), Outcome()
    for one in order:
        tell(whole, one)
        tell(parts, one)
        parts = Outcome(parts.versions, parts.determined_at, parts.settled_at)
    assert parts.state() == whole.state()
