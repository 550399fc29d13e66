"""No seed breaks a guarantee; and of the planted bugs each does, soon."""

from __future__ import annotations

import dataclasses

import pytest

from simulation.database import Mutations
from simulation.faults import simulate
from simulation.world import Life, Violation, World

SEEDS = 60
PLANTED = [field.name for field in dataclasses.fields(Mutations)]
SEEDS_FOR_A_BUG = 400
# One in five hundred seeds finds this one.
FIRST_SEED = {"adopted_leases_not_enforced": 700}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_key_has_two_processes_under_any_fault(seed: int) -> None:
    world = simulate(seed)
    assert len(world.lives) > 20, "the cluster did nothing"


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str) -> None:
    mutations = Mutations(**{bug: True})
    first = FIRST_SEED.get(bug, 0)
    for seed in range(first, first + SEEDS_FOR_A_BUG):
        try:
            simulate(seed, mutations)
        except Violation:
            return
    pytest.fail(f"{SEEDS_FOR_A_BUG} seeds do not find {bug}")


def test_the_same_seed_tells_the_same_story() -> None:
    assert simulate(7).story == simulate(7).story


def test_two_processes_of_a_key_are_a_violation_with_their_story() -> None:
    world = World(0)
    world.begin(Life("k", 1, "b1", "m1", 0.0))
    with pytest.raises(
        Violation, match=r"seed 0: key k has two processes: b1(.|\n)*b1 of key k \(token 1\) starts on m1"
    ):
        world.begin(Life("k", 2, "b2", "m2", 0.0))


def test_a_token_that_does_not_rise_is_a_violation() -> None:
    world = World(0)
    first = Life("k", 5, "b1", "m1", 0.0)
    world.begin(first)
    world.end(first)
    with pytest.raises(Violation, match="not larger"):
        world.begin(Life("k", 5, "b2", "m2", 0.0))
