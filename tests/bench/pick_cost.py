"""What a pick costs: microseconds for a lease taken and released, by algorithm and number of backends.

    python -m tests.bench.pick_cost

Three columns for each algorithm: all weights equal; three weights; all equal with one backend excluded. A row is the
median over interleaved repeats, so that a busy neighbour hits all of them alike. `(loop)` is what the loop itself costs,
already taken off the others.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Collection
from functools import partial
from statistics import median
from time import perf_counter

from lbsvc.core.algorithms import ACTING
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.pool import Pool

SIZES = (1, 10, 100, 1000)
COLUMNS = ("equal", "3 weights", "1 excluded")
NUMBER = 20_000
REPEATS = 7


def pool_of(size: int, algorithm: str, weights: tuple[int, ...]) -> Pool:
    pool = Pool("bench", algorithm, random.Random(1))
    members = [
        Backend("bench", f"b{n}", f"10.0.0.1:{n}", "10.0.0.1", n, weights[n % len(weights)]) for n in range(size)
    ]
    for each in members:
        each.health = "up"
    pool.set_members(members)
    return pool


def time_of(pool: Pool, exclude: Collection[Backend]) -> float:
    """Seconds for NUMBER picks and releases."""
    pick = pool.pick
    ok = Outcome.OK
    start = perf_counter()
    for _ in range(NUMBER):
        lease = pick(exclude)
        if lease is not None:
            lease.release(ok, 200, 0.004)
    return perf_counter() - start


def time_of_nothing() -> float:
    start = perf_counter()
    for _ in range(NUMBER):
        pass
    return perf_counter() - start


def jobs() -> dict[tuple[str, str, int], Callable[[], float]]:
    found: dict[tuple[str, str, int], Callable[[], float]] = {("(loop)", "", 0): time_of_nothing}
    for algorithm in sorted(ACTING):
        for size in SIZES:
            for column, weights in zip(COLUMNS, ((1,), (1, 2, 5), (1,)), strict=True):
                pool = pool_of(size, algorithm, weights)
                excluded = pool.backends[:1] if column == "1 excluded" else ()
                found[algorithm, column, size] = partial(time_of, pool, excluded)
    return found


def main() -> None:
    times: dict[tuple[str, str, int], list[float]] = {}
    all_jobs = jobs()
    for _ in range(REPEATS):
        for key, job in all_jobs.items():
            times.setdefault(key, []).append(job())
    micros = {key: median(values) / NUMBER * 1e6 for key, values in times.items()}
    loop = micros.pop(("(loop)", "", 0))
    out = [f"pick + release, µs ({sys.version.split()[0]}; loop {loop:.3f})"]
    out.append(f"{'algorithm':20}{'backends':>9}" + "".join(f"{column:>12}" for column in COLUMNS))
    for algorithm in sorted(ACTING):
        for size in SIZES:
            row = "".join(f"{micros[algorithm, column, size] - loop:12.3f}" for column in COLUMNS)
            out.append(f"{algorithm:20}{size:9}{row}")
    print("\n".join(out))


if __name__ == "__main__":
    main()
