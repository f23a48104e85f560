"""What a pick costs: microseconds for a lease taken and released, by algorithm and number of backends.

    python -m tests.bench.pick_cost [ALGORITHM ...]

Columns for each algorithm: all weights equal; three weights; all equal with one backend excluded; by the keys of 5000
clients in turn, for those who want keys; and with limits, where half of the backends, all but ten, all but one and all are
full, the latter with what an arrival asks next (must it wait?), by keys where they are wanted. A row is the least of
interleaved repeats: busy neighbours only ever add.
`(loop)` is what the loop itself costs, already taken off the others.

Then, for those who want keys, what comes once after a change of members: milliseconds of processor time for the update and
the first pick, and microseconds for the first pick of a client thereafter.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Collection
from functools import partial
from itertools import cycle
from statistics import median
from time import perf_counter, process_time

from lbsvc.core.algorithms import ALGORITHMS
from lbsvc.core.backend import Backend, Outcome
from lbsvc.core.choosing import must_wait
from lbsvc.core.hashing import key_hash
from lbsvc.core.pickers import PICKERS
from lbsvc.core.pool import Pool

SIZES = (1, 10, 100, 1000)
COLUMNS = ("equal", "3 weights", "1 excluded", "by key", "half full", "10 free", "1 free", "full")
NUMBER = 20_000
REPEATS = 9
CLIENTS = 5000
KEYS = [key_hash(b"10.0.%d.%d" % divmod(number, 256)) for number in range(CLIENTS)]


def backends_of(size: int, weights: tuple[int, ...] = (1,)) -> list[Backend]:
    members = [
        Backend("bench", f"b{n}", f"10.0.0.1:{n}", "10.0.0.1", n, weights[n % len(weights)]) for n in range(size)
    ]
    for each in members:
        each.health = "up"
    return members


def pool_of(size: int, algorithm: str, weights: tuple[int, ...] = (1,)) -> Pool:
    pool = Pool("bench", algorithm, random.Random(1))
    pool.set_members(backends_of(size, weights))
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


def time_by_key(pool: Pool) -> float:
    """The same with a key for each."""
    pick = pool.pick
    ok = Outcome.OK
    following = cycle(KEYS).__next__
    start = perf_counter()
    for _ in range(NUMBER):
        lease = pick((), following())
        if lease is not None:
            lease.release(ok, 200, 0.004)
    return perf_counter() - start


def crowded(size: int, algorithm: str, free: int) -> Pool:
    """Every backend has one place, and so many of these are free."""
    pool = pool_of(size, algorithm)
    if PICKERS[algorithm].wants_key:
        pool.pick((), 0)  # what it makes for its members once
    for backend in pool.backends:
        backend.most = backend.limit = backend.active + 1
    pool.refresh()
    for backend in random.Random(3).sample(pool.backends, size - free):
        pool.take(backend)
    return pool


def time_when_crowded(pool: Pool) -> float:
    """Seconds for NUMBER arrivals, each of whom is released at once, or asks whether it must wait."""
    pick = pool.pick
    ok = Outcome.OK
    following = cycle(KEYS if pool.wants_key else (None,)).__next__
    start = perf_counter()
    for _ in range(NUMBER):
        lease = pick((), following())
        if lease is not None:
            lease.release(ok, 200, 0.004)
        else:
            must_wait(pool)
    return perf_counter() - start


def time_of_nothing() -> float:
    start = perf_counter()
    for _ in range(NUMBER):
        pass
    return perf_counter() - start


def jobs(algorithms: list[str]) -> dict[tuple[str, str, int], Callable[[], float]]:
    found: dict[tuple[str, str, int], Callable[[], float]] = {("(loop)", "", 0): time_of_nothing}
    for algorithm in algorithms:
        for size in SIZES:
            for column, weights in zip(COLUMNS[:3], ((1,), (1, 2, 5), (1,)), strict=True):
                pool = pool_of(size, algorithm, weights)
                excluded = pool.backends[:1] if column == "1 excluded" else ()
                found[algorithm, column, size] = partial(time_of, pool, excluded)
            if PICKERS[algorithm].wants_key:
                pool = pool_of(size, algorithm)
                time_by_key(pool)  # the first picks after a change are another matter, see below
                found[algorithm, "by key", size] = partial(time_by_key, pool)
            for column, free in zip(COLUMNS[4:], (size - size // 2, 10, 1, 0), strict=True):
                if free < size:
                    found[algorithm, column, size] = partial(time_when_crowded, crowded(size, algorithm, free))
    return found


def time_after_change(algorithm: str, size: int) -> tuple[float, float]:
    """Milliseconds for an update with the first pick, microseconds for each client's first pick after it."""
    backends = backends_of(size)
    changes, firsts = [], []
    for _ in range(5):
        picker = PICKERS[algorithm](random.Random(1))
        start = process_time()
        picker.update(backends)
        picker.pick_by(0, ())
        changed = process_time()
        for key in KEYS:
            picker.pick_by(key, ())
        changes.append(changed - start)
        firsts.append((process_time() - changed) / CLIENTS)
    return median(changes) * 1e3, median(firsts) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("algorithms", nargs="*", choices=[[], *sorted(ALGORITHMS)])
    algorithms = parser.parse_args().algorithms or sorted(ALGORITHMS)
    times: dict[tuple[str, str, int], list[float]] = {}
    all_jobs = jobs(algorithms)
    for _ in range(REPEATS):
        for key, job in all_jobs.items():
            times.setdefault(key, []).append(job())
    micros = {key: min(values) / NUMBER * 1e6 for key, values in times.items()}
    loop = micros.pop(("(loop)", "", 0))
    out = [f"pick + release, µs ({sys.version.split()[0]}; loop {loop:.3f})"]
    out.append(f"{'algorithm':20}{'backends':>9}" + "".join(f"{column:>12}" for column in COLUMNS))
    for algorithm in algorithms:
        for size in SIZES:
            costs = [micros.get((algorithm, column, size)) for column in COLUMNS]
            row = "".join(f"{'':>12}" if cost is None else f"{cost - loop:12.3f}" for cost in costs)
            out.append(f"{algorithm:20}{size:9}{row}")
    out += ["", "after a change", f"{'algorithm':20}{'backends':>9}{'update, ms':>12}{'first, µs':>12}"]
    for algorithm in algorithms:
        if PICKERS[algorithm].wants_key:
            for size in SIZES:
                change, first = time_after_change(algorithm, size)
                out.append(f"{algorithm:20}{size:9}{change:12.3f}{first:12.3f}")
    print("\n".join(out))


if __name__ == "__main__":
    main()
