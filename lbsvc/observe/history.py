"""The last hour, second by second: rings of whole numbers, and the last events, for a dashboard that has just been opened.

Promises: `History` looks at a view once a second and keeps what has grown since the second before. What it keeps never
passes `BUDGET` bytes: the first series, up to `FINE_BUDGET`, have a number for each second, later ones one for every
`COARSE` seconds, and past the budget there are none; series of what is gone go with it. Seconds that were missed (a reactor
that was held up) share evenly what happened in them. Every series spans an hour. A number that is not known is -1. In the
total each request is once: a listener that is a backend of our own pools (observe/chains.py) is not added. The latencies of
the last moments, `lately`, are of the same moments everywhere.

Pure: a view and a clock's seconds in, plain values out. Latencies are whole microseconds, by histogram buckets, as
Prometheus' histogram_quantile would have them. Kept by admin/sampling.py, shown by admin/histories.py.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from lbsvc.core.backend import Backend
from lbsvc.core.books import BUCKETS, ListenerBooks
from lbsvc.core.pool import Pool
from lbsvc.observe.chains import behind
from lbsvc.observe.snapshot import StatusView

#: An hour.
SPAN: Final = 3600
#: Seconds of a step where series have become many.
COARSE: Final = 10
FINE_BUDGET: Final = 3 * 1024 * 1024
BUDGET: Final = 8 * 1024 * 1024
#: So many events are kept, of so many characters.
EVENTS: Final = 200
WORDS: Final = 400
#: Percentiles of the last moments are of so many seconds, up to twice that.
WINDOW: Final = 10
#: No shorter duration is told from others, in microseconds.
LEAST: Final = round(BUCKETS[0] * 1_000_000)

UNKNOWN: Final = -1
_MOST: Final = 2**31 - 1
_CELL: Final = array("i").itemsize
_QUANTILES: Final = (0.5, 0.95, 0.99)

#: What is kept of what; sums of a step, but for those in `_GAUGES`.
PERCENTILES: Final = ("p50_us", "p95_us", "p99_us")
TOTAL: Final = ("requests", "errors", "connections", "bytes_in", "bytes_out", *PERCENTILES)
LISTENER: Final = ("requests", "errors", "connections", "bytes_in", "bytes_out")
POOL: Final = ("requests", "errors", "active", "queued", *PERCENTILES)
BACKEND: Final = ("requests", "errors", "p95_us")
_GAUGES: Final = frozenset({"connections", "active", "queued", *PERCENTILES})

#: Endings of tcp connections that are somebody's failure, but not the client's.
_FAILED: Final = (
    "no_backend", "queue_timeout", "queue_full", "circuit_open", "connect_failed", "connect_timeout", "tls_verify",
    "upstream_reset", "upstream_timeout", "upstream_protocol", "overload",
)  # fmt: skip

Key: TypeAlias = tuple[str, ...]


def quantile(counts: Sequence[int], share: float) -> int:
    """A share of durations takes no longer than so many microseconds; UNKNOWN where there are none."""
    total = sum(counts)
    if not total:
        return UNKNOWN
    rank, below, low = share * total, 0, 0.0
    for count, high in zip(counts, BUCKETS, strict=False):
        if below + count >= rank and count:
            return round((low + (high - low) * (rank - below) / count) * 1_000_000)
        below, low = below + count, high
    return round(BUCKETS[-1] * 1_000_000)


def quantiles(counts: Sequence[int]) -> tuple[int, ...]:
    """The three that people look at."""
    return tuple(quantile(counts, share) for share in _QUANTILES)


class Ring:
    """Columns of numbers over an hour, a row for each `step` seconds; `tick` counts seconds from the start."""

    def __init__(self, names: Sequence[str], step: int) -> None:
        self.names = tuple(names)
        self.step = step
        self._length = SPAN // step
        self._columns = [array("i", [UNKNOWN]) * self._length for _ in self.names]
        self._open: list[int] = []  # the step that goes on, where a step is more than a second
        self._number = -1  # of that step

    @staticmethod
    def size(columns: int, step: int) -> int:
        """Bytes."""
        return columns * _CELL * (SPAN // step)

    def put(self, tick: int, row: Sequence[int]) -> None:
        """What happened in one second. Ticks grow; each is put once."""
        if self.step == 1:
            at = tick % self._length
            for column, value in zip(self._columns, row, strict=True):
                column[at] = value if value < _MOST else _MOST
            return
        number = tick // self.step
        if number != self._number:
            self._number, self._open = number, list(row)
        else:
            self._open = [self._joined(*each) for each in zip(self.names, self._open, row, strict=True)]
        at = number % self._length
        for column, value in zip(self._columns, self._open, strict=True):
            column[at] = min(value, _MOST)

    @staticmethod
    def _joined(name: str, one: int, other: int) -> int:
        return max(one, other) if name in _GAUGES else one + other

    def last(self, tick: int) -> int:
        """The number of the last step that is over when this second is."""
        return (tick + 1) // self.step - 1

    def since(self, after: int, tick: int) -> dict[str, Any]:
        """The steps that were over after the second `after`, up to `tick`, oldest first; an hour at most."""
        last = self.last(tick)
        count = max(0, min(last - self.last(after), self._length, last + 1))
        begin = (last + 1 - count) % self._length
        found: dict[str, Any] = {"step": self.step}
        for name, column in zip(self.names, self._columns, strict=True):
            values = column[begin : begin + count]
            if len(values) < count:
                values += column[: count - len(values)]
            found[name] = values.tolist()
        return found


class Track:
    """One series and the counters that it grows by."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.seen = -1  # the tick at which it was last there
        self._before: tuple[int, ...] = ()
        self._counts: list[int] = []
        #: the histogram as it was, up to twice WINDOW ago, and more lately
        self._older: list[int] = []
        self._newer: list[int] = []

    def grown(self, now: tuple[int, ...]) -> tuple[int, ...]:
        """By how much counters have grown; what begins anew has grown by what it says, what is new not at all."""
        before, self._before = self._before, now
        if not before:
            return (0,) * len(now)
        return tuple([b - a if b >= a else b for a, b in zip(before, now, strict=True)])

    def grown_counts(self, now: list[int]) -> list[int]:
        """The same of a histogram's buckets; empty where nothing has come."""
        before, self._counts = self._counts, now
        if before == now:
            return []
        if not before:
            self._older, self._newer = now, now
            return []
        if any(a > b for a, b in zip(before, now, strict=True)):
            self._older = self._newer = [0] * len(now)
            return now
        return [b - a for a, b in zip(before, now, strict=True)]

    def gather(self, grown: Sequence[int]) -> None:
        """Take in what its parts have grown by, where it has no histogram of its own."""
        if not self._counts:
            self._counts = self._older = self._newer = [0] * len(grown)
        if any(grown):
            self._counts = [a + b for a, b in zip(self._counts, grown, strict=True)]

    def turn(self) -> None:
        """Another WINDOW is over."""
        self._older, self._newer = self._newer, self._counts

    def lately(self) -> tuple[int, ...]:
        """Percentiles of the last moments."""
        return quantiles([b - a for a, b in zip(self._older, self._counts, strict=False)])

    def since(self, after: int, tick: int) -> dict[str, Any]:
        """What the ring has, and the percentiles of the last moments."""
        return {"lately": dict(zip(PERCENTILES, self.lately(), strict=True)), **self.ring.since(after, tick)}


