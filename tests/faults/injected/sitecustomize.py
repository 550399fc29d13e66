"""Gives a program a time of day of its own, and the planted bug that it is to have.

The file ``FAULTS_CLOCK`` has "seconds ahead, rate, period" and may change at any time. With a period (ms) the clock is
ahead in every other one only. Only `time.time` and `time.time_ns`
follow it: libfaketime, which PostgreSQL has, makes sleeps of Python fail now and then (EINVAL from clock_nanosleep).
"""

import os
import time

READ_EVERY_NS = 500_000_000


class _Clock:
    """The time of day: the machine's, plus an offset, at a rate that began when the file changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._real, self._steady = time.time_ns, time.monotonic_ns
        self._read_at = self._ahead_ns = 0
        self._period_ns = 0
        self._text, self._rate, self._since = "", 1.0, self._real()

    def now_ns(self) -> int:
        at = self._real()
        if self._steady() - self._read_at > READ_EVERY_NS:
            self._read_at = self._steady()
            self._read(at)
        is_back = self._period_ns and self._steady() // self._period_ns % 2
        return int(at + (0 if is_back else self._ahead_ns) + (at - self._since) * (self._rate - 1))

    def _read(self, at: int) -> None:
        try:
            with open(self._path) as file:  # noqa: PTH123 - imported at the start of each program
                text = file.read()
        except OSError:
            return
        if text != self._text:
            ahead_s, rate, period_ms = text.split()
            self._text, self._rate, self._since = text, float(rate), at
            self._ahead_ns, self._period_ns = int(ahead_s) * 10**9, int(period_ms) * 10**6


if "FAULTS_CLOCK" in os.environ:
    clock = _Clock(os.environ["FAULTS_CLOCK"])
    time.time_ns = clock.now_ns
    time.time = lambda: clock.now_ns() / 1e9
if "FAULTS_PLANTED" in os.environ:
    from planted_bugs import plant  # type: ignore[import-not-found] # beside this file, which is no package there

    plant(os.environ["FAULTS_PLANTED"])
