"""The drone's clock under steps of the machine's clock, suspends and restarts (docs/decisions/0002, 0004)."""

from __future__ import annotations

from plane.decisions.keys.lease import KeyLease, LeaseAction, foreign_lease_reason, lease_deadlines
from plane.drone.clock import ClockReading, DroneClock
from plane.protocol.keys import KeyDeadlines
from plane.timing import CLOCK_STORE_INTERVAL_S

HOUR_S = 3600


class Machine:
    """The two clocks of a machine, in seconds, and its boot."""

    def __init__(self) -> None:
        self.time_of_day_s = 1_700_000_000.0
        self.since_boot_s = 500.0
        self.boot_id = "first"

    def passes(self, seconds: float) -> None:
        """Let time pass, awake or suspended: CLOCK_BOOTTIME counts both."""
        self.time_of_day_s += seconds
        self.since_boot_s += seconds

    def drone_clock(self, stored: ClockReading | None = None) -> DroneClock:
        return DroneClock(
            stored,
            boot_id=self.boot_id,
            time_of_day_ns=lambda: int(self.time_of_day_s * 1e9),
            since_boot_ns=lambda: int(self.since_boot_s * 1e9),
        )


def lease(clock: DroneClock) -> KeyLease:
    now = clock.now()
    return KeyLease(KeyDeadlines(now.plus_s(30), now.plus_s(40), now.plus_s(50)))


def test_the_clock_begins_with_the_time_of_day() -> None:
    assert Machine().drone_clock().now().ms == 1_700_000_000_000


def test_steps_of_the_machines_clock_change_no_lease() -> None:
    for step_s in (HOUR_S, -HOUR_S):
        machine = Machine()
        clock = machine.drone_clock()
        held = lease(clock)
        machine.time_of_day_s += step_s
        assert held.due(clock.now()) == []
        machine.passes(29)
        assert held.due(clock.now()) == []
        machine.passes(1)
        assert held.due(clock.now()) == [LeaseAction.RENEW]
        machine.passes(20)
        assert held.due(clock.now()) == [LeaseAction.TERMINATE_HARD]


def test_a_suspend_of_two_minutes_ends_the_lease() -> None:
    machine = Machine()
    clock = machine.drone_clock()
    held = lease(clock)
    machine.passes(120)
    assert held.due(clock.now()) == [LeaseAction.TERMINATE_HARD]


def test_the_clock_continues_over_a_restart_although_the_machines_clock_stepped() -> None:
    machine = Machine()
    before = machine.drone_clock()
    machine.time_of_day_s -= HOUR_S
    machine.passes(10)
    after = machine.drone_clock(before.reading)
    assert after.continues
    assert after.now() == before.now()


def test_after_a_boot_stored_times_are_of_another_clock() -> None:
    machine = Machine()
    before = machine.drone_clock()
    machine.boot_id = "second"
    machine.since_boot_s = 5
    after = machine.drone_clock(before.reading)
    assert not after.continues
    assert after.now().ms == 1_700_000_000_000


def test_the_clock_reads_the_machine() -> None:
    first = DroneClock()
    second = DroneClock(first.reading)
    assert second.continues
    assert 0 <= first.now().seconds_until(second.now()) < 60


def test_a_new_clock_begins_after_all_times_that_the_former_one_may_have_reported() -> None:
    machine = Machine()
    former = machine.drone_clock()
    machine.passes(100)
    stored = former.now()
    machine.passes(CLOCK_STORE_INTERVAL_S)
    order = lease_deadlines(former.now())
    # The machine is booted with its clock an hour behind.
    machine.boot_id, machine.since_boot_s = "second", 5.0
    machine.time_of_day_s -= HOUR_S
    clock = DroneClock(
        former.reading,
        last_known=stored,
        boot_id=machine.boot_id,
        time_of_day_ns=lambda: int(machine.time_of_day_s * 1e9),
        since_boot_ns=lambda: int(machine.since_boot_s * 1e9),
    )
    assert not clock.continues
    assert "before this drone's clock did" in str(foreign_lease_reason(order, clock.began, clock.now()))
    machine.passes(1)
    assert foreign_lease_reason(lease_deadlines(clock.now()), clock.began, clock.now()) is None


def test_a_lease_in_the_future_of_the_clock_is_of_another_clock() -> None:
    clock = Machine().drone_clock()
    order = lease_deadlines(clock.now().plus_s(HOUR_S))
    assert "in the future" in str(foreign_lease_reason(order, clock.began, clock.now()))


def test_times_of_the_clock_are_times_since_boot() -> None:
    machine = Machine()
    clock = machine.drone_clock()
    machine.passes(12)
    assert clock.since_boot_ns(clock.now().plus_s(3)) == round((500 + 12 + 3) * 1e9)