class History:
    """Everything that is remembered."""

    def __init__(self) -> None:
        self.tick = -1  # the last second that is in the rings
        self.size = 0  # bytes
        self.left_out = 0  # series that had no room when they were last looked at
        self._tracks: dict[Key, Track] = {}
        self._names = {"total": TOTAL, "listener": LISTENER, "pool": POOL, "backend": BACKEND}
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        #: the last event that says how a reload ended
        self.reloaded: dict[str, Any] | None = None

    def note(self, event: Mapping[str, Any]) -> None:
        """An event that was told."""
        kept = {key: str(event.get(key, "")) for key in ("ts", "level", "event", "message")}
        kept["message"] = kept["message"][:WORDS]
        self._events.append(kept)
        if kept["event"] in ("config.reloaded", "config.refused"):
            self.reloaded = kept

    # -- what comes in

    def sample(self, view: StatusView) -> None:
        """Look; at most once a second, the rest is ignored."""
        tick = int(view.uptime)
        passed = tick - self.tick if self.tick >= 0 else 1
        if passed < 1:
            return
        first = tick - min(passed, SPAN) + 1
        turns = tick // WINDOW != self.tick // WINDOW
        self.left_out = 0
        self._sample_listeners(view, first, tick, turns)
        for pool in view.pools:
            self._sample_pool(pool, first, tick, turns)
        self.tick = tick
        for key in [key for key, track in self._tracks.items() if track.seen != tick]:
            ring = self._tracks.pop(key).ring
            self.size -= Ring.size(len(ring.names), ring.step)

    def _sample_listeners(self, view: StatusView, first: int, tick: int, turns: bool) -> None:
        totals = [0] * len(LISTENER)
        track = self._track(("total",), tick)
        counts = [0] * (len(BUCKETS) + 1)
        doors = list(view.doors)
        counted_in_front = behind(doors, view.pools)
        for door in doors:
            books = door.books
            own = self._track(("listener", books.name), tick)
            if own is None:
                continue
            grown = own.grown((*_answered(books), books.bytes_in, books.bytes_out))
            slower = own.grown_counts(_durations(books))
            row = [grown[0], grown[1], books.open, grown[2], grown[3]]
            _put(own.ring, first, tick, row)
            if books.name in counted_in_front:
                continue
            totals = [a + b for a, b in zip(totals, row, strict=True)]
            if slower:
                counts = [a + b for a, b in zip(counts, slower, strict=True)]
        if track is not None:
            self._close(track, counts, turns)
            _put(track.ring, first, tick, [*totals, *quantiles(counts)])

    def _sample_pool(self, pool: Pool, first: int, tick: int, turns: bool) -> None:
        track = self._track(("pool", pool.name), tick)
        requests = errors = active = 0
        counts = [0] * (len(BUCKETS) + 1)
        for backend in pool.everyone:
            active += backend.active
            own = self._track(("backend", pool.name, backend.name, backend.address), tick)
            if own is None:
                continue
            if turns:
                own.turn()
            grown = own.grown(_used(backend))
            slower = own.grown_counts(backend.duration.counts.copy())
            if slower:
                counts = [a + b for a, b in zip(counts, slower, strict=True)]
            requests, errors = requests + grown[0], errors + grown[1]
            _put(own.ring, first, tick, [*grown, quantile(slower, 0.95)])
        if track is not None:
            self._close(track, counts, turns)
            _put(track.ring, first, tick, [requests, errors, active, pool.queued, *quantiles(counts)])

    @staticmethod
    def _close(track: Track, counts: Sequence[int], turns: bool) -> None:
        """This second's durations of what has parts; the window turns when those of the parts do."""
        if turns:
            track.turn()
        track.gather(counts)

    def _track(self, key: Key, tick: int) -> Track | None:
        track = self._tracks.get(key)
        if track is None:
            names = self._names[key[0]]
            fine, coarse = (Ring.size(len(names), step) for step in (1, COARSE))
            step = 1 if self.size + fine <= FINE_BUDGET else COARSE
            size = fine if step == 1 else coarse
            if self.size + size > BUDGET:
                self.left_out += 1
                return None
            self.size += size
            track = self._tracks[key] = Track(Ring(names, step))
        track.seen = tick
        return track

    # -- what goes out

    def total(self, after: int) -> dict[str, Any]:
        """Of all listeners together; empty before the first second."""
        track = self._tracks.get(("total",))
        return track.since(after, self.tick) if track is not None else {}

    def listeners(self, after: int) -> Iterator[dict[str, Any]]:
        """Of each listener."""
        for key, track in self._tracks.items():
            if key[0] == "listener":
                yield {"name": key[1], **track.ring.since(after, self.tick)}

    def pools(self, after: int) -> Iterator[dict[str, Any]]:
        """Of each pool."""
        for key, track in self._tracks.items():
            if key[0] == "pool":
                yield {"name": key[1], **track.since(after, self.tick)}

    def backends(self, after: int, only_new: bool = False) -> Iterator[dict[str, Any]]:
        """Of each backend, with the percentiles of its last moments; `only_new`: of which a step is over since."""
        for key, track in self._tracks.items():
            if key[0] == "backend" and not (only_new and track.ring.last(after) == track.ring.last(self.tick)):
                _, pool, name, address = key
                yield {"pool": pool, "name": name, "address": address, **track.since(after, self.tick)}

    @property
    def events(self) -> list[dict[str, Any]]:
        """The last ones, oldest first."""
        return list(self._events)


