"""`adaptive`: away from backends that have become slow, that fail, or that have much to do; and back when they are well.

Sources: the score is Finagle's peak EWMA (Twitter, `finagle-core` loadbalancer/PeakEwma.scala: latency that rises fast and
falls slowly, times what is in flight); two draws as in Mitzenmacher, "The Power of Two Choices", 2001; the choice between
them keeps the first as Metropolis et al., 1953, keep a state: always if it is no worse, else with a chance.

Law. cost = latency x penalty x (active / share + 1), where share is the weight over the mean weight: 1 where all weigh
the same. A backend is drawn by weight, a second one by weight among the others. The first is taken unless it costs more
than `TOLERANCE` times as much as the second; if it costs r times that, it is still taken with the chance r ** -4. So
equals that are idle get exactly their weights (noise below the tolerance moves nobody, and nobody runs to the one that
is a little better), and one that is ten times slower gets a few per cent of its share. Decision (2026-07): not (active
+ 1) / weight, as for the other pickers; weights count in the draws already, and a heavy backend that is idle answers no
sooner than a light one. Where little is in flight light ones get somewhat more than their weight, for they are idle
more often.

- Latency, and all that is said of it, is in logarithms, for it is ratios that the choice weighs: one outlier among good
  answers is no verdict, however far out it lies. A slower answer moves it `RISE` of the way, a faster one `FALL` of it.
  Differences below `GRAIN` are noise of the network and of our own reactor, and hardly count.
- A failure moves the error rate up by `WORSE` of the way to 1, a success down by `BETTER` of the way to 0; the penalty is
  exp(`SEVERITY` x rate). The rate leans to the bad side: who fails half of the time stands at two thirds and costs a
  hundred times as much, one failure in a hundred costs 15 per cent. A failure may raise the latency (a timeout does), but
  never lower it: whoever fails fast does not look fast.
- Where both are dear, more than `DEAR` above what is usual, the second is drawn anew up to `MORE` times: those that are
  well are found also where most are not.
- Time forgives, with the time constant `TAU`: what was found out about a backend that nobody asks fades into what is
  usual in its tier (the mean of all answers), and its error rate into 0. Therefore each gets a trickle, be it as bad as
  it may: ten times slower, about one request in four seconds at ten a second; a thousand times, one in ten or fifteen.
  Within half a minute of its recovery it has its share again.
- Who has given fewer than `NEW` answers is not judged by them, unless one has failed: he is no worse than whom he is
  compared with. First answers are slow ones (a dial, cold caches): the fastest of them counts. And the very first one of a
  pool would else stand for all who have given none, so that whoever gave it, and then faster ones, kept the traffic for as
  long as that took to fade.

Promises: O(1) with equal weights, O(log n) otherwise; no more memory than one record for each member, and for each that
left less than `MEMORY` ago, for whoever is gone for a moment (suspected, say) shall not come back as if nothing had been.
`finished` is told of the uses that say something about the backend: answers (5xx are failures) and failures, not clients
that went away. Decision (2026-07): `seconds` is best the time to the head of the answer; the length of a download, or of a
connection over tcp, is the client's doing. tests/properties/test_adaptive_simulation.py holds the numbers of features.md,
ALG-6, from 10 to 1000 requests a second.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from itertools import accumulate
from math import exp, log
from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from lbsvc.core.backend import Backend
from lbsvc.core.chance import DRAWS_OF_MANY, MANY
from lbsvc.core.pickers import Picker, register

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

#: Seconds in which all that is known fades to 1/e of what it was.
TAU: Final = 7.0
#: After so many seconds there is nothing left of it.
MEMORY: Final = 8 * TAU
#: How far one slower answer raises the latency, and one faster answer lowers it.
RISE: Final = 0.5
FALL: Final = 0.1
#: How far one failure raises the error rate towards 1, and one success lowers it towards 0.
WORSE: Final = 0.2
BETTER: Final = 0.1
#: The penalty for a backend that always fails is e to this power.
SEVERITY: Final = 7.0
#: Error rates below this are none: a thousandth of a per cent of the cost.
FAINT: Final = 1e-6
#: How much dearer than another a backend may be and still be as good.
TOLERANCE: Final = 1.2
#: How far above what is usual a latency, or what a penalty makes of it, is dear: twice as much.
DEAR: Final = log(2.0)
#: How often another is looked for where both are dear.
MORE: Final = 3
#: Seconds added to each latency.
GRAIN: Final = 0.0005
#: Seconds above which slow is slow.
SLOWEST: Final = 3600.0
#: How much one answer of any member moves what is usual.
USUAL: Final = 0.02
#: After so many answers a backend is judged by them.
NEW: Final = 5
#: Seconds that a cost is good for before time changes it.
FRESH: Final = 0.1
#: Draws for two that are not excluded, before the excluded are left out of the draw itself.
DRAWS: Final = 12
#: With so many members or fewer they are left out at once: that is cheaper.
FEW: Final = 8


class Pace:
    """What is known about one backend. `score` follows from level and errors; whoever changes them says `price()`.

    With many members each is looked at seldom, and what it refers to is out of the processor's caches by then. Therefore
    numbers are shared where they are equal: a backend without errors has one number that is its level and its score.
    """

    __slots__ = ("answers", "backend", "burden", "errors", "level", "score", "stamp", "weight")

    def __init__(self, backend: Backend, level: float, now: float) -> None:
        self.backend = backend
        self.weight = 1
        self.burden = 1.0  # of one request in flight: mean weight over weight
        self.answers = 0  # up to NEW, where one counts no more than another
        self.level = level  # logarithm of the latency in seconds, GRAIN included
        self.errors = 0.0  # 0 to 1
        self.stamp = now  # up to when it has faded
        self.score = level  # the level with its penalty: the logarithm of what a request costs, were no other in flight

    def price(self) -> None:
        """Work out the score; errors too few to matter are none."""
        if self.errors < FAINT:
            self.errors = 0.0
            self.score = self.level
        else:
            self.score = self.level + SEVERITY * self.errors

    def fade(self, usual: float, now: float) -> None:
        """Forget as much as the time says; a clock that stands, or steps back, makes nothing forgotten."""
        age = now - self.stamp
        if age > 0:
            left = exp(-age / TAU)
            self.level = usual + (self.level - usual) * left
            self.errors *= left
            self.stamp = now
            self.price()

    def __repr__(self) -> str:
        return f"<Pace of {self.backend.name}: {exp(self.level):.4f} s, {self.errors:.0%} errors>"


class Lots:
    """Paces to draw two different ones from, each by its weight."""

    __slots__ = ("_random", "_sums", "is_even", "paces")

    def __init__(self, paces: Iterable[Pace], random: Callable[[], float]) -> None:
        self.paces = list(paces)
        self._random = random
        self._sums = list(accumulate(pace.weight for pace in self.paces))
        self.is_even = len({pace.weight for pace in self.paces}) == 1

    def one(self) -> Pace:
        """One of them; there is one at least."""
        return self.paces[bisect_right(self._sums, self._random() * self._sums[-1])]

    def two(self) -> tuple[Pace, Pace]:
        """Two of them; there are two at least."""
        paces = self.paces
        random = self._random
        if self.is_even:
            # Never out of range: random() is below 1 by at least 2**-53, and so is the product below the count.
            count = len(paces)
            first = int(random() * count)
            second = int(random() * (count - 1))
            if second >= first:
                second += 1
            return paces[first], paces[second]
        sums = self._sums
        first = bisect_right(sums, random() * sums[-1])
        width = paces[first].weight
        # The second draw is over what is left when the first one's part of the line is cut out. Numbers are whole, so that
        # no sum is rounded up to the end of the line.
        point = int(random() * (sums[-1] - width))
        if point >= sums[first] - width:
            point += width
        return paces[first], paces[bisect_right(sums, point)]


@register("adaptive")
class Adaptive(Picker):
    """The cheaper of two draws, mostly."""

    wants_results: ClassVar[bool] = True

    def __init__(self, rng: Random) -> None:
        self._random = rng.random
        self._known: dict[Backend, Pace] = {}  # members, and for a while those who were
        self._lots = Lots((), self._random)
        self._even: list[Pace] = []  # all members, where there are two at least and all weigh the same
        self._usual = log(GRAIN)  # the mean level of all answers
        self._has_answers = False
        self._sweep = 0.0  # when those who were members are looked through; they are there if this is above 0

    def update(self, backends: Sequence[Backend]) -> None:
        now = self.seconds()
        known = self._known
        if self._has_answers and all(now - pace.stamp > MEMORY for pace in known.values()):
            # It was not asked for a while (its tier was empty): what is usual now, the first answers say.
            known.clear()
            self._has_answers = False
        paces = []
        for backend in backends:
            pace = known.get(backend)
            if pace is None:
                pace = known[backend] = Pace(backend, self._usual, now)
            pace.weight = backend.effective
            paces.append(pace)
        if paces:
            middle = sum(pace.weight for pace in paces) / len(paces)
            for pace in paces:
                pace.burden = middle / pace.weight if pace.weight != middle else 1.0  # one number for all of them
        self._lots = Lots(paces, self._random)
        self._even = paces if len(paces) > 1 and self._lots.is_even else []
        if len(known) > len(paces):
            self._forget(now)

    def pick(self, exclude: Collection[Backend]) -> Backend | None:
        # Hot path (tests/bench/pick_cost.py): `_pick_of` is inlined where all weigh the same.
        if exclude:
            return self._pick_among_others(exclude)
        paces = self._even
        if not paces:
            return self._pick_of(self._lots)
        count = len(paces)
        at = int(self._random() * count)
        then = int(self._random() * (count - 1))
        first, second = paces[at], paces[then + 1 if then >= at else then]
        dear = self._usual + DEAR
        if second.score > dear and first.score > dear:
            second = self._look_for_better(self._lots, first, second, dear)
        return self._better(first, second)

    @override
    def pick_among(self, few: Sequence[Backend], key: int | None) -> Backend | None:
        return self._pick_of(Lots([self._known[backend] for backend in few], self._random))

    def finished(self, backend: Backend, seconds: float, failed: bool, now: float) -> None:
        # Hot path: everything is inlined but for what is rare.
        pace = self._known.get(backend)
        if pace is None:
            return
        if not 0.0 <= seconds <= SLOWEST:  # nor is it what is no number
            seconds = SLOWEST if seconds > 0.0 else 0.0
        level = log(GRAIN + seconds)
        if not self._has_answers and not failed:
            self._begin(level)
        if now - pace.stamp > FRESH:
            pace.fade(self._usual, now)
        if failed:
            pace.answers = NEW
            pace.errors += WORSE * (1.0 - pace.errors)
            if level > pace.level:
                pace.level += RISE * (level - pace.level)
            pace.price()
            return
        self._usual += USUAL * (level - self._usual)
        before = pace.level
        if pace.answers < NEW:
            if level > before and pace.answers:
                level = before
            pace.answers += 1
        else:
            level = before + (RISE if level > before else FALL) * (level - before)
        pace.level = pace.score = level
        if pace.errors:
            pace.errors -= BETTER * pace.errors
            pace.price()

    def _begin(self, level: float) -> None:
        """The first answer of all: until now nothing was known of anybody's speed."""
        self._has_answers = True
        self._usual = level
        for pace in self._known.values():
            pace.level = level
            pace.price()

    def _pick_of(self, lots: Lots) -> Backend | None:
        paces = lots.paces
        if len(paces) < 2:
            return paces[0].backend if paces else None
        first, second = lots.two()
        dear = self._usual + DEAR
        if second.score > dear and first.score > dear:
            second = self._look_for_better(lots, first, second, dear)
        return self._better(first, second)

    def _look_for_better(self, lots: Lots, first: Pace, second: Pace, dear: float) -> Pace:
        """Another second that is not dear, if one is found soon. The first stays: its trickle is its own."""
        for _ in range(MORE):
            pace = lots.one()
            if pace is not first and pace.score <= dear:
                return pace
        return second

    def _pick_among_others(self, exclude: Collection[Backend]) -> Backend | None:
        lots = self._lots
        if len(lots.paces) > FEW:
            first = None
            for _ in range(DRAWS if len(lots.paces) <= MANY else DRAWS_OF_MANY):
                pace = lots.one()
                if pace is first or pace.backend in exclude:
                    continue
                if first is not None:
                    return self._better(first, pace)
                first = pace
        return self._pick_of(Lots((pace for pace in lots.paces if pace.backend not in exclude), self._random))

    def _better(self, first: Pace, second: Pace) -> Backend:
        """The first, unless the second is cheaper and a draw says so."""
        now = self.seconds()
        if now - first.stamp > FRESH or now - second.stamp > FRESH:
            self._refresh(first, second, now)
        one, other = first.backend, second.backend
        gap = second.score - first.score
        if (gap < 0.0 and first.answers < NEW) or (gap > 0.0 and second.answers < NEW):
            gap = 0.0  # it is new, and not to be held against it
        ratio = TOLERANCE * exp(gap) * (other.active * second.burden + 1.0) / (one.active * first.burden + 1.0)
        if ratio >= 1.0:
            return one
        ratio *= ratio
        return one if self._random() < ratio * ratio else other

    def _refresh(self, first: Pace, second: Pace, now: float) -> None:
        first.fade(self._usual, now)
        second.fade(self._usual, now)
        if 0.0 < self._sweep < now:
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop those who are no members any more and of whom there is nothing left to be known."""
        members = {pace.backend for pace in self._lots.paces}
        absent = [pace for backend, pace in self._known.items() if backend not in members]
        for pace in absent:
            if not now - pace.stamp <= MEMORY:  # so too where a clock without a time says that all is over
                del self._known[pace.backend]
        self._sweep = now + MEMORY if len(self._known) > len(members) else 0.0
