"""One storm: traffic, faults in their order, the calm behind it, and the judgement.

Promises: `Storm.run` raises AssertionError where something does not hold, and says the seed, what happened in its order,
and what the service has said. What is compared with the time before (descriptors, timers, objects) is compared when all
is quiet. Used by soak.py.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from tests.chaos.arena import POOLS, Arena
from tests.chaos.faults import Act, script
from tests.chaos.judging import Grown, judge_answers, judge_backends, judge_counts, judge_rest
from tests.chaos.operations import Operations
from tests.kit.processes import until
from tests.kit.programs import Wrk

#: How long the calm may take to come, in seconds: longer than all patience that is configured.
DEADLINE: Final = 60.0
#: Requests in the calm, none of which may fail.
CALM: Final = 40
#: What belongs to requests and connections that are under way: of these there may be no more than there were.
UNDER_WAY: Final = ("lbsvc.http.", "lbsvc.net.", "lbsvc.core.lease.", "lbsvc.core.queueing.", "socket.socket")
#: And of those, what goes on by itself, is remembered, or made of settings.
STANDING: Final = (
    "lbsvc.net.prober.",
    "lbsvc.net.checks.",
    "lbsvc.net.relaysite.",
    "lbsvc.http.identity.",
    "lbsvc.http.placing.",
    "lbsvc.http.fields.Rules",
    "lbsvc.http.destination.",
    "lbsvc.http.edits.",
    "lbsvc.http.h2_pooling.Multiplexing",  # of a backend that an algorithm remembers for a while
)
#: The timer of a pause before connections are made ahead again, which is long where many could not be made.
RESTING: Final = "lbsvc.net.ahead.Shelf._rested"
#: By so many there may be more of anything else: settings that were equal and are two now, what algorithms have learned.
ROOM: Final = 400


class Quiet:
    """What is there while nothing happens."""

    def __init__(self, arena: Arena) -> None:
        inside = arena.look_inside()
        self.timers = Counter(inside["timers"])
        self.objects = Counter(inside["objects"])
        self.descriptors = arena.descriptors()

    def lower(self, other: Quiet) -> None:
        """The less of both."""
        self.timers &= other.timers
        self.objects &= other.objects
        self.descriptors &= other.descriptors

    def growth(self, former: Quiet) -> dict[str, int]:
        """What there is more than there may be."""
        more = self.objects - former.objects
        left = Counter({name: count for name, count in more.items() if _is_under_way(name) or count > ROOM})
        timers = self.timers - former.timers
        del timers[RESTING]
        return dict(timers + left + (self.descriptors - former.descriptors))


def quiet_of(arena: Arena, looks: int) -> Quiet:
    """What is there, by several looks: of timers the most, since a check that is under way has none for its next."""
    quiet = Quiet(arena)
    timers = quiet.timers
    for _ in range(looks - 1):
        arena.chance_to_work.wait(0.1)
        another = Quiet(arena)
        timers |= another.timers
        quiet.lower(another)
    quiet.timers = timers
    return quiet


def _is_under_way(name: str) -> bool:
    return name.startswith(UNDER_WAY) and not name.startswith(STANDING)


class Storm:
    """One storm of a kind, in an arena."""

    def __init__(self, arena: Arena, kind: str, number: int, length: int, with_wrk: bool = False) -> None:
        self.arena = arena
        self.kind = kind
        self.name = f"{arena.seed} {kind} {number}"
        self.script = script(kind, f"storm {self.name}", length)
        self.with_wrk = with_wrk
        self.operations = Operations(arena, f"operations {self.name}")
        self.journal: list[str] = []
        self.requests = 0
        self.answered = 0
        self.reasons = Counter[str]()
        self._began = time.monotonic()

    def run(self, former: Quiet) -> None:
        """From the first request to the judgement; `former` is what was there when nothing had happened yet."""
        arena = self.arena
        before = arena.metrics()
        told = len(arena.complaints())
        arena.traffic.mood = "rude" if self.kind in ("rude", "mixed") else "busy"
        try:
            arena.traffic.start(f"traffic {self.name}")
            try:
                self._rage()
                self._calm_down()
            finally:
                arena.traffic.stop()
            self._await_rest(before)
            problems = [*self._judge(before), *arena.complaints()[told:]]
            if left := self._await_quiet(former):
                problems.append(f"left behind: {left}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report([])}") from None
        if problems:
            raise AssertionError(self.report(problems))

    def note(self, what: object) -> None:
        """Write down what happens."""
        self.journal.append(f"{time.monotonic() - self._began:7.2f} {self.arena.books.done:6d} {what}")

    def report(self, problems: list[str]) -> str:
        """Everything that whoever looks for the cause needs."""
        shown = [*problems[:30], f"({len(problems)} problems)"]
        algorithms = {name: self.arena.tree_at_start["pools"][name]["algorithm"] for name in POOLS}
        return "\n".join(
            [
                f"storm {self.name!r} (seed {self.arena.seed}), {algorithms}",
                *shown,
                "what happened:",
                *self.journal,
                "",
                self.arena.service.report(),
            ]
        )

    # -- what happens

    def _rage(self) -> None:
        wrk = None
        if self.with_wrk:
            url = f"http://127.0.0.1:{self.arena.ports['wrk']}/load/w/3/sized"
            wrk = Wrk(url, folder=self.arena.folder, connections=4)
        try:
            for act in self.script:
                self._await_work(act)
                self.note(act)
                self._act(act)
        finally:
            if wrk is not None:
                wrk.signal(signal.SIGINT)
                wrk.wait()
                wrk.stop()

    def _await_work(self, act: Act) -> None:
        """Until as much was done as stands before this act, or its patience is over."""
        aim = self.arena.books.done + act.requests
        end = time.monotonic() + act.patience
        while self.arena.books.done < aim and time.monotonic() < end:
            self.arena.chance_to_work.wait(0.01)

    def _act(self, act: Act) -> None:
        backend = self.arena.members[act.target]
        if act.what == "harm":
            backend.harm(act.word)
        elif act.what == "mend":
            backend.mend()
        elif act.what == "pause":
            self.arena.service.signal(signal.SIGSTOP)
            self.arena.chance_to_work.wait(act.seconds)
            self.arena.service.signal(signal.SIGCONT)
        else:
            self.operations.do(act.word, act.target)

    def _calm_down(self) -> None:
        """All are mended, everything is as it was; and then no request fails any more."""
        arena = self.arena
        for backend in arena.members:
            if backend.fault:
                backend.mend()
        self.operations.settle()
        arena.traffic.mood = "calm"
        self.note("all mended")
        try:
            until(self.operations.is_settled, "all are up again", DEADLINE)
        except AssertionError as error:
            raise AssertionError(f"{error}: {arena.operator.api('GET', '/status').value['pools']}") from None
        self.note("all up")
        until(self._sheds_nothing, "served by a service that is not overloaded", DEADLINE)
        arena.books.mark()
        self._serve_some()
        self.note("calm")

    def _serve_some(self) -> None:
        books = self.arena.books
        aim = books.done + CALM
        until(lambda: books.done >= aim or books.troubles, "served as before", DEADLINE)

    def _sheds_nothing(self) -> bool:
        """Whether no request of some is refused because the service lags: it did, when it was made to stand still."""
        before = self.arena.metrics()
        self._serve_some()
        return not Grown(before, self.arena.metrics()).by("lbsvc_listener_rejected_total", "reason", reason="overload")

    # -- what must hold

    def _await_rest(self, before: Any) -> None:
        """Until nothing is under way, and every line is written."""

        def is_at_rest() -> bool:
            grown = Grown(before, self.arena.metrics())
            http = sum(
                grown.by("lbsvc_http_requests_total", "listener", listener=name)[(name,)] for name in ("web", "secure")
            )
            raw = sum(grown.by("lbsvc_terminations_total", "reason", listener="raw").values())
            return not list(judge_rest(grown)) and self.arena.count_lines() >= http + raw

        try:
            until(is_at_rest, "at rest", 20)
        except AssertionError as error:
            left = list(judge_rest(Grown(before, self.arena.metrics())))
            inside = self.arena.look_inside()["objects"]
            raise AssertionError(f"{error}: {left}, {self.arena.count_lines()} lines, {inside}") from None

    def _judge(self, before: Any) -> Iterator[str]:
        arena = self.arena
        yield from arena.books.troubles
        yield from self.operations.problems
        calm = arena.books.calm()
        asked, connects, nonsense = arena.books.take()
        lines = arena.take_lines()
        self.requests, self.answered = len(asked), sum(each.is_whole for each in asked)
        self.reasons = Counter(line["reason"] for line in lines)
        yield from judge_answers(asked, lines, nonsense)
        yield from judge_backends(asked, {each.name: each.take_book() for each in arena.backends})
        yield from judge_counts(Grown(before, arena.metrics()), lines, connects)
        for each in calm:
            if not each.left and not each.is_behind and (not each.is_whole or each.status not in (0, 101, 200)):
                yield f"in the calm: {each}"

    def _await_quiet(self, former: Quiet) -> dict[str, int]:
        """What there is more than there was, once there is nothing, or after a while."""
        quiet = Quiet(self.arena)
        end = time.monotonic() + 20
        while quiet.growth(former) and time.monotonic() < end:
            self.arena.chance_to_work.wait(0.2)
            quiet.lower(Quiet(self.arena))
        return quiet.growth(former)