def _put(ring: Ring, first: int, tick: int, row: Sequence[int]) -> None:
    """One second; or several, between which what was counted is shared."""
    if first == tick:
        ring.put(tick, row)
        return
    passed = tick - first + 1
    for number in range(passed):
        ring.put(
            first + number,
            [
                value if name in _GAUGES else value * (number + 1) // passed - value * number // passed
                for name, value in zip(ring.names, row, strict=True)
            ],
        )


def _used(backend: Backend) -> tuple[int, int]:
    """How often it was used, as the status counts; how often it failed, or answered that it had."""
    failures = sum(backend.failures.values())
    return sum(backend.requests) + backend.tcp_ok + failures, failures + backend.requests[5]


def _durations(books: ListenerBooks) -> list[int]:
    """How long all its requests took, by bucket."""
    counts = [0] * (len(BUCKETS) + 1)
    for route in books.routes.values():
        if route.requests:
            counts = [a + b for a, b in zip(counts, route.duration.counts, strict=True)]
    return counts


def _answered(books: ListenerBooks) -> tuple[int, int]:
    """Requests (of tcp: connections that have ended), and those that went wrong."""
    if books.protocol == "tcp":
        return sum(books.terminations.values()), sum([books.terminations.get(word, 0) for word in _FAILED])
    requests, errors = books.forgotten, 0
    for route in books.routes.values():
        for (_, code), count in route.requests.items():
            requests += count
            if code >= 500:
                errors += count
    return requests, errors
