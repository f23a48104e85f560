"""What stands behind the backends of the simulation: programs that take their time, and have their troubles.

Promises: a machine is a function of its troubles, the time and the random source that it is given; nothing of it depends
on who asks. Asked by visits (`answer`) and by the health checks (`Look`). Seconds throughout.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

from twisted.internet.task import Clock

from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.policies import HealthCheckPolicy

#: What may be the matter, and what one sees of it.
TROUBLES: Final = (
    "refuses",  # no connection, for visits and checks
    "hangs",  # no answer to either
    "errors",  # 500 at once, and checks pass
    "sick",  # a third of the answers is 503
    "resets",  # half of the connections break before an answer, and checks pass
    "stalls",  # no answer to visits, and checks pass
    "slow",  # ten times as long
    "lies",  # visits are answered, and checks fail
    "flaps",  # refuses every other PERIOD
)

#: How long one that flaps is there, and away.
PERIOD: Final = 50.0
#: How long a dial and an answer are waited for.
CONNECT: Final = 3.0
RESPONSE: Final = 30.0

Answer = tuple[float, Outcome, int]


class Machine:
    """One program. `typical` is how long half of its answers take at most, `spread` how much they differ (0: not at all)."""

    def __init__(self, typical: float, spread: float = 0.6) -> None:
        self.typical = typical
        self.spread = spread
        self.troubles: list[str] = []  # the last one is what is seen

    def trouble(self, now: float) -> str:
        """What is the matter just now; "" for nothing."""
        found = self.troubles[-1] if self.troubles else ""
        if found == "flaps":
            return "refuses" if int(now / PERIOD) % 2 else ""
        return found

    def answer(self, rng: Random, now: float) -> Answer:
        """How long a visit takes, and how it ends: with a status, or -1 where there is none."""
        trouble = self.trouble(now)
        seconds = self.typical
        if self.spread:
            seconds *= rng.lognormvariate(0.0, self.spread)
        if not trouble or trouble == "lies":
            return seconds, Outcome.OK, 200
        if trouble == "slow":
            return min(10.0 * seconds, RESPONSE), Outcome.OK, 200
        if trouble == "refuses":
            return 0.001, Outcome.CONNECT_FAILED, -1
        if trouble == "hangs":
            return CONNECT, Outcome.CONNECT_TIMEOUT, -1
        if trouble == "stalls":
            return RESPONSE, Outcome.TIMEOUT, -1
        if trouble == "errors":
            return 0.01, Outcome.OK, 500
        if trouble == "sick":
            return seconds, Outcome.OK, 503 if rng.random() < 0.33 else 200
        return (seconds / 2, Outcome.RESET, -1) if rng.random() < 0.5 else (seconds, Outcome.OK, 200)

    def passes(self, now: float) -> tuple[bool, float]:
        """Whether a check passes, and how long it takes; 0 is at once."""
        trouble = self.trouble(now)
        if trouble == "hangs":
            return False, CONNECT
        return trouble not in ("refuses", "lies"), 0.0


class Look:
    """A health check, as net/prober.py makes one for each question."""

    def __init__(self, machine: Machine, clock: Clock, policy: HealthCheckPolicy, backend: Backend, ended: Any) -> None:
        self._machine = machine
        self._clock = clock
        self._timeout = policy.timeout
        self._ended = ended
        self._timer: Any = None

    def begin(self, dial: object) -> None:
        """Ask. It may be over when this returns."""
        passed, seconds = self._machine.passes(self._clock.seconds())
        if seconds:
            self._timer = self._clock.callLater(min(seconds, self._timeout), self._end, False)
        else:
            self._end(passed)

    def _end(self, passed: bool) -> None:
        self._timer = None
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(passed, "connected" if passed else "no connection")

    def cancel(self) -> None:
        """Give it up without a word."""
        self._ended = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
