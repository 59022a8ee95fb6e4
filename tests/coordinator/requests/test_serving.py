"""Serving policies: which is stricter, and which a request has that names none."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import RequestError
from coordinator.requests.serving import SERVING_POLICIES, chosen_policy, joined, strictest

HELD = st.dictionaries(st.integers(0, 5), st.sampled_from(SERVING_POLICIES))


def test_each_policy_includes_those_before_it() -> None:
    assert SERVING_POLICIES == ("mask", "exclude", "block")
    for some in permutations(SERVING_POLICIES):
        assert strictest(*some) == "block"
    assert strictest("exclude", "mask") == "exclude"


@pytest.mark.parametrize(
    ("asked", "priority", "wanted"),
    [
        (None, "normal", None),
        (None, "urgent", None),
        (None, "regulator", "exclude"),
        ("mask", "regulator", "mask"),
        ("block", "normal", "block"),
    ],
)
def test_a_regulators_request_excludes_where_it_says_nothing(
    asked: str | None, priority: str, wanted: str | None
) -> None:
    assert chosen_policy(asked, priority) == wanted


@pytest.mark.parametrize("asked", ["hide", "", "MASK"])
def test_another_policy_is_refused(asked: str) -> None:
    with pytest.raises(RequestError, match=r"choose one of \['mask', 'exclude', 'block'\]"):
        chosen_policy(asked, "normal")


@given(st.lists(HELD, max_size=4))
def test_a_shard_has_the_strictest_policy_in_whatever_order_they_come(
    held: list[dict[int, str]],
) -> None:
    found = joined(*held)  # type: ignore[arg-type]

    assert found == joined(*reversed(held)) == joined(found, *held)  # type: ignore[arg-type]
    assert list(found) == sorted({shard for one in held for shard in one})
    for shard, policy in found.items():
        assert policy == strictest(*(one[shard] for one in held if shard in one))  # type: ignore[misc]
