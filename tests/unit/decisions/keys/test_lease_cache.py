"""A key is held for certain until its lease's end as it was seen, or its backend's end, whichever comes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.keys.lease_cache import HeldKeys
from plane.protocol.keys import KeyConfig

A, B = KeyConfig("a"), KeyConfig("b")


def test_until_the_lease_ends_or_the_backend_does() -> None:
    keys = HeldKeys()
    assert not keys.holds(A, 0)
    keys.saw(A, "one", 60)
    assert keys.holds(A, 59.9)
    assert not keys.holds(A, 60)
    # Another namespace is another key; another tag is not.
    assert not keys.holds(KeyConfig("a", namespace="n"), 0)
    assert keys.holds(KeyConfig("a", tag="t"), 0)
    keys.ended("other")
    assert keys.holds(A, 0)
    keys.ended("one")
    assert not keys.holds(A, 0)


def test_an_end_that_is_told_late_says_nothing_of_the_next_holder() -> None:
    keys = HeldKeys()
    keys.saw(A, "one", 60)
    keys.saw(A, "two", 90)
    keys.ended("one")
    assert keys.holds(A, 80)


def test_those_seen_least_lately_are_forgotten_first() -> None:
    keys = HeldKeys(limit=2)
    keys.saw(A, "one", 60)
    keys.saw(B, "two", 60)
    keys.saw(A, "one", 70)
    keys.saw(KeyConfig("c"), "three", 60)
    assert [keys.holds(key, 0) for key in (A, B, KeyConfig("c"))] == [True, False, True]


@given(
    st.lists(
        st.tuples(st.sampled_from(["saw", "ended"]), st.integers(0, 5), st.integers(0, 8), st.integers(0, 100)),
        max_size=60,
    )
)
def test_what_is_held_was_seen_and_has_not_ended(steps: list[tuple[str, int, int, int]]) -> None:
    """A backend has one key for its whole life."""
    keys, model = HeldKeys(limit=4), {}
    for what, key, backend, until in steps:
        holder = f"{key}-{backend}"
        if what == "saw":
            keys.saw(KeyConfig(str(key)), holder, until)
            model[str(key)] = (holder, until)
        else:
            keys.ended(holder)
            if model.get(str(key), ("", 0))[0] == holder:
                del model[str(key)]
        held = {name for name in map(str, range(6)) if keys.holds(KeyConfig(name), -1)}
        assert held <= set(model)
        assert len(held) <= 4
        for name in held:
            assert not keys.holds(KeyConfig(name), model[name][1])
