"""Every outcome of a connect request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from plane.decisions.keys.connect_request import (
    HeldKey,
    KeyLookup,
    Retry,
    Reuse,
    Spawn,
    decide,
    next_fencing_token,
)
from plane.decisions.keys.drone_selection import DroneCandidate
from plane.protocol.backend_state import BackendStatus
from plane.protocol.control_api import ConnectRequest
from plane.protocol.errors import ApiErrorKind, ApiFailure
from plane.protocol.keys import KeyConfig
from plane.protocol.spawn import SpawnConfig
from plane.protocol.times import DroneTime

DRONE = DroneCandidate(drone_id=1, name="dr-a", local_time=DroneTime(1000))
WANTED = ConnectRequest(key=KeyConfig("k", tag="t"), spawn_config=SpawnConfig(executable={"image": "i"}))
WITHOUT_SPAWN = ConnectRequest(key=KeyConfig("k", tag="t"))


def held(*, tag: str = "t", live: bool = True) -> HeldKey:
    return HeldKey(
        backend_id="b",
        tag=tag,
        live=live,
        cluster="c",
        status=BackendStatus.READY,
        static_token=None,
        subdomain=None,
    )


def lookup(holder: HeldKey | None = None, *, removed: bool = False, drone: DroneCandidate | None = DRONE) -> KeyLookup:
    return KeyLookup(held=holder, removed=removed, drone=drone)


def refusal(request: ConnectRequest, cluster: str | None, found: KeyLookup) -> tuple[int, ApiErrorKind]:
    with pytest.raises(ApiFailure) as caught:
        decide(request, cluster, found)
    return caught.value.status, caught.value.kind


def test_live_holder_with_the_same_tag_is_reused_even_without_a_cluster() -> None:
    assert decide(WITHOUT_SPAWN, None, lookup(held())) == Reuse(held())


def test_live_holder_with_another_tag_is_a_conflict() -> None:
    assert refusal(WANTED, "c", lookup(held(tag="other"))) == (409, ApiErrorKind.KEY_HELD)


@pytest.mark.parametrize(("left_s", "retry_after_s"), [(12.3, 13), (0.0, 1)])
def test_key_of_a_lost_backend_is_not_granted_before_its_lease_ends(left_s: float, retry_after_s: int) -> None:
    lost = replace(held(), status=BackendStatus.TERMINATED)
    with pytest.raises(ApiFailure, match="until its lease ends") as caught:
        decide(WANTED, "c", replace(lookup(lost), lease_left_s=left_s))
    assert (caught.value.status, caught.value.retry_after_s) == (503, retry_after_s)
    # Once the lease has ended, its row is removed, like that of any expired holder.
    assert isinstance(decide(WANTED, "c", lookup(replace(lost, live=False), removed=True)), Spawn)


@pytest.mark.parametrize("identity", [{"user": "ann"}, {"auth": {"role": "x"}}])
def test_holder_with_a_static_token_takes_no_identity(identity: dict[str, Any]) -> None:
    holder = replace(held(), static_token="s.x")
    request = replace(WITHOUT_SPAWN, **identity)
    assert decide(request, "c", lookup(held())) == Reuse(held())
    with pytest.raises(ApiFailure, match=f"^{next(iter(identity))}: .*static token") as caught:
        decide(request, "c", lookup(holder))
    assert caught.value.status == 400
    assert decide(WITHOUT_SPAWN, "c", lookup(holder)) == Reuse(holder)


def test_expired_holder_that_was_removed_is_replaced() -> None:
    decision = decide(WANTED, "c", lookup(held(live=False), removed=True))
    assert isinstance(decision, Spawn)
    assert decision.drone == DRONE


def test_expired_holder_that_was_not_removed_leads_to_a_retry() -> None:
    decision = decide(WANTED, "c", lookup(held(live=False)))
    assert isinstance(decision, Retry)
    assert (decision.failure.status, decision.failure.kind) == (409, ApiErrorKind.FAILED_TO_REMOVE_KEY)


def test_tag_of_an_expired_holder_does_not_matter() -> None:
    assert isinstance(decide(WANTED, "c", lookup(held(tag="other", live=False), removed=True)), Spawn)


def test_free_key_without_a_spawn_config_is_refused() -> None:
    assert refusal(WITHOUT_SPAWN, "c", lookup()) == (409, ApiErrorKind.KEY_UNHELD_NO_SPAWN_CONFIG)


def test_request_without_any_cluster_is_refused() -> None:
    assert refusal(WANTED, None, lookup()) == (400, ApiErrorKind.NO_CLUSTER_PROVIDED)


def test_request_is_refused_if_no_drone_qualifies() -> None:
    assert refusal(WANTED, "c", lookup(drone=None)) == (500, ApiErrorKind.NO_DRONE_AVAILABLE)


@given(st.integers(0, 2**40), st.none() | st.integers(0, 2**40))
def test_fencing_tokens_rise_even_if_the_clock_steps_back(now_ms: int, last: int | None) -> None:
    token = next_fencing_token(now_ms, last)
    assert token >= now_ms
    assert last is None or token > last
