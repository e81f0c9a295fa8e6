"""When a workload is restarted, and when its node should hand over: the policy, fed with results and time.

It knows neither probes nor processes. Times are nanoseconds of one monotonic clock.

* `failures` bad probes in a row: restart. As many again without a healthy spell in between: give up.
* An exit, whatever its code, is a failure at once: restart. `failures` exits in a row without a healthy spell: give up.
* A workload that cannot even be started: give up at once, because nothing here will change that.
* Giving up means that a handover would be right. It is said once, and the restarts go on: with nobody to hand over
  to, that is all that can be done.
* Restarts wait 0, 1, 2, 4 .. 60 seconds. A healthy spell, `spell_ns` without a bad probe or an exit, makes all as new.
* After a start, bad probes count only once there was a good one, or `spell_ns` has passed: starting takes time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

BACKOFF_FIRST_NS = 1_000_000_000
BACKOFF_MAX_NS = 60_000_000_000
SPELL_PERIODS = 5
_NANOSECONDS_PER_MILLISECOND = 1_000_000


@dataclass(frozen=True)
class Restart:
    """Stop the workload if it still runs, and start it again after `delay_ns`."""

    delay_ns: int
    reason: str


@dataclass(frozen=True)
class GiveUp:
    """A handover would be right."""

    reason: str


Decision: TypeAlias = Restart | GiveUp


def spell_ns(interval_ms: int, failures: int) -> int:
    """Returns how long a workload must be well to count as healthy: five times what it takes to notice a failure."""
    return SPELL_PERIODS * failures * interval_ms * _NANOSECONDS_PER_MILLISECOND


class HealthPolicy:
    """Decides for one workload during one activation; `renew` begins the next."""

    def __init__(self, *, failures: int, spell_ns: int) -> None:
        self._failures = failures
        self._spell_ns = spell_ns
        self.renew()

    def renew(self) -> None:
        """Forgets everything: a new activation, a new chance."""
        self._started_ns = 0
        self._well_since_ns: int | None = None
        self._answered = False  # since the last start
        self._bad_probes = 0  # in a row
        self._restarts = 0  # since the last healthy spell, like the next two
        self._exits = 0
        self._gave_up = False

    @property
    def gave_up(self) -> bool:
        """Whether a handover was called for and no healthy spell has followed."""
        return self._gave_up

    def started(self, now_ns: int) -> None:
        """The workload runs, for the first time or again."""
        self._started_ns = now_ns
        self._well_since_ns = None
        self._answered = False
        self._bad_probes = 0

    def probed(self, problem: str | None, now_ns: int) -> tuple[Decision, ...]:
        """A probe ended: well (None), or with a sentence about what is wrong."""
        if problem is None:
            self._answered = True
            self._bad_probes = 0
            if self._well_since_ns is None:
                self._well_since_ns = now_ns
            self._notice_spell(now_ns)
            return ()
        self._notice_spell(now_ns)
        self._well_since_ns = None
        if not self._answered and now_ns - self._started_ns < self._spell_ns:
            return ()
        self._bad_probes += 1
        if self._bad_probes < self._failures:
            return ()
        self._bad_probes = 0
        reason = f"{self._failures} health checks in a row failed: {problem}"
        return self._restart(reason, hopeless=self._restarts > 0)

    def exited(self, reason: str, now_ns: int) -> tuple[Decision, ...]:
        """The workload ended although it should run."""
        self._notice_spell(now_ns)
        self._well_since_ns = None
        self._exits += 1
        return self._restart(reason, hopeless=self._exits >= self._failures)

    def start_failed(self, reason: str) -> tuple[Decision, ...]:
        """The workload could not be started."""
        return self._restart(reason, hopeless=True)

    def _notice_spell(self, now_ns: int) -> None:
        if self._well_since_ns is not None and now_ns - self._well_since_ns >= self._spell_ns:
            self._restarts = self._exits = 0
            self._gave_up = False

    def _restart(self, reason: str, *, hopeless: bool) -> tuple[Decision, ...]:
        # The exponent is bounded, so that years of restarts do not make the number large.
        doublings = min(self._restarts, 10) - 1
        delay_ns = 0 if doublings < 0 else min(BACKOFF_FIRST_NS << doublings, BACKOFF_MAX_NS)
        self._restarts += 1
        restart = Restart(delay_ns, reason)
        if not hopeless or self._gave_up:
            return (restart,)
        self._gave_up = True
        return (GiveUp(reason), restart)
