"""The same for hours: `python -m tests.chaos.soak --hours 24 --seed N`, or `--minutes M`; a line of figures each minute.

Promises: storms of all kinds in one arena, one after the other, each judged as storm.py does, and the memory of the
service compared with that of the second (MOST_GROWN). Exit status 0, or 1 at the first storm that does not hold, whose
report goes to standard error with all that is needed to repeat it: `--seed`. test_chaos.py runs some seconds of it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from tests.chaos.arena import Arena
from tests.chaos.ending import end_service
from tests.chaos.faults import KINDS
from tests.chaos.storm import Storm, quiet_of

#: Resident bytes that the service may have more than behind the second storm: the hour of history for the dashboard fills up
#: meanwhile, and pieces of memory are where they are.
MOST_GROWN: Final = 32 << 20
#: How many acts a storm has.
LENGTH: Final = 25


class Soak:
    """Storms in one arena, and their sums."""

    def __init__(self, seed: int, say: Callable[[str], object] = lambda line: None) -> None:
        self.seed = seed
        self.say = say
        self.chance = random.Random(f"soak {seed}")
        self.kinds = [*KINDS, "mixed", "mixed", "mixed"]
        self.arena = Arena(seed)
        self.storms = 0
        self.requests = 0
        self.reasons = Counter[str]()
        self.resident: list[int] = []
        try:
            self.former = quiet_of(self.arena, 10)
        except BaseException:
            self.arena.stop()
            raise
        self._began = self._said = time.monotonic()

    def storm(self, kind: str, length: int = LENGTH, with_wrk: bool = False) -> Storm:
        """One of this kind."""
        storm = Storm(self.arena, kind, self.storms, length, with_wrk)
        storm.run(self.former)
        self.storms += 1
        self.requests += storm.requests
        self.reasons += storm.reasons
        self.resident.append(self.arena.service.resident)
        self._check_memory()
        self._tell()
        return storm

    def run(self, seconds: float, length: int = LENGTH) -> None:
        """Storms for so long, and three at least."""
        end = time.monotonic() + seconds
        while self.storms < 3 or time.monotonic() < end:
            self.storm(self.chance.choice(self.kinds), length, with_wrk=self.chance.random() < 0.2)
        self._tell(is_due=True)

    def end(self) -> None:
        """The service ends under load, and loses nothing; the last there is."""
        end_service(self.arena)

    def _check_memory(self) -> None:
        if len(self.resident) > 2 and self.resident[-1] > self.resident[1] + MOST_GROWN:
            shown = [f"{each >> 20}" for each in self.resident]
            raise AssertionError(f"seed {self.seed}: memory grows by storms, in MiB: {' '.join(shown)}")

    def _tell(self, is_due: bool = False) -> None:
        now = time.monotonic()
        if is_due or now - self._said >= 60:
            self._said = now
            sockets = self.arena.descriptors()
            self.say(
                f"{(now - self._began) / 60:7.1f} min  {self.storms} storms  {self.requests} requests"
                f"  {self.resident[-1] >> 20} MiB  {sum(sockets.values())} descriptors"
                f"  {' '.join(f'{word}={count}' for word, count in self.reasons.most_common())}"
            )

    def stop(self) -> None:
        """End everything."""
        self.arena.stop()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description="Storms for hours.")
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--kind", choices=KINDS, help="storms of this kind alone")
    options = parser.parse_args()
    seconds = options.hours * 3600 + options.minutes * 60 or 60.0
    print(f"seed {options.seed}", flush=True)
    soak = Soak(options.seed, lambda line: print(line, flush=True))
    try:
        if options.kind is not None:
            soak.kinds = [options.kind]
        soak.run(seconds)
        soak.end()
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        soak.stop()
    print(f"held: {soak.storms} storms, {soak.requests} requests")
    return 0


if __name__ == "__main__":
    sys.exit(main())
