"""What keys may do: plans of credits a month and requests a second."""

from typing import NamedTuple


class Plan(NamedTuple):
    """What a key of this plan gets; a key may be given other figures when it is made."""

    name: str
    monthly_credits: int
    requests_per_second: int


# `local` is for whoever runs the platform: limits that nobody meets.
LOCAL = Plan("local", 1_000_000_000, 10_000)
PLANS = {
    plan.name: plan
    for plan in (
        Plan("free", 10_000, 2),
        Plan("basic", 1_000_000, 10),
        Plan("pro", 20_000_000, 50),
        LOCAL,
    )
}
