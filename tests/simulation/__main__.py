"""`python -m tests.simulation --days 7 --seed N`: simulated days, a line for each hour, and 1 where a rule was broken."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.days import DAY, HOUR, LOAD, plan, world
from tests.simulation.referee import Broken


def main(arguments: list[str]) -> int:
    """Run the days; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--days", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--load", type=float, default=LOAD, help="visits a second, the mean of a day")
    parser.add_argument("--quiet", action="store_true", help="the last line only")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    simulated = world(options.seed, options.load)
    steps = plan(options.seed, options.days)
    try:
        hour = 0.0
        while hour < options.days * DAY:
            until = min(hour + HOUR, options.days * DAY)
            simulated.play([step for step in steps if hour <= step.at < until], until)
            hour = until
            if not options.quiet:
                ends = ", ".join(f"{word} {count}" for word, count in simulated.ends.most_common(6))
                longest = simulated.referee.longest_queue
                print(f"{hour / HOUR:6.1f} h  {simulated.arrived} visits  {ends}  longest queue {longest}", flush=True)
        simulated.end()
    except Broken as broken:
        print(f"BROKEN (python -m tests.simulation --days {options.days:g} --seed {options.seed}): {broken}")
        return 1
    seconds = time.monotonic() - began
    print(f"{simulated.arrived} visits, {simulated.referee.taken} leases, digest {simulated.digest}, {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
