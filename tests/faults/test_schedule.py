"""The seed decides the faults; a target has one at a time, and one of its clock."""

from __future__ import annotations

import itertools
from itertools import pairwise

from faults.fault_kinds import CARRIED_OUT
from faults.schedule import KINDS, ROUND_S, draw

TARGETS = ("controller-1", "controller-2", "drone-1", "drone-2", "docker-1", "proxy-1", "database")


def test_the_same_seed_draws_the_same_faults() -> None:
    assert draw(7, 50, TARGETS) == draw(7, 50, TARGETS) != draw(8, 50, TARGETS)


def test_every_round_has_faults_and_a_target_has_one_at_a_time_beside_one_of_its_clock() -> None:
    faults = draw(1, 400, TARGETS)
    assert len({fault.round for fault in faults}) > 350
    assert [fault.start_s for fault in faults] == sorted(fault.start_s for fault in faults)
    of_clock = {kind.name: kind.of_clock for kind in KINDS}
    for target, clock in itertools.product(TARGETS, (False, True)):
        own = sorted(
            (f.start_s, f.start_s + f.length_s) for f in faults if f.target == target and of_clock[f.kind] is clock
        )
        assert all(end < start for (_, end), (start, _) in pairwise(own))
    assert all(0 <= fault.start_s - ROUND_S * (fault.round - 1) < ROUND_S for fault in faults)


def test_all_kinds_happen_and_can_be_carried_out() -> None:
    assert {fault.kind for fault in draw(1, 2000, TARGETS)} == {kind.name for kind in KINDS} == set(CARRIED_OUT)


def test_a_kind_happens_only_to_its_roles() -> None:
    roles = {kind.name: kind.roles for kind in KINDS}
    assert all(fault.target.partition("-")[0] in roles[fault.kind] for fault in draw(3, 500, TARGETS))
