"""The reactor's lag on its way to a decision: measured, judged, told, and brought to other settings.

Promises: `overload` is what every listener looks at, for as long as the process lives; each change of it is one event
(`overload.begun`, `overload.over`). The lag itself is measured whether or not there is a limit.
What overload means for requests is the roads' to say (http/exchange.py, net/relay.py, net/entrance.py); the admin interface
knows nothing of it, and answers. Made by traffic.py, a part of what a reload changes.

Decision (2026-11-22): `overload: {lag: 1s}` stands at the top of the configuration, not among the `limits` of a listener.
There is one reactor: it is late for all listeners alike, whichever of them has the load, so that there is one decision, one
event and one metric; and a listener that went on taking requests would hold up those that refuse them. The default is
generous: at a second nobody is served well any more.

Decision (2026-11-22): a refusal ends its connection over TLS too, and new handshakes are bounded (net/entrance.py). A
client that comes again at once buys a handshake by it (0.3 ms of OpenSSL's time, 0.5 in all, resumed or not, with P-256;
about what a short request costs to serve, where a 503 on a kept connection would be a tenth), so that many that ignore
Retry-After could keep an overload up; past the bound they are closed where they are accepted (some 10 µs), and are not told
why. To keep the first few would help less, while the rest of them would hold their descriptors; and a client that is told
to go may come to another instance, for which it has to leave this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lbsvc.config.schema import OverloadSettings, Settings
from lbsvc.config.spelling import spell_duration
from lbsvc.core.overload import Overload
from lbsvc.observe.lag import ReactorLag


class Shedding:
    """Whether the process refuses what is new."""

    def __init__(self, reactor: Any, settings: OverloadSettings | None, emit: Callable[..., None]) -> None:
        self._seconds: Callable[[], float] = reactor.seconds
        self._emit = emit
        #: others carry the traffic, and refuse what is new when they are late; here the lag is only measured
        self.is_leading = False
        self._began = 0.0
        self.overload = Overload(_limit(settings))
        self.lag = ReactorLag(reactor, on_sample=self._sampled)
        self.start = self.lag.start
        self.stop = self.lag.stop

    def _sampled(self, late: float) -> None:
        if self.is_leading or not self.overload.sample(late, self._seconds()):
            return
        if not self.overload.is_on:
            self._tell_end()
            return
        self._began = self._seconds()
        self._emit(
            "warn", "overload.begun",
            f"the reactor is {late:.3f} s late, and was for a while: new requests and connections are refused",
            lag=round(late, 6), limit=self.overload.limit,
        )  # fmt: skip

    def _tell_end(self) -> None:
        lasted = self._seconds() - self._began
        words = f"the reactor keeps up again: what is new is served, after {lasted:.1f} s"
        self._emit("info", "overload.over", words, seconds=round(lasted, 3))

    def prepare(self, old: Settings, new: Settings) -> OverloadPlan:
        """Nothing can be refused here."""
        return OverloadPlan(self, old.overload, new.overload)

    def apply(self, settings: OverloadSettings | None) -> None:
        """Another limit."""
        if self.overload.apply(_limit(settings)):
            self._tell_end()  # nothing begins by it


class OverloadPlan:
    """Another limit, that does not hold yet."""

    def __init__(self, shedding: Shedding, old: OverloadSettings | None, new: OverloadSettings | None) -> None:
        self._shedding = shedding
        self._old = old
        self._new = new

    def commit(self) -> list[str]:
        """It holds."""
        if self._old == self._new:
            return []
        self._shedding.apply(self._new)
        return ["overload: off" if self._new is None else f"overload.lag: {spell_duration(self._new.lag)}"]

    def abandon(self) -> None:
        """It never will."""


def _limit(settings: OverloadSettings | None) -> float | None:
    return settings.lag if settings is not None else None
