"""A cached key is held until the end of its lease as it was seen, or the end of its backend."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plane.decisions.keys.lease_cache import LeaseCache
from plane.protocol.keys import KeyConfig

A, B = KeyConfig("a"), KeyConfig("b")


def test_key_is_held_until_its_lease_or_its_backend_ends() -> None:
    keys = LeaseCache()
    assert not keys.is_held(A, 0)
    keys.record(A, "one", 60)
    assert keys.is_held(A, 59.9)
    assert not keys.is_held(A, 60)
    # Another namespace is another key; another tag is not.
    assert not keys.is_held(KeyConfig("a", namespace="n"), 0)
    assert keys.is_held(KeyConfig("a", tag="t"), 0)
    keys.remove_backend("other")
    assert keys.is_held(A, 0)
    keys.remove_backend("one")
    assert not keys.is_held(A, 0)


def test_late_end_of_a_former_holder_does_not_free_the_key() -> None:
    keys = LeaseCache()
    keys.record(A, "one", 60)
    keys.record(A, "two", 90)
    keys.remove_backend("one")
    assert keys.is_held(A, 80)


def test_least_recently_recorded_keys_are_forgotten_first() -> None:
    keys = LeaseCache(max_keys=2)
    keys.record(A, "one", 60)
    keys.record(B, "two", 60)
    keys.record(A, "one", 70)
    keys.record(KeyConfig("c"), "three", 60)
    assert [keys.is_held(key, 0) for key in (A, B, KeyConfig("c"))] == [True, False, True]


@given(
    st.lists(
        st.tuples(st.sampled_from(["record", "end"]), st.integers(0, 5), st.integers(0, 8), st.integers(0, 100)),
        max_size=60,
    )
)
def test_held_keys_were_recorded_and_have_not_ended(steps: list[tuple[str, int, int, int]]) -> None:
    """A backend has one key for its whole life."""
    keys, model = LeaseCache(max_keys=4), {}
    for what, key, backend, until in steps:
        holder = f"{key}-{backend}"
        if what == "record":
            keys.record(KeyConfig(str(key)), holder, until)
            model[str(key)] = (holder, until)
        else:
            keys.remove_backend(holder)
            if model.get(str(key), ("", 0))[0] == holder:
                del model[str(key)]
        held = {name for name in map(str, range(6)) if keys.is_held(KeyConfig(name), -1)}
        assert held <= set(model)
        assert len(held) <= 4
        for name in held:
            assert not keys.is_held(KeyConfig(name), model[name][1])
