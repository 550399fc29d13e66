"""A violation is told with the fewest faults that lead to it."""

from __future__ import annotations

import pytest

from simulation.database import Mutations
from simulation.faults import Fault, plan, simulate
from simulation.shrink import shortest_story, shrink
from simulation.world import Violation


@pytest.mark.parametrize("needed", [{0}, {39}, {3, 4}, {0, 20, 39}, set()])
def test_only_the_faults_that_are_needed_remain(needed: set[int]) -> None:
    faults = [Fault(float(number), "reboot", 0, 1.0) for number in range(40)]
    assert {int(fault.at) for fault in shrink(faults, lambda kept: needed <= {int(each.at) for each in kept})} == needed


def test_a_story_has_few_faults_and_the_violation() -> None:
    mutations = Mutations(watchdog_off=True)
    seed = 0
    with pytest.raises(Violation):
        simulate(seed, mutations)
    story = shortest_story(seed, mutations)
    faults = int(story.split()[0])
    assert 1 <= faults <= 3 < len(plan(seed))
    assert "has two processes" in story
    assert story == shortest_story(seed, mutations)
